"""FishSpeech 1.5's byte-level BPE tokenizer: a file of ranks (`tokenizer.tiktoken` or `tokenizer.json`), fixed special tokens."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Literal

import tiktoken

from inference.errors import CheckpointError
from inference.model.config import SEMANTIC_TOKENS

SPECIAL_TOKENS = (
    *("begin_of_text", "end_of_text", "pad", "im_start", "im_end"),
    *("placeholder:0", "placeholder:1", "placeholder:2", "placeholder:3"),
    *("text", "voice", "interleave"),
)

# The seventh alternative is a typo kept in the released model: it matches white space before a literal "?!".
# Each digit and each punctuation mark is a separate piece.
SPLIT_PATTERN = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"\p{P}",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(\?!\S)",
        r"\s+",
    )
)
MAX_FILE_BYTES = 64 << 20
"""The released tokenizer.json has 6 MB."""
_SLICE = 400_000  # characters encoded at once, as in the official code: longer runs overflow the regex engine's stack


class Tokenizer:
    """Converts text to token ids. Control tokens in a user's text count as plain text, unless `specials=True`."""

    def __init__(self, ranks: dict[bytes, int]) -> None:
        n = len(ranks)
        names = [*SPECIAL_TOKENS, *(f"semantic:{i}" for i in range(SEMANTIC_TOKENS))]
        self._specials = {f"<|{name}|>": n + i for i, name in enumerate(names)}
        self._bpe = tiktoken.Encoding("fishspeech", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=self._specials)
        self.n_vocab = n + len(names)
        self.im_end = self._specials["<|im_end|>"]
        self.semantic_begin = self._specials["<|semantic:0|>"]

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read `tokenizer.tiktoken` or `tokenizer.json`. Raises CheckpointError saying what is wrong with it."""
        return cls(read_ranks(path))

    def special(self, name: str) -> int:
        """Id of `<|name|>`, for instance `special("voice")`."""
        return self._specials[f"<|{name}|>"]

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """Token ids of `text`, which must be encodable as UTF-8. `specials=True` reads `<|...|>` as control tokens."""
        allowed: Literal["all"] | set[str] = "all" if specials else set()
        ids: list[int] = []
        for i in range(0, len(text), _SLICE):
            ids += self._bpe.encode(text[i : i + _SLICE], allowed_special=allowed, disallowed_special=())
        return ids

    def pieces(self, ids: list[int]) -> list[bytes]:
        """The bytes of each token; together they are the text's."""
        return self._bpe.decode_tokens_bytes(ids)

    def decode(self, ids: list[int]) -> str:
        return self._bpe.decode(ids)


def read_ranks(path: Path) -> dict[bytes, int]:
    """The rank of each token, which is its id, of a `.tiktoken` or `.json` file.

    Raises CheckpointError naming the first bad line or token, or the first byte that has no rank.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes; a tokenizer has at most {MAX_FILE_BYTES}")
        text = path.read_text(encoding="utf-8" if path.suffix == ".json" else "ascii")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be read as text: {e}") from None
    ranks = _ranks_of_json(path, text) if path.suffix == ".json" else _ranks_of_lines(path, text)
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise CheckpointError(f"{path}: ranks are not 0..{len(ranks) - 1}, each once; the file is incomplete or not a tokenizer")
    for byte in range(256):
        if bytes([byte]) not in ranks:
            raise CheckpointError(f"{path}: byte {byte:#04x} has no rank, so some text could not be spoken")
    return ranks


def _ranks_of_lines(path: Path, text: str) -> dict[bytes, int]:
    """One token per line, as base64 of its bytes, a space and its rank."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise CheckpointError(f"{path}, line {number}: expected base64 and a rank, found {line[:60]!r}") from None
    return ranks


def _ranks_of_json(path: Path, text: str) -> dict[bytes, int]:
    """The vocabulary of a Hugging Face tokenizer, without its added tokens, whose ids must be those of `Tokenizer`.

    Its merges follow from the ranks, and its own split pattern is not used.
    """
    try:
        raw = json.loads(text)
        vocabulary, added = dict(raw["model"]["vocab"]), {str(t["content"]): t["id"] for t in raw.get("added_tokens") or ()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path} is not a tokenizer with a byte-level BPE vocabulary") from None
    ranks: dict[bytes, int] = {}
    for token, rank in vocabulary.items():
        if token in added:
            continue
        try:
            ranks[bytes(_BYTE_OF_CHARACTER[character] for character in token)] = int(rank)
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{path}: the token {token[:60]!r} is not written as byte-level BPE writes bytes") from None
    names = [*SPECIAL_TOKENS, *(f"semantic:{i}" for i in range(SEMANTIC_TOKENS))]
    for index, name in enumerate(names, len(ranks)):
        if added.get(f"<|{name}|>", index) != index:
            raise CheckpointError(
                f"{path}: <|{name}|> is {str(added[f'<|{name}|>'])[:20]}; after {len(ranks)} tokens FishSpeech 1.5 has it at {index}"
            )
    return ranks


def _byte_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2).

    Printable characters of Latin-1 stand for themselves; the other bytes have the characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_characters()
