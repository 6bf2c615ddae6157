/** The text that is spoken. The word that is heard now is marked, in browsers that can mark text without changing it. */

const MARK = "heard";

export class ReadAlong {
  /** The words so far, each {text, start, end, from, to}: seconds, and its place in the text in UTF-16 units. */
  words = [];
  text = "";

  #element;
  #marked = null;
  #character = 0; // the place up to which characters are counted, in characters and in units
  #unit = 0;

  constructor(element) {
    this.#element = element;
  }

  /** Show another text, of which nothing is spoken yet. */
  load(text) {
    this.words = [];
    this.text = text;
    this.#character = this.#unit = 0;
    this.#element.textContent = text;
    this.#element.scrollTop = 0;
    this.#mark(null);
  }

  /** Words as the server counts them: in characters. */
  append(words) {
    for (const { word, start, end, start_char, end_char } of words) {
      this.words.push({ text: word, start, end, from: this.#place(start_char), to: this.#place(end_char) });
    }
  }

  /** Mark the word that is heard at this moment, in seconds; between two words the last one. */
  move(seconds) {
    let low = 0;
    let high = this.words.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.words[middle].start <= seconds) low = middle + 1;
      else high = middle;
    }
    const word = this.words[low - 1] ?? null;
    const over = word !== null && word === this.words.at(-1) && seconds > word.end;
    this.#mark(over ? null : word);
  }

  #mark(word) {
    if (word === this.#marked || !globalThis.CSS?.highlights) return;
    this.#marked = word;
    CSS.highlights.delete(MARK);
    if (!word) return;
    const range = new Range();
    range.setStart(this.#element.firstChild, word.from);
    range.setEnd(this.#element.firstChild, word.to);
    CSS.highlights.set(MARK, new Highlight(range));
    const [line, box] = [range.getBoundingClientRect(), this.#element.getBoundingClientRect()];
    if (line.top < box.top || line.bottom > box.bottom) this.#element.scrollTop += line.top - box.top - box.height / 3;
  }

  #place(character) {
    for (; this.#character < character; this.#character++) this.#unit += this.text.codePointAt(this.#unit) > 0xffff ? 2 : 1;
    return this.#unit;
  }
}
