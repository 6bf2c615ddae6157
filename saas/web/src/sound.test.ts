import { samples as pcm } from "shared/pcm.js";
import { expect, test } from "vitest";

import { mp3FrameLength, mp3Frames, Resampler, sixteen, withoutHead } from "./sound";

const tone = (length: number, rate: number, hertz: number) => Float32Array.from({ length }, (_, i) => 0.8 * Math.sin((2 * Math.PI * hertz * i) / rate));

function inPieces(samples: Float32Array, ...sizes: number[]): Float32Array {
  const resampler = new Resampler(48_000, 44_100);
  const out: number[] = [];
  for (let at = 0, i = 0; at < samples.length; i++) {
    const size = sizes[i % sizes.length]!;
    out.push(...resampler.push(samples.subarray(at, at + size)));
    at += size;
  }
  return Float32Array.from(out);
}

test("another rate has no seams: pieces of any size give what the whole gives", () => {
  const whole = tone(5000, 48_000, 440);
  const once = inPieces(whole, 5000);
  for (const sizes of [[960], [1], [7, 500, 2], [4999, 1]]) {
    const pieces = inPieces(whole, ...sizes);
    expect(pieces.length).toBe(once.length);
    expect(Math.max(...pieces.map((s, i) => Math.abs(s - once[i]!)))).toBeLessThan(1e-6);
  }
});

test("a tone keeps its pitch and its loudness", () => {
  const got = inPieces(tone(48_000, 48_000, 440), 960);
  expect(Math.abs(got.length - 44_100)).toBeLessThan(4);
  const expected = tone(44_100, 44_100, 440);
  const error = Math.max(...got.slice(10, 44_000).map((s, i) => Math.abs(s - expected[i + 10]!)));
  expect(error).toBeLessThan(0.002);
});

test("samples beyond the scale are clipped, not wrapped", () => {
  expect([...sixteen(Float32Array.of(0, 1, -1, 1.5, -1.5, 0.5))]).toEqual([0, 32767, -32768, 32767, -32768, 16384]);
});

function wav(samples: Int16Array, extra: number): Uint8Array<ArrayBuffer> {
  const file = new DataView(new ArrayBuffer(44 + (extra ? 8 + extra : 0) + samples.byteLength));
  let at = 0;
  const word = (text: string) => [...text].forEach((c) => file.setUint8(at++, c.charCodeAt(0)));
  const size = (n: number) => (file.setUint32(at, n, true), (at += 4));
  word("RIFF"), size(0xffffffff), word("WAVE"), word("fmt "), size(16), (at += 16);
  if (extra) word("LIST"), size(extra), (at += extra);
  word("data"), size(0xffffffff);
  new Uint8Array(file.buffer).set(new Uint8Array(samples.buffer), at);
  return new Uint8Array(file.buffer);
}

test.each([
  [0, 1],
  [0, 44],
  [0, 45],
  [26, 3],
  [26, 1000],
])("a WAV file with %i bytes before its samples, in pieces of %i, is its samples", async (extra, size) => {
  const samples = Int16Array.from({ length: 300 }, (_, i) => i * 100 - 15_000);
  const file = wav(samples, extra);
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let at = 0; at < file.length; at += size) controller.enqueue(file.slice(at, at + size));
      controller.close();
    },
  });
  const heard: number[] = [];
  for await (const piece of pcm({ body: stream.pipeThrough(withoutHead()) } as Response)) heard.push(...piece);
  expect(heard).toEqual([...samples]);
});

test("what is no WAV file is said to be none", async () => {
  const bytes = new Response("this is not a sound at all").body!.pipeThrough(withoutHead());
  await expect(new Response(bytes).text()).rejects.toThrow("no WAV");
});

test.each([
  [[0xff, 0xfb, 0x90], 417], // MPEG-1, 128 kbit/s, 44.1 kHz
  [[0xff, 0xfb, 0x92], 418], // padded
  [[0xff, 0xf3, 0x84], 192], // MPEG-2, 64 kbit/s, 24 kHz
  [[0xff, 0xfb, 0xf0], null], // no such bit rate
  [[0xff, 0xe8, 0x90], null], // no such version
  [[0xff, 0xfd, 0x90], null], // layer II
  [[0x49, 0x44, 0x33], null], // a tag
])("an MP3 frame that begins with %j has %j bytes", ([a, b, c], length) => expect(mp3FrameLength(a!, b!, c!)).toBe(length));

test.each([1, 100, 417, 5000])("in pieces of %i bytes the frames are whole, and what is between them is left out", async (size) => {
  const frame = (padding: number) => Uint8Array.from({ length: 417 + padding }, (_, i) => [0xff, 0xfb, 0x90 | (padding << 1), 0][i] ?? i % 251);
  const file = Uint8Array.from([...[1, 2, 3], ...frame(0), ...frame(1), 9, 9, ...frame(0), 0xff, 0xfb]);
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let at = 0; at < file.length; at += size) controller.enqueue(file.slice(at, at + size));
      controller.close();
    },
  });
  const frames: Uint8Array[] = [];
  for await (const one of stream.pipeThrough(mp3Frames())) frames.push(one);
  expect(frames).toEqual([frame(0), frame(1), frame(0)]);
});
