"""One sentence per segment, for models that lose track of longer text. Lengths are in UTF-8 bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import regex

from inference.text.clean import clean
from inference.text.sentences import sentences

MIN_LETTERS_ALONE = 4
"""A shorter sentence, such as "Oh." or "Hmm.", is spoken together with the next one: a small model misreads it on its own."""
Chunk = Literal["bytes", "sentence"]


@dataclass(frozen=True)
class Segmentation:
    """How much text one segment holds, and the seconds of silence between two segments.

    With `chunk="bytes"` a segment holds as many sentences as fit in the request's `chunk_length`; with "sentence" it holds one.
    `max_segment_bytes` limits `chunk_length`. The pauses follow a segment that ends with a clause, a sentence or a paragraph.
    """

    chunk: Chunk = "bytes"
    max_segment_bytes: int | None = None
    clause_pause: float = 0.0
    sentence_pause: float = 0.0
    paragraph_pause: float = 0.0


AS_MUCH_AS_FITS = Segmentation()
"""FishSpeech 1.5's: as many sentences as fit, and the model makes the pauses."""
_CLAUSE_END = regex.compile(r"""[,;:–—，、；：،؛]["'”’)\]]*\Z""")
_SENTENCE_END = regex.compile(r"""[\p{Sentence_Break=STerm}\p{Sentence_Break=ATerm}…\u037e][\p{Pe}\p{Pf}"']*\Z""")
_CLAUSES = regex.compile(
    r"(?>.*?(?:[,;:–—.!?…](?=[\p{Sentence_Break=Close}]*\s)|[，、；：،؛՝፣፤၊])[\p{Sentence_Break=Close}]*+\s*+)|.+", regex.DOTALL
)
_BEFORE_CONJUNCTIONS = regex.compile(r"(?<=\s)(?=(?:and|or|but|because|which|who|when|where|while|until|if|so|than|as|that) )")
_WORDS = regex.compile(r"\S*+\s++|\S++")


def segments(text: str, length: int, segmentation: Segmentation) -> list[tuple[str, float]]:
    """Each sentence of `text`, and the seconds of silence after it.

    A sentence of more than `length` bytes is cut into parts of about equal length: after clauses where it can be, else before
    conjunctions, else between words, else between characters. Sentences without a letter or a digit are left out.
    """
    parts = (part for sentence in join_short(sentences(clean(text))) for part in _parts(sentence, length))
    return [(part.strip(), pause_after(part, segmentation)) for part in parts if any(map(str.isalnum, part))]


def pause_after(text: str, segmentation: Segmentation) -> float:
    """The seconds of silence after `text` when more text follows; 0 after a word in the middle of a clause."""
    written, lines = text.rstrip(), _line_ends(text)
    if lines > 1:
        return segmentation.paragraph_pause
    if lines or ends_sentence(written):
        return segmentation.sentence_pause
    return segmentation.clause_pause if _CLAUSE_END.search(written) else 0.0


def ends_sentence(text: str) -> bool:
    """Whether a text ends as a sentence does, before any white space."""
    return _SENTENCE_END.search(text.rstrip()) is not None


def _line_ends(text: str) -> int:
    """The line breaks in the white space that ends a text."""
    return text[len(text.rstrip()) :].count("\n")


def join_short(found: list[str]) -> list[str]:
    """Sentences, with very short ones joined to the next one of their paragraph.

    The last item still waits for a next sentence, or is "".
    """
    joined = [""]
    for sentence in found:
        joined[-1] += sentence
        if sum(map(str.isalnum, joined[-1])) >= MIN_LETTERS_ALONE or _line_ends(sentence) > 1:
            joined.append("")
    return joined


def _parts(sentence: str, length: int) -> list[str]:
    pieces = [sentence]
    cuts: tuple[Callable[[str], list[str]], ...] = (_CLAUSES.findall, _BEFORE_CONJUNCTIONS.split, _WORDS.findall, _characters)
    for cut in cuts:
        pieces = [part for piece in pieces for part in (cut(piece) if _size(piece.rstrip()) > length else [piece])]
    fewest = len(_packed(pieces, length))
    size = sum(map(_size, pieces)) // fewest
    while len(parts := _packed(pieces, size)) > fewest:
        size += 1
    return parts


def _packed(pieces: list[str], length: int) -> list[str]:
    """Join neighbouring pieces while the result has at most `length` bytes, not counting white space at its end."""
    packed, size = [[""]], 0
    for piece in pieces:
        if size and size + _size(piece.rstrip()) > length:
            packed.append([])
            size = 0
        packed[-1].append(piece)
        size += _size(piece)
    return ["".join(p) for p in packed]


def _characters(text: str) -> list[str]:
    return regex.findall(r"\X", text)


def _size(text: str) -> int:
    return len(text.encode())
