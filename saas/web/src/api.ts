/** Speaks to the API. Every failure becomes a `Refused` with a sentence for people. */

import createClient from "openapi-fetch";

import type { components, paths } from "./schema";
import { lost, token } from "./session";
import { t } from "./strings";

type Schemas = components["schemas"];
export type Config = Schemas["Config"];
/** The bundled model, which follows little of a voice but its pitch. */
export const MINNOW = "minnow";
export type Job = Schemas["JobOut"];
export type Voice = Schemas["VoiceOut"];
export type Key = Schemas["Key"];
export type Entry = Schemas["Entry"];
export type Webhook = Schemas["Webhook"];
export type Delivery = Schemas["Delivery"];

/** Where the API is: this app's own origin, or what the build was told when another host serves it. */
export const ORIGIN: string = import.meta.env.VITE_API_URL ?? globalThis.location?.origin ?? "";

/** An answer that is not what was asked for. `status` is 0 when there was none. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null = null,
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

/** The server's words as a sentence: they begin small and have no full stop. */
export const sentence = (words: string) => words.replace(/^\p{Ll}/u, (c) => c.toUpperCase()).replace(/[^.!?]$/, "$&.");

/** What to tell about any error. */
export const words = (error: unknown) => (error instanceof Refused ? error.message : t.trouble.brokeOff);

async function reached(request: Request): Promise<Response> {
  try {
    return await fetch(request);
  } catch (e) {
    if (request.signal.aborted) throw e;
    throw new Refused(navigator.onLine ? t.trouble.unreachable : t.trouble.offline, 0);
  }
}

/** A response to a request in the user's name. A session that just ran out is renewed; one that cannot be ends here. */
export async function authorised(request: Request): Promise<Response> {
  const again = request.clone();
  const first = await token();
  if (first) request.headers.set("Authorization", `Bearer ${first}`);
  const response = await reached(request);
  if (response.status !== 401 || !first) return response;
  const second = await token(true);
  if (second) {
    again.headers.set("Authorization", `Bearer ${second}`);
    const renewed = await reached(again);
    if (renewed.status !== 401) return renewed;
  }
  await lost();
  return response;
}

/** Why a response is no good. */
export async function refusal(response: Response): Promise<Refused> {
  let message = t.trouble.unknown(response.status);
  let code: string | null = null;
  try {
    const { error } = await response.json();
    message = sentence(error.message);
    code = error.code ?? null;
  } catch {
    // Not ours, perhaps a proxy's: the status says what there is to say.
  }
  const wait = Number(response.headers.get("Retry-After"));
  return new Refused(message, response.status, code, Number.isFinite(wait) && wait > 0 ? wait : null);
}

export const api = createClient<paths>({ baseUrl: ORIGIN, fetch: authorised });

/** The data of an answer, or the refusal thrown. */
export async function ok<T>(answer: Promise<{ data?: T; response: Response; error?: unknown }>): Promise<T> {
  const { data, response, error } = await answer;
  if (response.ok) return data as T;
  const repeated = new Response(typeof error === "string" ? error : JSON.stringify(error), response);
  throw await refusal(repeated);
}

/** Fetch something that needs no session: a clip or a result by its own signed address. */
export async function plain(url: string, init?: RequestInit): Promise<Response> {
  const response = await reached(new Request(url, init));
  if (!response.ok) throw await refusal(response);
  return response;
}
