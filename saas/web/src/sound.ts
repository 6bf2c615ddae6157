/** Sound that comes while it is made: bytes of any format to samples, laid into a player and its waveform. */

import { samples as pcm } from "page/api.js";
import { output, Player, RATE } from "page/player.js";

export const LIVE = ["mp3", "opus", "aac", "flac", "wav"] as const;
export type Format = (typeof LIVE)[number];

/** One sound and who draws it. It outlives the component that shows it. */
export class Take {
  readonly player = new Player();
  /** Called with samples (44.1 kHz, 16 bit, mono) as they come, and with null at the end. */
  ondata: (samples: Int16Array | null) => void = () => {};

  append(samples: Int16Array) {
    this.player.append(samples);
    this.ondata(samples);
  }

  finish() {
    this.player.finish();
    this.ondata(null);
  }
}

/** -1..1 to 16 bit. */
export function sixteen(samples: Float32Array): Int16Array {
  return Int16Array.from(samples, (s) => Math.max(-32768, Math.min(32767, Math.round(s * 32768))));
}

/**
 * Another sample rate, piece by piece, without a seam: a cubic through the four nearest samples. Plays what is heard while it is made;
 * the file that is kept is not touched by it.
 */
export class Resampler {
  #step: number;
  #at = 1; // where the next output lies in #held; one sample before and two after it are needed
  #held = new Float32Array(1); // silence before the first

  constructor(from: number, to: number) {
    this.#step = from / to;
  }

  push(samples: Float32Array): Float32Array {
    const x = new Float32Array(this.#held.length + samples.length);
    x.set(this.#held);
    x.set(samples, this.#held.length);
    const out = new Float32Array(Math.max(0, Math.ceil((x.length - 2 - this.#at) / this.#step)));
    for (let i = 0; i < out.length; i++) {
      const at = this.#at + i * this.#step;
      const n = Math.floor(at);
      const f = at - n;
      const [a, b, c, d] = [x[n - 1]!, x[n]!, x[n + 1]!, x[n + 2]!];
      out[i] = b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)));
    }
    const next = this.#at + out.length * this.#step;
    const keep = Math.max(0, Math.min(Math.floor(next) - 1, x.length));
    this.#held = x.slice(keep);
    this.#at = next - keep;
    return out;
  }
}

/** Whether this browser can decode a format while it comes. */
export async function decodesLive(format: Format): Promise<boolean> {
  if (format === "wav") return true;
  if (!("AudioDecoder" in globalThis)) return false;
  const codec = { mp3: "mp3", opus: "opus", aac: "mp4a.40.2", flac: "flac" }[format];
  if (format === "flac") return true; // its configuration needs the file's head; mediabunny says no itself
  return (await AudioDecoder.isConfigSupported({ codec, sampleRate: format === "opus" ? 48000 : RATE, numberOfChannels: 1 })).supported ?? false;
}

/** Samples of a file that is still coming. Throws what the stream throws. */
export async function* decoded(bytes: ReadableStream<Uint8Array>, format: Format): AsyncGenerator<Int16Array> {
  if (format === "wav") {
    yield* pcm({ body: bytes.pipeThrough(withoutHead()) } as Response);
    return;
  }
  const { ADTS, AudioSampleSink, FLAC, Input, MP3, OGG, ReadableStreamSource } = await import("mediabunny");
  const kind = { mp3: MP3, opus: OGG, aac: ADTS, flac: FLAC }[format];
  const input = new Input({ source: new ReadableStreamSource(bytes), formats: [kind] });
  try {
    const track = await input.getPrimaryAudioTrack();
    if (!track) return;
    const rate = await track.getSampleRate();
    const resampler = rate === RATE ? null : new Resampler(rate, RATE);
    for await (const sample of new AudioSampleSink(track).samples()) {
      const samples = new Float32Array(sample.numberOfFrames);
      sample.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      sample.close();
      const piece = resampler ? resampler.push(samples) : samples;
      if (piece.length) yield sixteen(piece);
    }
  } finally {
    input.dispose();
  }
}

/** Drops everything up to the samples of a WAV file. */
export function withoutHead(): TransformStream<Uint8Array, Uint8Array> {
  let head: Uint8Array | null = new Uint8Array(0);
  return new TransformStream({
    transform(chunk, controller) {
      if (head === null) return controller.enqueue(chunk);
      const all: Uint8Array = new Uint8Array(head.length + chunk.length);
      all.set(head);
      all.set(chunk, head.length);
      head = all;
      const start = samplesAt(all);
      if (start === null) return;
      head = null;
      if (start < all.length) controller.enqueue(all.subarray(start));
    },
  });
}

/** Where the samples of a WAV file begin, or null while its head is not whole. Throws for what is no WAV. */
function samplesAt(file: Uint8Array): number | null {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const word = (at: number) => String.fromCharCode(...file.subarray(at, at + 4));
  if (file.length < 12) return null;
  if (word(0) !== "RIFF" || word(8) !== "WAVE") throw new Error("no WAV file");
  for (let at = 12; at + 8 <= file.length; at += 8 + view.getUint32(at + 4, true)) if (word(at) === "data") return at + 8;
  return null;
}

/** A whole file as a take. Throws when the browser cannot read it. */
export async function takeOf(file: Blob): Promise<Take> {
  const buffer = await output().decodeAudioData(await file.arrayBuffer());
  const take = new Take();
  take.append(sixteen(buffer.getChannelData(0)));
  take.finish();
  return take;
}
