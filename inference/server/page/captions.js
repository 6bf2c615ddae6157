/** Captions of a spoken text, as SRT or WebVTT. */

const LINE = 42; // characters; a caption has two lines
const LONGEST = 7; // seconds
const GAP = 1; // seconds of a pause that ends a caption
const MARKUP = /<[^<>]*>|\[pause:[^\]]*\]|\]\([^)]*\)|[*_`~#[\]]/g;

/** `words` are {start, end, from, to}: seconds, and places in the text. */
export function captions(text, words, kind) {
  const point = kind === "vtt" ? "." : ",";
  const made = grouped(text, words).map(({ first, last, shown }, n) => {
    const lines = kind === "vtt" ? shown.replace(/&/g, "&amp;").replace(/</g, "&lt;") : shown;
    return `${kind === "vtt" ? "" : `${n + 1}\n`}${clock(first.start, point)} --> ${clock(last.end, point)}\n${lines}\n\n`;
  });
  return (kind === "vtt" ? "WEBVTT\n\n" : "") + made.join("");
}

function grouped(text, words) {
  const groups = [];
  for (const [n, word] of words.entries()) {
    const group = groups.at(-1);
    const behind = text.slice(word.to, words[n + 1]?.from);
    const shown = plain(text.slice(group?.first.from, word.to) + behind.match(/^[\p{P}]*/u)[0]);
    const fits = group && !group.ended && word.start - group.last.end <= GAP && word.end - group.first.start <= LONGEST;
    const ended = /[.!?…。！？]/.test(behind.replace(MARKUP, ""));
    if (fits && shown.length <= 2 * LINE - 8) Object.assign(group, { last: word, shown, ended });
    else groups.push({ first: word, last: word, shown: plain(text.slice(word.from, word.to) + behind.match(/^[\p{P}]*/u)[0]), ended });
  }
  return groups.map((group) => ({ ...group, shown: inTwoLines(group.shown) }));
}

const plain = (text) => text.replace(MARKUP, " ").replace(/\s+(?=[.,;:!?)]|$)/g, "").replace(/\s+/g, " ").trim();

function inTwoLines(shown) {
  if (shown.length <= LINE) return shown;
  const blanks = [...shown.matchAll(/ /g)].map((m) => m.index);
  const middle = blanks.sort((a, b) => Math.abs(a - shown.length / 2) - Math.abs(b - shown.length / 2))[0];
  return middle === undefined ? shown : `${shown.slice(0, middle)}\n${shown.slice(middle + 1)}`;
}

function clock(seconds, point) {
  const ms = Math.round(1000 * seconds);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(Math.floor(ms / 3_600_000))}:${two(Math.floor(ms / 60_000) % 60)}:${two(Math.floor(ms / 1000) % 60)}${point}${String(ms % 1000).padStart(3, "0")}`;
}
