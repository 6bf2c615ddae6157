/** Speaks to the server that served this page. Every failure becomes a `Refused` with a sentence for people. */

const KEY = "fishserve.key";
let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch {
  // Storage is switched off: the key lasts as long as the page.
}

/** An answer that is not what was asked for. `status` is 0 when there was no answer at all. */
export class Refused extends Error {
  constructor(message, status, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Use this key from now on, for as long as this tab lives. */
export function setKey(value) {
  key = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // See above.
  }
}

export const hasKey = () => key !== null;

/** The whole address of a path of this server, also behind a proxy that gives it a prefix. */
export const address = (path) => new URL(path, document.baseURI).href;

/** A response with a good status. `json` is sent as JSON, `form` as multipart. Throws Refused, or AbortError. */
export async function call(path, { method = "GET", json, form, signal } = {}) {
  const sent = key;
  const headers = sent === null ? {} : { Authorization: `Bearer ${sent}` };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json === undefined ? form : JSON.stringify(json);
  let response;
  try {
    response = await fetch(address(path), { method, headers, body, signal });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Refused("The server does not answer. Is it still running?", 0);
  }
  // Typed in while this was on its way: ask again with the new key instead of asking people for it again.
  if (response.status === 401 && key !== sent) return call(path, { method, json, form, signal });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let message = `The server answered ${response.status} ${response.statusText}.`;
  try {
    const answer = await response.json();
    message = answer.error?.message ?? answer.message ?? answer.detail?.message ?? message;
  } catch {
    // Not ours, perhaps a proxy's: the status says what there is to say.
  }
  return new Refused(message, response.status, response.headers.get("Retry-After"));
}

/** A message as a sentence: the server's begin small and have no full stop. */
export const sentence = (words) => words.replace(/^\p{Ll}/u, (c) => c.toUpperCase()).replace(/[^.!?]$/, "$&.");

/** The server's state once it is ready. Until then each look goes to `onState`, with status "gone" while nobody answers. */
export async function ready(onState, signal) {
  for (;;) {
    let state = { status: "gone" };
    try {
      const response = await fetch(address("ready"), { signal, cache: "no-store" });
      state = await response.json();
    } catch (e) {
      if (e.name === "AbortError") throw e;
    }
    if (state.status === "ready") return state;
    onState(state);
    await pause(1000, signal);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/** The names of the voices. */
export async function voiceNames() {
  return (await (await call("v1/audio/voices")).json()).voices.map((voice) => voice.id);
}
