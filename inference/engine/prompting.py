"""Builds the prompts of a request: the voice's columns, the text's segments, and what of both fits in the context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from inference.engine.reading import Reader, read
from inference.engine.request import SpeechRequest
from inference.errors import GenerationError, RequestError
from inference.model.checkpoint import Checkpoint
from inference.model.prompt import PromptBuilder, context, reference_context
from inference.text.clean import clean
from inference.text.segments import pause_after
from inference.text.words import SpokenLine
from inference.voices.voice import Voice

DEFAULT_NEW_TOKENS = 1024
REFERENCE_MAX_LENGTH = 4096


class Prompting:
    """The prompts of one checkpoint. Columns are (1 + codebooks, time) int64."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._config, self._defaults, self._reader = checkpoint.config, checkpoint.defaults, Reader()
        self._tokenizer = tokenizer = checkpoint.tokenizer
        codebooks = checkpoint.config.num_codebooks
        self._builders = {compat: PromptBuilder(tokenizer, codebooks, specials=compat == "reference") for compat in (None, "reference")}

    def builder(self, request: SpeechRequest) -> PromptBuilder:
        """The builder of a request's columns: `compat="reference"` obeys control tokens in the text."""
        return self._builders[request.compat]

    def segments(self, request: SpeechRequest, *, aside: bool) -> tuple[list[Tensor], list[float], list[SpokenLine], list[Voice]]:
        """The columns of each segment, the seconds of silence before each and after the last, each one's words if asked for, and its voice.

        `aside`: somebody is being spoken to, so a long text is read in another process.
        """
        lines, last, spoken = (self._reader.read if aside else read)(request, self._defaults)
        columns = self.builder(request).segments([line.text for line in lines])
        return columns, [*(line.silence for line in lines), last], spoken, [request.voice_named(line.voice) for line in lines]

    def close(self) -> None:
        """End the process that reads long texts."""
        self._reader.close()

    def text_columns(self, request: SpeechRequest, segment: Tensor) -> tuple[range, list[bytes]]:
        """Which columns of a segment hold its text, and the bytes of each of these tokens."""
        text = self.builder(request).text_of(segment)
        return text, self._tokenizer.pieces(segment[0, text.start : text.stop].tolist())

    def gap(self, request: SpeechRequest) -> float:
        """Seconds of natural pause after a request's text when more text follows."""
        return 0.0 if request.compat == "reference" else pause_after(request.text, self._defaults.segmentation)

    def fixed(self, request: SpeechRequest, voices: Iterable[Voice], known: Mapping[Voice, Tensor] | None = None) -> dict[Voice, Tensor]:
        """The columns that the segments of each voice begin with: the system message and the voice's references; `known` ones are kept.

        Raises RequestError for unusable codes.
        """
        builder, found = self.builder(request), dict(known or {})
        for voice in voices:
            if voice not in found:
                references = [builder.reference(clean(r.text), self._checked(np.asarray(r.codes))) for r in voice.references]
                found[voice] = torch.cat([builder.system(), *references], dim=1)
        return found

    def _checked(self, codes: np.ndarray) -> np.ndarray:
        config = self._config
        codes = codes[0] if codes.ndim == 3 and codes.shape[0] == 1 else codes
        if codes.ndim != 2 or codes.shape[0] < config.num_codebooks or not np.issubdtype(codes.dtype, np.integer):
            raise RequestError(
                f"the voice's codes are {codes.dtype} of shape {codes.shape}; this model needs integers of ({config.num_codebooks}, frames)",
                "voice",
            )
        if codes.size and not 0 <= codes.min() <= codes.max() < config.codebook_size:
            raise RequestError(
                f"the voice's codes run from {codes.min()} to {codes.max()}; this model has 0 to {config.codebook_size - 1}", "voice"
            )
        return codes

    def check_room(self, request: SpeechRequest, fixed: Sequence[Tensor], segments: Sequence[Tensor]) -> None:
        """Raise RequestError when a voice, one of its segments and its speech exceed the model's context."""
        size = self._config.max_seq_len
        voice, text = max(((f.shape[1], s.shape[1]) for f, s in zip(fixed, segments, strict=True)), key=sum)
        new = 1 if request.compat == "reference" else self._reserve(request)
        if voice + text + new > size:
            raise RequestError(
                f"voice ({voice} positions), text segment ({text}) and speech to come ({new}) do not fit in the model's {size}; "
                "use a shorter reference, a smaller chunk_length or a smaller max_new_tokens",
                "max_new_tokens" if request.max_new_tokens else "voice" if request.voice.references else "chunk_length",
            )

    def prompt(self, request: SpeechRequest, fixed: Tensor, turns: Sequence[Tensor]) -> tuple[Tensor, int]:
        """The prompt of the newest segment, and the most frames that may follow it. `turns` are as `context` takes them.

        Raises GenerationError when no room for speech is left.
        """
        size = self._config.max_seq_len
        if request.compat == "reference":
            prompt = reference_context(fixed, turns, min(REFERENCE_MAX_LENGTH, size))
        else:
            prompt = context(fixed, turns, self.context_room(request, fixed, turns[-1]))
        room = size - prompt.shape[1]
        if room < 1:
            raise GenerationError(f"the context of {prompt.shape[1]} positions leaves no room for speech in the model's {size}")
        asked = DEFAULT_NEW_TOKENS if request.max_new_tokens is None else request.max_new_tokens or room
        return prompt, min(asked, room)

    def context_room(self, request: SpeechRequest, fixed: Tensor, newest: Tensor) -> int:
        """Columns that `fixed`, earlier segments and the newest one may take together."""
        room, history = self._config.max_seq_len - self._reserve(request), self._defaults.history
        return room if history is None else min(room, fixed.shape[1] + newest.shape[1] + history)

    def _reserve(self, request: SpeechRequest) -> int:
        """Positions that context must leave free for the speech of one segment."""
        return request.max_new_tokens or min(DEFAULT_NEW_TOKENS, self._config.max_seq_len // 2)
