/** Sound that comes while it is made: bytes of any format to samples, laid into a player and its waveform. */

import { samples as pcm } from "shared/pcm.js";
import { output, Player, RATE } from "shared/player.js";

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
  if (format === "flac") return true; // what it would ask for stands in the file's head; a browser that cannot says so then
  const codec = { mp3: "mp3", opus: "opus", aac: "mp4a.40.2" }[format];
  return (await AudioDecoder.isConfigSupported({ codec, sampleRate: RATE, numberOfChannels: 1 })).supported ?? false;
}

/** Hand on the samples of a file that is still coming, as soon as they can be had. Throws what the stream throws, and what is no such file. */
export async function hear(bytes: ReadableStream<Uint8Array>, format: Format, onpiece: (samples: Int16Array) => void): Promise<void> {
  if (format === "wav") {
    for await (const piece of pcm({ body: bytes.pipeThrough(withoutHead()) } as Response)) onpiece(piece);
  } else if (format === "mp3") await hearMp3(bytes, onpiece);
  else await hearContainer(bytes, format, onpiece);
}

/** By mediabunny, which reads ahead too far in MP3 alone: four seconds of it. */
async function hearContainer(bytes: ReadableStream<Uint8Array>, format: "opus" | "aac" | "flac", onpiece: (samples: Int16Array) => void) {
  const { ADTS, AudioSampleSink, FLAC, Input, OGG, ReadableStreamSource } = await import("mediabunny");
  const input = new Input({ source: new ReadableStreamSource(bytes), formats: [{ opus: OGG, aac: ADTS, flac: FLAC }[format]] });
  try {
    const track = (await input.getPrimaryAudioTrack())!;
    const play = resampled(await track.getSampleRate(), onpiece);
    for await (const sample of new AudioSampleSink(track).samples()) {
      const samples = new Float32Array(sample.numberOfFrames);
      sample.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      sample.close();
      play(samples);
    }
  } finally {
    input.dispose();
  }
}

async function hearMp3(bytes: ReadableStream<Uint8Array>, onpiece: (samples: Int16Array) => void) {
  let failure: unknown = null;
  let play: ((samples: Float32Array) => void) | null = null;
  const decoder = new AudioDecoder({
    output(data) {
      const samples = new Float32Array(data.numberOfFrames);
      data.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      play ??= resampled(data.sampleRate, onpiece);
      data.close();
      play(samples);
    },
    error: (e) => (failure = e),
  });
  decoder.configure({ codec: "mp3", sampleRate: RATE, numberOfChannels: 1 });
  let timestamp = 0;
  const frames = bytes.pipeThrough(mp3Frames()).getReader(); // not every browser can loop over a stream
  for (let frame = await frames.read(); !frame.done; frame = await frames.read()) {
    if (failure) throw failure;
    decoder.decode(new EncodedAudioChunk({ type: "key", timestamp: timestamp++, data: frame.value as Uint8Array<ArrayBuffer> }));
  }
  await decoder.flush();
  decoder.close();
}

function resampled(rate: number, onpiece: (samples: Int16Array) => void): (samples: Float32Array) => void {
  const resampler = rate === RATE ? null : new Resampler(rate, RATE);
  return (samples) => {
    const piece = resampler ? resampler.push(samples) : samples;
    if (piece.length) onpiece(sixteen(piece));
  };
}

const KBITS = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]; // of MPEG-1, layer III
const KBITS_2 = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]; // of MPEG-2 and 2.5

/** Bytes of the MPEG audio frame (layer III) that begins so; null: no frame does (ISO 11172-3, 2.4.1.3). */
export function mp3FrameLength(b0: number, b1: number, b2: number): number | null {
  const version = (b1 >> 3) & 3; // 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
  if (b0 !== 0xff || b1 >> 5 !== 7 || version === 1 || ((b1 >> 1) & 3) !== 1) return null;
  const kbits = (version === 3 ? KBITS : KBITS_2)[b2 >> 4];
  const rate = [44_100, 48_000, 32_000][(b2 >> 2) & 3];
  if (!kbits || !rate) return null;
  const hertz = rate / (version === 3 ? 1 : version === 2 ? 2 : 4);
  return Math.floor(((version === 3 ? 144_000 : 72_000) * kbits) / hertz) + ((b2 >> 1) & 1);
}

/** Cuts an MP3 file into its frames; what is between them is left out. */
export function mp3Frames(): TransformStream<Uint8Array, Uint8Array> {
  let rest: Uint8Array = new Uint8Array(0);
  return new TransformStream({
    transform(chunk, controller) {
      const all = new Uint8Array(rest.length + chunk.length);
      all.set(rest);
      all.set(chunk, rest.length);
      let at = 0;
      while (at + 4 <= all.length) {
        const length = mp3FrameLength(all[at]!, all[at + 1]!, all[at + 2]!);
        if (length === null) at++;
        else if (at + length > all.length) break;
        else controller.enqueue(all.slice(at, (at += length)));
      }
      rest = all.slice(at);
    },
  });
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
