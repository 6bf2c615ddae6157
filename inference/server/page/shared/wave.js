/** Draws a sound as it grows, and is the slider to move in it. */

const BIN = 441; // samples a peak stands for: 10 ms
const BAR = 3; // CSS pixels
const GAP = 2;
const QUIET = 0.2; // a sound whose loudest peak is below this is drawn small

/** `element` has role slider and holds a canvas. `onseek` is called with seconds. */
export class Wave {
  onseek = () => {};

  #element;
  #canvas;
  #rate;
  #peaks = []; // 0..1, one a BIN
  #loudest = QUIET;
  #samples = 0;
  #expected = 0; // seconds that the whole is thought to last, while it is being made
  #position = 0;
  #dragging = false;

  constructor(element, rate) {
    this.#element = element;
    this.#canvas = element.querySelector("canvas");
    this.#rate = rate;
    new ResizeObserver(() => this.draw()).observe(element);
    addEventListener("themechange", () => this.draw());
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("pointerdown", (event) => {
      if (!this.#samples || event.button) return;
      this.#dragging = true;
      element.setPointerCapture(event.pointerId);
      this.#point(event);
    });
    element.addEventListener("pointermove", (event) => this.#dragging && this.#point(event));
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => (this.#dragging = false));
    this.clear();
  }

  get length() {
    return this.#samples / this.#rate;
  }

  /** Empty, to be filled with about this many seconds. */
  clear(expected = 0) {
    this.#peaks = [];
    this.#loudest = QUIET;
    this.#samples = 0;
    this.#expected = expected;
    this.move(0);
  }

  append(samples) {
    for (let i = 0; i < samples.length; i++) {
      const bin = Math.floor((this.#samples + i) / BIN);
      const size = Math.abs(samples[i]) / 32768;
      if (!(this.#peaks[bin] >= size)) this.#peaks[bin] = size;
      if (size > this.#loudest) this.#loudest = size;
    }
    this.#samples += samples.length;
    this.draw();
  }

  /** The whole is there. */
  finish() {
    this.#expected = 0;
    this.move(this.#position);
  }

  /** Show this position, in seconds. */
  move(seconds) {
    this.#position = seconds;
    this.#say();
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.#element;
    const scale = devicePixelRatio;
    if (!width) return;
    if (this.#canvas.width !== Math.round(width * scale)) this.#canvas.width = Math.round(width * scale);
    if (this.#canvas.height !== Math.round(height * scale)) this.#canvas.height = Math.round(height * scale);
    const style = getComputedStyle(this.#element);
    const [played, made, toCome] = ["--played", "--made", "--to-come"].map((name) => style.getPropertyValue(name));
    const paint = this.#canvas.getContext("2d");
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, width, height);
    const bars = Math.max(1, Math.floor((width + GAP) / (BAR + GAP)));
    const seconds = this.#span() / bars;
    for (let bar = 0; bar < bars; bar++) {
      const there = bar * seconds < this.length;
      const size = there ? Math.max(2 * BAR, this.#peak(bar * seconds, (bar + 1) * seconds) * height) : BAR;
      paint.fillStyle = !there ? toCome : bar * seconds < this.#position ? played : made;
      paint.beginPath();
      paint.roundRect(bar * (BAR + GAP), (height - size) / 2, BAR, size, BAR / 2);
      paint.fill();
    }
  }

  /** Seconds from the left end to the right. */
  #span() {
    return Math.max(this.length, this.#expected);
  }

  #peak(from, to) {
    const first = Math.floor((from * this.#rate) / BIN);
    const last = Math.max(first + 1, Math.floor((to * this.#rate) / BIN));
    let peak = 0;
    for (let i = first; i < last && i < this.#peaks.length; i++) peak = Math.max(peak, this.#peaks[i]);
    return Math.sqrt(peak / this.#loudest); // nearer to how loud it is heard than the amplitude
  }

  #say() {
    const now = Math.floor(this.#position);
    this.#element.setAttribute("aria-disabled", String(!this.#samples));
    this.#element.setAttribute("aria-valuemax", this.length.toFixed(1));
    this.#element.setAttribute("aria-valuenow", String(Math.min(now, this.length)));
    const words = this.#samples ? `${now} of ${this.length.toFixed(1)} seconds` : "no sound yet";
    this.#element.setAttribute("aria-valuetext", words);
  }

  #point(event) {
    const box = this.#element.getBoundingClientRect();
    this.#seek(((event.clientX - box.left) / box.width) * this.#span());
  }

  #key(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5 };
    if (event.key in steps) this.#seek(this.#position + steps[event.key]);
    else if (event.key === "Home") this.#seek(0);
    else if (event.key === "End") this.#seek(this.length);
    else return;
    event.preventDefault();
  }

  #seek(seconds) {
    if (this.#samples) this.onseek(Math.min(Math.max(seconds, 0), this.length));
  }
}
