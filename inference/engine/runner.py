"""Runs the model for several sequences at once: prefill prompts, decode one frame for every row.

Rows of the cache are kept contiguous: when one leaves, the last takes its place, so that attention reads a plain
slice. A prompt is computed piece by piece in a row of its own behind them, so that a long one does not keep running rows
waiting, and then moves in. The runner knows nothing of text, audio, queues or threads.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.engine.kv_cache import KEPT_SHARE, Past, PrefixCache
from inference.engine.matrix import Matrix, Weights, output_matrix
from inference.engine.request import SpeechRequest
from inference.engine.sampler import NONE, Controls, Noise, sample, seen_ids
from inference.engine.step import Step
from inference.model.checkpoint import Checkpoint
from inference.model.config import CODES_PER_GROUP
from inference.model.dual_ar import Span

WINDOW = 16
"""Frames the repetition penalty looks back."""
PREFILL = 256
"""Prompt columns run between two frames of the running rows."""


@dataclass(frozen=True)
class Head:
    """What may be sampled: token `ids` (n,) with the matrix `tokens` that scores them, and the matrix `scores` that scores the
    `codes` 0..m-1 of later codebooks.
    """

    ids: Tensor
    tokens: Matrix
    codes: int
    scores: Matrix


@dataclass(eq=False)
class Sequence:
    """One segment being generated, in one row of the cache.

    `prompt` (1 + codebooks, time) int64 begins with `fixed` columns that other prompts share, and may begin with the
    columns of a `past` computed before; at most `limit` frames follow it. `frames` are the generated columns, each
    (1 + codebooks,) int64 on the CPU; the last is not in the cache yet. `history` (1 + codebooks, WINDOW) holds
    what the penalty sees, in row 0 as indices into the head's ids. `finish` says why it ended: "stop" (end token),
    "length" (limit), "fault" (non-finite states).
    """

    request: SpeechRequest
    prompt: Tensor
    limit: int
    generator: torch.Generator
    fixed: int = 0
    past: Past | None = None
    row: int = -1
    length: int = 0
    frames: list[Tensor] = field(default_factory=list)
    history: Tensor = field(default_factory=lambda: torch.empty(0))
    finish: str | None = None

    def __post_init__(self) -> None:
        self.noise = Noise(self.generator, len(self.prompt) - 1)

    @property
    def reference(self) -> bool:
        return self.request.compat == "reference"


class Runner:
    """Owns the cache and the device. Not thread-safe: one thread calls it."""

    def __init__(self, checkpoint: Checkpoint, rows: int, weights: Weights = "native") -> None:
        self._lm, self._device, self._weights = checkpoint.lm, checkpoint.device, weights
        self._step = Step(checkpoint.lm, rows, weights)
        self._codebooks = checkpoint.config.num_codebooks
        self._im_end = checkpoint.tokenizer.im_end
        self._semantic_begin = checkpoint.tokenizer.semantic_begin
        self._cache = self._lm.new_cache(rows + 1, checkpoint.config.max_seq_len)
        self._staging = rows  # the row behind the others, where prompts are computed
        self.past_budget = self._cache.both.nbytes // KEPT_SHARE
        self._prefixes = PrefixCache(self.past_budget)
        self._speakable = self._speakable_head()
        self._whole: Head | None = None  # made when a reference run first asks for it: on CUDA it is a large copy
        self._controls: tuple[tuple[tuple[float, float, float], ...], Controls] | None = None
        self._staged: Sequence | None = None
        self.sequences: list[Sequence] = []

    @property
    def free(self) -> bool:
        """Whether a sequence can be staged: none is, and there is a row for it to move into."""
        return self._staged is None and len(self.sequences) < self._staging

    @property
    def positions(self) -> int:
        """Positions of the cache in use."""
        return sum(s.length for s in (*self.sequences, *([self._staged] if self._staged else ())))

    def stage(self, sequence: Sequence) -> None:
        """Take a sequence whose prompt is then computed by `prefill`. What its past or its voice's holds is copied."""
        self._staged, sequence.length = sequence, 0
        past = sequence.past or self._prefixes.get(sequence.prompt[:, : sequence.fixed])
        if past is not None:
            sequence.length = min(past.shared(sequence.prompt), sequence.prompt.shape[1] - 1)
            past.restore(self._cache, self._staging, sequence.length)
        sequence.past = None  # it is in the row now, and needs no memory twice

    def prefill(self) -> int:
        """Run the next piece of the staged prompt; after the last, draw the first frame and take a row. Columns run."""
        s = self._staged
        assert s is not None
        # A voice ends a piece, so that the arithmetic is the same whether it was kept or is computed.
        end = min(s.length + PREFILL, s.fixed if s.length < s.fixed else s.prompt.shape[1])
        columns = s.prompt[None, :, s.length : end].to(self._device)
        hidden = self._lm.slow(columns, self._cache, Span.prompt(self._staging, s.length, columns.shape[2], self._device))
        start, s.length = s.length, end
        if end == s.fixed and bool(hidden.isfinite().all()):
            self._prefixes.put(Past.of(self._cache, self._staging, s.prompt[:, :end]))
        if end == s.prompt.shape[1]:
            self._take_row(s, hidden[:, -1])
        return end - start

    def past_bytes(self, sequence: Sequence) -> int:
        """What `past` would take."""
        return self._cache.both[:, :, sequence.row, :, : sequence.length].nbytes

    def past(self, sequence: Sequence) -> Past:
        """What a running sequence's row holds, to go on from later."""
        frames = torch.stack(sequence.frames[:-1], dim=1) if len(sequence.frames) > 1 else sequence.prompt[:, :0]
        return Past.of(self._cache, sequence.row, torch.cat((sequence.prompt, frames), dim=1))

    def _take_row(self, sequence: Sequence, hidden: Tensor) -> None:
        self._staged, sequence.row = None, len(self.sequences)
        self.sequences.append(sequence)
        self._cache.move(self._staging, sequence.row, sequence.length)
        # The first frame is drawn without penalty and never enters the window; after it the window is full of zeros.
        sequence.history = torch.full((1 + self._codebooks, WINDOW), NONE)
        self._finish_frame(hidden, [sequence])
        sequence.history.zero_()
        if not sequence.reference:
            sequence.history[0] = NONE  # zero is a text token there, which is not among the speakable ones

    def step(self) -> None:
        """Generate one frame for every sequence; those that are finished must have been removed."""
        if not self.sequences:
            return
        columns = torch.stack([s.frames[-1] for s in self.sequences]).to(self._device)
        hidden = self._step.slow(columns, self._cache, [s.length for s in self.sequences])
        for s in self.sequences:
            s.length += 1
        self._finish_frame(hidden, self.sequences)

    def remove(self, sequence: Sequence) -> None:
        """Free a sequence's row, into whose place the last row moves, or give up its staging."""
        if self._staged is sequence:
            self._staged = None
        if sequence.row < 0:
            return
        row, last = sequence.row, self.sequences.pop()
        sequence.row = -1
        if sequence.finish == "fault":
            self._cache.clear(row)
        if last is not sequence:
            self.sequences[row] = last
            self._cache.move(last.row, row, last.length)
            if last.finish == "fault":
                self._cache.clear(last.row)  # its own removal will clear only where it stands then
            last.row = row

    def _speakable_head(self) -> Head:
        """Only the end token and the semantic tokens whose code the codec has: nothing else can be spoken."""
        codes = min(self._lm.config.codebook_size, CODES_PER_GROUP)
        semantic = torch.arange(self._semantic_begin, self._semantic_begin + codes)
        ids = torch.cat((torch.tensor([self._im_end]), semantic)).to(self._device)
        return self._head_of(ids, codes)

    def _head(self, reference: bool) -> Head:
        if not reference:
            return self._speakable
        if self._whole is None:
            ids = torch.arange(self._lm.config.vocab_size, device=self._device)
            self._whole = self._head_of(ids, self._lm.config.codebook_size)
        return self._whole

    def _head_of(self, ids: Tensor, codes: int) -> Head:
        tokens, scores = self._lm.output_weight[ids], self._lm.fast_output.weight[:codes]
        return Head(ids, output_matrix(self._weights, tokens), codes, output_matrix(self._weights, scores))

    def _finish_frame(self, hidden: Tensor, sequences: list[Sequence]) -> None:
        """From slow hidden states (batch, dim) draw a frame for each sequence. Normal and reference rows differ in what they may draw."""
        for reference in (False, True):
            group = [i for i, s in enumerate(sequences) if s.reference is reference]
            if group:
                whole = len(group) == len(sequences)
                self._draw(hidden if whole else hidden[group], [sequences[i] for i in group], self._head(reference))

    def _draw(self, hidden: Tensor, sequences: list[Sequence], head: Head) -> None:
        lm = self._lm
        controls = self._controls_of(sequences)
        seen_tokens, seen_codes = self._seen(sequences, head) if controls.penalty is not None else (None, [None] * self._codebooks)
        noise = torch.stack([s.noise.frame() for s in sequences]).to(self._device).unbind(1)
        logits = self._step.token_logits(hidden, head.tokens)
        if head is self._speakable and not all(s.frames for s in sequences):
            # The reference does not test its first frame for the end and goes on to speak; so do we.
            logits[[i for i, s in enumerate(sequences) if not s.frames], 0] = -torch.inf
        choices = sample(logits, seen_tokens, controls, noise[0], self._rest(sequences, 0))
        tokens = head.ids[choices]
        # A reference run may draw a token past the code tables; the reference fails there, we take the last code.
        codes = [(tokens - self._semantic_begin).clamp(0, lm.config.codebook_size - 1)]
        states = []
        for i in range(1, self._codebooks):
            if i == 1:
                x = self._step.fast_pair(lm.fast_project_in(hidden), codes[0])
            else:
                x = self._step.fast(codes[-1], i)
            states.append(x)
            codes.append(sample(self._step.code_logits(x, head.scores), seen_codes[i], controls, noise[i], self._rest(sequences, i)))
        health = torch.cat((hidden, *states), dim=1).float().sum(-1)
        self._record(sequences, torch.stack((tokens, *codes), dim=1).cpu(), choices.cpu(), health.isfinite().tolist())

    def _controls_of(self, sequences: list[Sequence]) -> Controls:
        sampling = tuple(s.request.sampling for s in sequences)
        if self._controls is None or self._controls[0] != sampling:  # else as in the last frame
            self._controls = sampling, Controls.of(sampling, self._device)
        return self._controls[1]

    def _seen(self, sequences: list[Sequence], head: Head) -> tuple[Tensor, Seq[Tensor]]:
        """What the penalty falls on: tokens (batch, ids) and, for each codebook, codes (batch, codes), bool."""
        history = torch.stack([s.history for s in sequences]).to(self._device)
        return seen_ids(history[:, 0], len(head.ids)), seen_ids(history[:, 1:], head.codes).unbind(1)

    def _record(self, sequences: list[Sequence], frames: Tensor, choices: Tensor, healthy: list[bool]) -> None:
        for s, frame, choice, well in zip(sequences, frames, choices, healthy, strict=True):
            first = not s.frames
            s.frames.append(frame)
            if s.request.sampling[2] != 1:
                s.history = torch.cat((s.history[:, 1:], torch.cat((choice[None], frame[1:]))[:, None]), dim=1)
            if not well:
                s.finish = "fault"
            elif int(frame[0]) == self._im_end and not first:
                s.finish = "stop"
            elif len(s.frames) >= s.limit:
                s.finish = "length"

    def _rest(self, sequences: list[Sequence], draw: int) -> Callable[[int], Tensor]:
        return lambda count: torch.stack([s.noise.rest(draw, count) for s in sequences]).to(self._device)
