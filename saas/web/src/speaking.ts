/** One press of Speak: the request, its sound as it comes, and what it cost in the end. */

import { onlineManager } from "@tanstack/react-query";

import { api, authorised, type Job, ok, ORIGIN, Refused, refusal } from "./api";
import { decodesLive, type Format, hear, Take, takeOf } from "./sound";
import { t } from "./strings";

export type Phase = "asking" | "speaking" | "settling" | "done";

/** What there is to show. `file` is there when all of it has come; `job` once it has ended. */
export interface Shown {
  phase: Phase;
  take: Take;
  seconds: number;
  file: Blob | null;
  job: Job | null;
  cut: boolean;
  stopped: boolean;
  error: unknown;
}

export interface Asked {
  text: string;
  voice: string;
  format: Format;
}

const ENDED = new Set(["succeeded", "failed", "cancelled", "expired"]);

export class Speaking {
  readonly #abort = new AbortController();
  #shown: Shown = { phase: "asking", take: new Take(), seconds: 0, file: null, job: null, cut: false, stopped: false, error: null };

  constructor(
    readonly asked: Asked,
    private readonly onchange: (shown: Shown) => void,
  ) {}

  /** Begin, from a click or key press: browsers are silent otherwise. Ends when the price is known. Never throws. */
  async run(): Promise<void> {
    this.#become({});
    this.#shown.take.player.play();
    let id: string | null = null;
    try {
      const response = await authorised(this.#request());
      if (!response.ok) throw await refusal(response);
      id = response.headers.get("X-Job-Id");
      await this.#hear(response.body!);
    } catch (error) {
      if (this.#abort.signal.aborted) this.#become({ stopped: true });
      else if (error instanceof Refused) this.#become({ error });
      else this.#become({ cut: true });
    }
    this.#shown.take.finish();
    if (id) {
      this.#become({ phase: "settling" });
      this.#become({ job: await this.#ended(id) });
    }
    this.#become({ phase: "done" });
  }

  /** No more sound, and no more work for the server. What was made until then is paid for and kept. */
  stop() {
    this.#shown.take.player.pause();
    this.#abort.abort();
  }

  #request(): Request {
    const { text, voice, format } = this.asked;
    return new Request(`${ORIGIN}/v1/audio/speech`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ input: text, voice: voice || "default", response_format: format }),
      signal: this.#abort.signal,
    });
  }

  async #hear(body: ReadableStream<Uint8Array<ArrayBuffer>>) {
    const { format } = this.asked;
    const [kept, heard] = body.tee();
    const whole = new Response(kept).blob();
    whole.catch(() => {}); // it is awaited below, after what can be heard has been
    let unheard = true;
    if (await decodesLive(format)) {
      try {
        await hear(heard, format, (piece) => {
          if (this.#shown.phase !== "asking" && this.#shown.phase !== "speaking") return; // decoded after the connection broke
          this.#shown.take.append(piece);
          this.#become({ phase: "speaking", seconds: this.#shown.take.player.length });
        });
        unheard = this.#shown.take.player.length === 0;
      } catch {
        // Either the connection broke, which `whole` tells, or this browser cannot decode it piece by piece.
      }
    } else void heard.cancel();
    const file = await whole;
    if (unheard && file.size) {
      const take = await takeOf(file);
      this.#shown.take.player.pause();
      this.#become({ take, seconds: take.player.length });
      take.player.play();
    }
    this.#become({ file });
  }

  /** The job once it has ended; null when the server does not say in time. */
  async #ended(id: string): Promise<Job | null> {
    for (let look = 0; look < 40; look++) {
      try {
        const job = await ok(api.GET("/api/jobs/{job_id}", { params: { path: { job_id: id } } }));
        if (ENDED.has(job.status)) return job;
      } catch (e) {
        if (e instanceof Refused && e.status >= 400 && e.status < 500 && e.status !== 429) return null;
        if (!onlineManager.isOnline()) await online();
      }
      await new Promise((resolve) => setTimeout(resolve, Math.min(250 * 1.2 ** look, 3000)));
    }
    return null;
  }

  #become(next: Partial<Shown>) {
    this.#shown = { ...this.#shown, ...next };
    this.onchange(this.#shown);
  }
}

function online(): Promise<void> {
  return new Promise((resolve) => {
    const stop = onlineManager.subscribe((is) => {
      if (!is) return;
      stop();
      resolve();
    });
  });
}

/** What is said beneath the waveform. */
export function saying({ phase, seconds, cut, stopped, error, file }: Shown): string {
  if (error) return t.speak.free;
  if (cut) return seconds ? t.speak.broke(seconds) : t.speak.brokeEarly;
  if (stopped) return t.speak.stopped(seconds);
  if (phase === "asking") return t.speak.waiting;
  return file ? t.speak.done(seconds) : t.speak.speaking;
}

/** What it cost, once that is known. */
export function costing({ phase, job, cut, stopped, error }: Shown): string {
  if (error || phase === "asking" || phase === "speaking") return "";
  if (phase === "settling") return t.speak.settling;
  if (!job) return cut || stopped ? t.speak.cutRunning : "";
  const price = job.charged ? t.speak.charged(job.charged, job.reserved) : t.speak.free;
  if (job.status !== "succeeded") return price;
  return cut || stopped ? `${price} ${t.speak.kept}` : job.partial ? `${price} ${t.speak.partial}` : price;
}
