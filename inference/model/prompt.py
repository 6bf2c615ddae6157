"""Builds prompts: columns of a token id over `num_codebooks` codes, (1 + codebooks, time) int64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inference.model.tokenizer import Tokenizer

SYSTEM = "Speak out the provided text."
REFERENCE_RESERVE = 1024
"""Columns that the reference implementation reserves for the speech to generate."""


class PromptBuilder:
    """Builds prompts for one model. `specials=True` lets control tokens in text through, as the reference implementation does."""

    def __init__(self, tokenizer: Tokenizer, num_codebooks: int, *, specials: bool = False) -> None:
        self._tokenizer, self._codebooks, self._specials = tokenizer, num_codebooks, specials
        self._end = tokenizer.special("im_end")
        self._open = {role: [tokenizer.special("im_start"), *tokenizer.encode(f"{role}\n")] for role in ("system", "user", "assistant")}
        self._behind = [self._end, *self._open["assistant"], tokenizer.special("voice")]

    def system(self) -> Tensor:
        """The system message, which opens every conversation."""
        return self._columns([*self._open["system"], *self._tokenizer.encode(SYSTEM), self._end])

    def reference(self, text: str, codes: np.ndarray) -> Tensor:
        """A user message with what a clip says, and the assistant speaking it: `codes` (codebooks or more, frames) int."""
        spoken = torch.from_numpy(np.ascontiguousarray(codes[: self._codebooks], dtype=np.int64))
        vq = torch.cat((spoken[:1] + self._tokenizer.semantic_begin, spoken))
        return torch.cat((self.segment(text), vq, self._columns([self._end])), dim=1)

    def segment(self, text: str) -> Tensor:
        """A user message with the text to speak, and the opening of the assistant's answer."""
        return self.segments([text])[0]

    def segments(self, texts: Sequence[str]) -> list[Tensor]:
        """As `segment`, for many texts at once, in a quarter of the time: each is a slice of one tensor."""
        opening, specials = self._open["user"], self._specials
        ids = [[*opening, *self._tokenizer.encode(text, specials=specials), *self._behind] for text in texts]
        return list(self._columns([i for one in ids for i in one]).split([len(one) for one in ids], dim=1))

    def text_of(self, segment: Tensor) -> range:
        """Which columns of a `segment` hold its text."""
        return range(len(self._open["user"]), segment.shape[1] - len(self._behind))

    def _columns(self, ids: list[int]) -> Tensor:
        columns = torch.zeros(1 + self._codebooks, len(ids), dtype=torch.int64)
        columns[0] = torch.tensor(ids, dtype=torch.int64)
        return columns


def context(fixed: Tensor, turns: Sequence[Tensor], room: int) -> Tensor:
    """The prompt for the newest segment of a long text.

    `fixed` is the system message and references; `turns` alternate segment, generation, segment, ... and end with
    the newest segment. Whole older turns (segment and generation) are left out, oldest first, until the prompt fits
    in `room` columns. `fixed` and the newest segment are always kept.
    """
    kept = [turns[-1]]
    used = fixed.shape[1] + turns[-1].shape[1]
    for i in range(len(turns) - 3, -1, -2):
        pair = turns[i : i + 2]
        used += sum(t.shape[1] for t in pair)
        if used > room:
            break
        kept[:0] = pair
    return torch.cat((fixed, *kept), dim=1)


def reference_context(fixed: Tensor, turns: Sequence[Tensor], max_length: int) -> Tensor:
    """The prompt that the reference implementation builds, oddities included.

    It counts a turn's length twice at the limit, always keeps the first pair, and repeats the first pair when the very newest
    items reach the limit.
    """
    limit = max_length - REFERENCE_RESERVE - fixed.shape[1]
    count, i = 0, len(turns) - 1
    for i, turn in enumerate(reversed(turns)):  # noqa: B007 - the code below uses the last i
        count += turn.shape[1]
        if count + turn.shape[1] > limit:
            break
    if i != 0 and i % 2 == 0:
        i -= 1
    kept = [*turns[:2], *turns[-i:]] if i < len(turns) - 2 else list(turns)
    return torch.cat((fixed, *kept), dim=1)
