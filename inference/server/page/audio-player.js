/** A play button, a waveform and a clock, moving together over one player. */

import { RATE } from "./shared/player.js";
import { Wave } from "./shared/wave.js";

let sounding = null; // only one plays at a time

export class AudioPlayer {
  /** Called whenever playing begins or ends. */
  onchange = () => {};
  /** Called with the position, in seconds, whenever it is shown. */
  onmove = () => {};
  player = null;

  #wave;
  #button;
  #clock;
  #what;

  /** Elements, and what the button says is played. */
  constructor({ wave, play, clock, what }) {
    this.#wave = new Wave(wave, RATE);
    this.#wave.onseek = (seconds) => {
      this.player.seek(seconds);
      this.#show();
    };
    this.#button = play;
    this.#clock = clock;
    this.#what = what;
    play.addEventListener("click", () => (this.player.playing ? this.player.pause() : this.player.play()));
  }

  /** Show another sound, still empty, that is expected to last about so many seconds. */
  load(player, expected = 0) {
    this.player?.pause();
    this.player = player;
    this.#wave.clear(expected);
    player.onchange = () => this.#changed();
    this.#changed();
  }

  append(samples) {
    this.#wave.append(samples);
  }

  finish() {
    this.#wave.finish();
    this.#show();
  }

  #changed() {
    const { playing, length } = this.player;
    this.#button.disabled = !playing && !length;
    if (playing && sounding !== this) {
      sounding?.player.pause();
      sounding = this;
    }
    this.#button.setAttribute("aria-label", `${playing ? "Pause" : "Play"} ${this.#what}`);
    this.#button.querySelector("use").setAttribute("href", `page/icons.svg#${playing ? "pause" : "play"}`);
    this.#show();
    if (playing) requestAnimationFrame(() => this.#frame(this.player));
    this.onchange();
  }

  #frame(player) {
    if (player !== this.player || !player.playing) return;
    this.#show();
    requestAnimationFrame(() => this.#frame(player));
  }

  #show() {
    const { position, length } = this.player;
    this.#wave.move(position);
    this.onmove(position);
    this.#clock.textContent = `${clock(position)} / ${clock(length)}`;
  }
}

/** Seconds as 1:02.5. */
export function clock(seconds) {
  const tenths = Math.round(10 * seconds);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}
