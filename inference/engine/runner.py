"""Runs the model for several sequences at once: prefill a prompt into a row, decode one frame for every row.

Rows of the cache are kept contiguous: when one leaves, the last takes its place, so that attention reads a plain
slice. The runner knows nothing of text, audio, queues or threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.engine.request import SpeechRequest
from inference.engine.sampler import NONE, Controls, sample
from inference.model.checkpoint import Checkpoint
from inference.model.config import CODES_PER_GROUP
from inference.model.dual_ar import Span

WINDOW = 16
"""Frames the repetition penalty looks back."""
PREFILL = 512
"""Prompt columns run at once; bounds the memory of attention scores."""


@dataclass(frozen=True)
class Head:
    """Token ids that may be sampled, and the rows of the output matrix that score them.

    `ids` (n,) ascending as in the vocabulary; `weight` (n, dim), None for the whole vocabulary.
    """

    ids: Tensor
    weight: Tensor | None
    codes: int
    """Codes below this may be sampled for codebooks after the first."""


@dataclass(eq=False)
class Sequence:
    """One segment being generated, in one row of the cache.

    `prompt` (1 + codebooks, time) int64; at most `limit` frames follow it. `frames` are the generated columns, each
    (1 + codebooks,) int64 on the CPU; the last is not in the cache yet. `history` (1 + codebooks, WINDOW) holds
    what the penalty sees, in row 0 as indices into the head's ids. `finish` says why it ended: "stop" (end token),
    "length" (limit), "fault" (non-finite logits).
    """

    request: SpeechRequest
    prompt: Tensor
    limit: int
    generator: torch.Generator
    row: int = -1
    length: int = 0
    frames: list[Tensor] = field(default_factory=list)
    history: Tensor = field(default_factory=lambda: torch.empty(0))
    finish: str | None = None

    @property
    def reference(self) -> bool:
        return self.request.compat == "reference"


class Runner:
    """Owns the cache and the device. Not thread-safe: one thread calls it."""

    def __init__(self, checkpoint: Checkpoint, rows: int) -> None:
        self._lm, self._device = checkpoint.lm, checkpoint.device
        self._codebooks = checkpoint.config.num_codebooks
        self._im_end = checkpoint.tokenizer.im_end
        self._semantic_begin = checkpoint.tokenizer.semantic_begin
        self._cache = self._lm.new_cache(rows, checkpoint.config.max_seq_len)
        self._fast_cache = self._lm.new_fast_cache(rows)
        self._heads = {False: self._speakable_head(), True: self._whole_head()}
        self.sequences: list[Sequence] = []

    @property
    def free_rows(self) -> int:
        return self._cache.rows - len(self.sequences)

    def add(self, sequence: Sequence) -> None:
        """Run a sequence's prompt in a free row and generate its first frame."""
        sequence.row = len(self.sequences)
        self.sequences.append(sequence)
        for start in range(0, sequence.prompt.shape[1], PREFILL):
            columns = sequence.prompt[None, :, start : start + PREFILL].to(self._device)
            span = Span.prompt(sequence.row, start, columns.shape[2], self._device)
            hidden = self._lm.slow(columns, self._cache, span)
        sequence.length = sequence.prompt.shape[1]
        # The first frame is drawn without penalty and never enters the window; after it the window is full of zeros.
        sequence.history = torch.full((1 + self._codebooks, WINDOW), NONE)
        self._finish_frame(hidden[:, -1], [sequence])
        sequence.history.zero_()
        if not sequence.reference:
            sequence.history[0] = NONE  # zero is a text token there, which is not among the speakable ones

    def step(self) -> None:
        """Generate one frame for every sequence that is not finished."""
        if not self.sequences:
            return
        columns = torch.stack([s.frames[-1] for s in self.sequences])[:, :, None].to(self._device)
        span = Span.step([s.length for s in self.sequences], self._device)
        hidden = self._lm.slow(columns, self._cache, span)[:, 0]
        for s in self.sequences:
            s.length += 1
        self._finish_frame(hidden, self.sequences)

    def remove(self, sequence: Sequence) -> None:
        """Free a sequence's row; the last row moves into its place."""
        last = self.sequences[-1]
        if sequence.finish == "fault":
            self._cache.clear(sequence.row)
        if last is not sequence:
            self._cache.move(last.row, sequence.row, last.length)
            last.row = sequence.row
            self.sequences[sequence.row] = last
        self.sequences.pop()
        sequence.row = -1

    def _speakable_head(self) -> Head:
        """Only the end token and the semantic tokens whose code the codec has: nothing else can be spoken."""
        codes = min(self._lm.config.codebook_size, CODES_PER_GROUP)
        semantic = torch.arange(self._semantic_begin, self._semantic_begin + codes)
        ids = torch.cat((torch.tensor([self._im_end]), semantic)).to(self._device)
        return Head(ids, self._lm.output_weight[ids].contiguous(), codes)

    def _whole_head(self) -> Head:
        return Head(torch.arange(self._lm.config.vocab_size, device=self._device), None, self._lm.config.codebook_size)

    def _finish_frame(self, hidden: Tensor, sequences: list[Sequence]) -> None:
        """From slow hidden states (batch, dim) draw a token and its codes for each sequence."""
        controls = _controls(sequences, self._device)
        history = torch.stack([s.history for s in sequences]).to(self._device)
        choices = torch.empty(len(sequences), dtype=torch.int64, device=self._device)
        tokens, healthy = torch.empty_like(choices), torch.empty_like(choices, dtype=torch.bool)
        for reference, head in self._heads.items():
            group = [i for i, s in enumerate(sequences) if s.reference is reference]
            if not group:
                continue
            logits = self._lm.token_logits(hidden[group], head.weight)
            healthy[group] = logits.isfinite().all(-1)
            logits = logits.nan_to_num(nan=0.0)
            if not reference:
                # The reference does not test its first frame for the end and goes on to speak; so do we.
                logits[[k for k, i in enumerate(group) if not sequences[i].frames], 0] = -torch.inf
            noise = self._noise([sequences[i] for i in group], len(head.ids))
            choices[group] = sample(logits, history[group, 0], controls.rows(group), noise)
            tokens[group] = head.ids[choices[group]]
        codes, sound = self._codes(hidden, tokens, sequences, history, controls)
        self._record(sequences, tokens.cpu(), choices.cpu(), codes.cpu(), (healthy & sound).cpu())

    def _codes(
        self, hidden: Tensor, tokens: Tensor, sequences: list[Sequence], history: Tensor, controls: Controls
    ) -> tuple[Tensor, Tensor]:
        """The frame's codes (batch, codebooks) int64, and whether every logit on the way was finite (batch,)."""
        lm = self._lm
        size = lm.config.codebook_size
        limits = torch.tensor([self._heads[s.reference].codes for s in sequences], device=self._device)
        banned = torch.arange(size, device=self._device) >= limits[:, None]
        sound = torch.ones_like(tokens, dtype=torch.bool)
        # A reference run may draw a token past the code tables; the reference fails there, we take the last code.
        codes = [(tokens - self._semantic_begin).clamp(0, size - 1)]
        lm.fast(lm.fast_project_in(hidden), self._fast_cache, 0)
        for i in range(1, self._codebooks):
            x = lm.fast(lm.fast_embeddings(codes[-1]), self._fast_cache, i)
            logits = lm.code_logits(x)
            sound &= logits.isfinite().all(-1)
            logits = logits.nan_to_num(nan=0.0).masked_fill(banned, -torch.inf)
            codes.append(sample(logits, history[:, i + 1], controls, self._noise(sequences, size)))
        return torch.stack(codes, dim=1), sound

    def _record(self, sequences: list[Sequence], tokens: Tensor, choices: Tensor, codes: Tensor, healthy: Tensor) -> None:
        for i, s in enumerate(sequences):
            frame = torch.cat((tokens[i : i + 1], codes[i]))
            first = not s.frames
            s.frames.append(frame)
            s.history = torch.cat((s.history[:, 1:], torch.cat((choices[i : i + 1], codes[i]))[:, None]), dim=1)
            if not healthy[i]:
                s.finish = "fault"
            elif int(tokens[i]) == self._im_end and not first:
                s.finish = "stop"
            elif len(s.frames) >= s.limit:
                s.finish = "length"

    def _noise(self, sequences: list[Sequence], width: int) -> Tensor:
        """Exp(1) noise (batch, width) FP32, each row from its sequence's generator alone."""
        return torch.stack([torch.empty(width).exponential_(generator=s.generator) for s in sequences]).to(self._device)


def _controls(sequences: list[Sequence], device: torch.device) -> Controls:
    rows = [(s.request.temperature, s.request.top_p, s.request.repetition_penalty) for s in sequences]
    temperature, top_p, penalty = torch.tensor(rows, device=device).unbind(1)
    return Controls(temperature, top_p, penalty)
