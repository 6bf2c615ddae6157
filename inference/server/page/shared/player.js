/**
 * Plays sound while it is still being made. Pieces are laid end to end on the audio clock, sample after sample, so there is no
 * seam between them. Buffers, not an AudioWorklet: browsers have worklets only on https and localhost.
 */

export const RATE = 44100;
// Samples between reading the clock and the first: 25 ms. Browsers work sound out in bursts, of 896 samples when they are busy, so that
// the clock may be that old. A first piece that is late ends late, over the second.
const LEAD = 1103;
const AHEAD = 10; // s of sound handed to the browser in advance
const FADE = 0.01; // s, so that stopping does not click

let context = null;

/** The browser's audio output. Call it first from a click or a key press: browsers stay silent otherwise. */
export function output() {
  context ??= new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
  return context;
}

/** One sound, mono and 16-bit. Position and length are in seconds. */
export class Player {
  /** Pieces that came too late: each was a pause in the sound. */
  underruns = 0;
  playing = false;
  complete = false;
  /** Called with `performance.now()` of the first sample's hand-over to the device, once. */
  onfirst = null;
  /** Called when playing begins or ends. */
  onchange = () => {};

  #pieces = []; // {start, samples}, in order
  #length = 0; // samples so far
  #from = 0; // sample to go on from when not playing
  #bus = null; // what the pieces now sounding are connected to
  #sources = new Set();
  #runs = []; // {frame, when}: stretches without a pause since playing began
  #queued = 0; // samples before this one are handed over
  #cushion = 0; // samples to wait for after a pause: a server that is too slow should pause seldom, not all the time
  #timer = 0;

  get length() {
    return this.#length / RATE;
  }

  get position() {
    if (!this.#bus) return this.#from / RATE;
    const now = context.currentTime;
    let at = this.#from;
    for (let i = 0; i < this.#runs.length; i++) {
      const { frame, when } = this.#runs[i];
      if (when > now) break;
      at = Math.min(frame + (now - when) * RATE, this.#runs[i + 1]?.frame ?? this.#queued);
    }
    return at / RATE;
  }

  append(samples) {
    this.#pieces.push({ start: this.#length, samples });
    this.#length += samples.length;
    this.#pump();
  }

  /** Nothing more will come. */
  finish() {
    this.complete = true;
    this.#pump();
  }

  async play() {
    if (this.playing) return;
    if (this.complete && this.#from >= this.#length) this.#from = 0;
    this.playing = true;
    this.onchange();
    await output().resume();
    if (this.playing && !this.#bus) this.#begin();
  }

  pause() {
    if (!this.playing) return;
    this.#from = Math.round(this.position * RATE);
    this.#halt();
    this.playing = false;
    this.onchange();
  }

  seek(seconds) {
    const sounding = this.#bus !== null;
    this.#halt();
    this.#from = Math.round(Math.min(Math.max(seconds, 0), this.length) * RATE);
    if (sounding) this.#begin();
    this.onchange();
  }

  /** All samples so far. */
  samples() {
    const all = new Int16Array(this.#length);
    for (const { start, samples } of this.#pieces) all.set(samples, start);
    return all;
  }

  #begin() {
    this.#bus = new GainNode(context);
    this.#bus.connect(context.destination);
    this.#queued = this.#from;
    this.#timer = setInterval(() => this.#pump(), 100);
    this.#pump();
  }

  #halt() {
    if (!this.#bus) return;
    clearInterval(this.#timer);
    this.#bus.gain.setTargetAtTime(0, context.currentTime, FADE / 3);
    for (const source of this.#sources) source.stop(context.currentTime + FADE);
    this.#sources.clear();
    this.#runs = [];
    this.#bus = null;
  }

  #pump() {
    if (!this.#bus) return;
    while (this.#queued < this.#length) {
      let run = this.#runs.at(-1);
      if (run && !run.broken && this.#due(run) < context.currentTime) {
        run.broken = true;
        this.underruns += 1;
        this.#cushion = Math.min(Math.max(2 * this.#cushion, RATE), 8 * RATE);
      }
      const begins = !run || run.broken;
      if (begins && !this.complete && this.#length - this.#queued < this.#cushion) return;
      if (!begins && this.#due(run) > context.currentTime + AHEAD) return;
      const source = this.#next(); // takes a while, so the clock is read after it
      if (begins) run = this.#run();
      source.start(this.#due(run));
      this.#queued += source.buffer.length;
    }
    const run = this.#runs.at(-1);
    if (this.complete && (!run || this.#due(run) <= context.currentTime)) {
      this.#halt();
      this.#from = this.#length;
      this.playing = false;
      this.onchange();
    }
  }

  /** A stretch without a pause, from now on. */
  #run() {
    const now = context.currentTime;
    // A whole number of samples: between two of them the browser would interpolate, which dulls the sound.
    const run = { frame: this.#queued, when: (Math.round(now * RATE) + LEAD) / RATE };
    this.#runs.push(run);
    this.onfirst?.(performance.now() + 1000 * (run.when - now));
    this.onfirst = null;
    return run;
  }

  #due(run) {
    return run.when + (this.#queued - run.frame) / RATE;
  }

  /** What plays the samples from the first that is not handed over to the end of its piece. */
  #next() {
    const { start, samples } = this.#pieces.findLast((piece) => piece.start <= this.#queued);
    const rest = samples.subarray(this.#queued - start);
    const buffer = new AudioBuffer({ length: rest.length, sampleRate: RATE });
    buffer.copyToChannel(Float32Array.from(rest, (s) => s / 32768), 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(this.#bus);
    source.onended = () => this.#sources.delete(source);
    this.#sources.add(source);
    return source;
  }
}
