"""Runs the model for several sequences at once: prefill prompts, decode one frame for every slot.

The runner keeps the used slots of the cache contiguous: when a sequence leaves, the last slot moves into its place, so that
attention reads a plain slice. It computes a prompt piece by piece in a separate slot behind the others, so that a long prompt
does not keep running slots waiting; then the prompt moves into a slot. Where prompts have graphs, those of several sequences are computed
at once, in free slots. The runner knows nothing of text, audio, queues or threads.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from inference.engine.decode_step import Head, Step
from inference.engine.device import FastLayerKernels, allowed_fast_layers
from inference.engine.graphs import PendingFrames, capture_frames
from inference.engine.kv_cache import KEPT_SHARE, KVPrefix, PrefixCache
from inference.engine.prefill import PREFILL, Piece, capture_prefill
from inference.engine.request import FinishReason, SpeechRequest
from inference.engine.sampler import NONE, TOP_RANKS, Controls, gumbel, sample, seen_ids
from inference.engine.weight_layouts import Weights
from inference.model.checkpoint import Checkpoint
from inference.model.config import CODES_PER_GROUP, AlignmentHead
from inference.model.dual_ar import Span

WINDOW = 16
"""Number of past frames that the repetition penalty considers."""
NOISE_FRAMES = 32
"""Frames whose noise is generated at once."""


@dataclass(eq=False)
class Sequence:
    """One segment being generated, in one slot of the cache.

    `prompt` (1 + codebooks, time) int64 begins with `fixed` columns that other prompts share, and may begin with the
    columns of a `kv_prefix` computed earlier; at most `limit` frames follow it. `frames` are the generated columns, each
    (1 + codebooks,) int64; the last is not in the cache yet. They are NumPy's, which takes a row of a matrix in a tenth of the time.
    `undecodable` says that one of them has a code that no codec can decode. `noise` is the number of a block of frames and that block's
    noise (frames, codebooks, TOP_RANKS), a function of `seed` (int64). `finish` says why the sequence ended: STOP (end token),
    LENGTH (limit), ERROR (non-finite states).
    """

    request: SpeechRequest
    prompt: Tensor
    limit: int
    seed: int
    fixed: int = 0
    kv_prefix: KVPrefix | None = None
    slot: int = -1
    length: int = 0
    frames: list[np.ndarray] = field(default_factory=list)
    undecodable: bool = False
    noise: tuple[int, Tensor] = field(default_factory=lambda: (-1, torch.empty(0)))
    finish: FinishReason | None = None

    @property
    def reference(self) -> bool:
        return self.request.compat == "reference"

    @property
    def column(self) -> Tensor:
        """The column that the next frame follows."""
        return torch.from_numpy(self.frames[-1]) if self.frames else self.prompt[:, -1]


class Runner:
    """Owns the cache and the device. One class, since all its methods move the same slots. Not thread-safe: one thread calls it."""

    def __init__(self, checkpoint: Checkpoint, slots: int, weights: Weights = "native", fast_layers: FastLayerKernels = "separate") -> None:
        allowed_fast_layers(fast_layers, weights, checkpoint.device)
        self._lm, self._device = checkpoint.lm, checkpoint.device
        self._step = Step(checkpoint.lm, slots, weights)
        self._codebooks = checkpoint.config.num_codebooks
        self._im_end = checkpoint.tokenizer.im_end
        self._semantic_begin = checkpoint.tokenizer.semantic_begin
        self._cache = self._lm.new_cache(slots + 1, checkpoint.config.max_seq_len)
        self._staging = slots  # the slot behind the others, where prompts are computed
        self.kv_prefix_budget = self._cache.both.nbytes // KEPT_SHARE
        self._prefixes = PrefixCache(self.kv_prefix_budget)
        self._speakable = self._speakable_head()
        captured = capture_frames(self._step, self._speakable, self._cache, slots, WINDOW, fast_layers)
        self._graphs, self.how = captured.graphs, captured.how
        together = capture_prefill(self._step, self._cache, self._graphs is not None)
        self._prefill_graphs, self.prefill_how = together.graphs, together.how
        self._flight: tuple[list[Sequence], PendingFrames] | None = None  # the sequences whose frames are pending, and the frames
        self._placed = False  # whether the graphs hold the state of each running sequence
        self._draws = torch.arange(self._codebooks)
        self._whole: Head | None = None  # made for the first reference run: on CUDA it is a large copy
        self._controls: tuple[tuple[tuple[float, float, float], ...], Controls] | None = None
        self._staged: dict[Sequence, int] = {}  # the oldest first, each with the row of the cache where its prompt is computed
        self.sequences: list[Sequence] = []

    @property
    def can_stage(self) -> bool:
        """Whether the next `prefill` would begin one more sequence. A voice is computed alone: others may need it."""
        if self._prefill_graphs is None:
            return not self._staged
        return not any(s.length < s.fixed for s in self._staged) and sum(self._left(s) for s in self._staged) < PREFILL

    @property
    def free(self) -> bool:
        """Whether a sequence can be staged, and there is a slot for it to move into."""
        return self.can_stage and len(self.sequences) + len(self._staged) < self._staging

    @property
    def positions(self) -> int:
        """Positions of the cache in use."""
        return sum(s.length for s in (*self.sequences, *self._staged))

    def stage(self, sequence: Sequence) -> None:
        """Stage a sequence; `prefill` then computes its prompt. Columns that its own KV prefix or its voice's holds are copied instead."""
        row = self._staged[sequence] = self._staging if self._prefill_graphs is None else self._free_row()
        sequence.length = 0
        prefix = sequence.kv_prefix or self._prefixes.get(sequence.prompt[:, : sequence.fixed])
        if prefix is not None:
            sequence.length = min(prefix.shared(sequence.prompt), sequence.prompt.shape[1] - 1)
            prefix.restore(self._cache, row, sequence.length)
        sequence.kv_prefix = None  # the slot holds a copy now, so free this one

    def _free_row(self) -> int:
        """The first row of the cache that no sequence uses. There is one, as the cache has a row more than there are slots."""
        used = {*range(len(self.sequences)), *self._staged.values()}
        return next(row for row in range(self._cache.rows) if row not in used)

    def _left(self, s: Sequence) -> int:
        """Columns of a staged prompt that `prefill` has still to compute. With graphs, the next step runs the last one."""
        return s.prompt.shape[1] - (self._graphs is not None) - s.length

    def prefill(self) -> int:
        """Run the next pieces of staged prompts; after its last piece, a sequence takes a slot. Returns the number of columns run, also those
        that a graph has beyond the pieces.

        Without graphs, the last piece also draws the first frame.
        """
        if self._prefill_graphs is None:
            return self._prefill_first()
        pieces, room = dict[Sequence, Piece](), PREFILL
        for s, row in self._staged.items():
            if count := min(self._piece(s), room):
                pieces[s] = Piece(s.prompt[:, s.length : s.length + count], row, s.length)
                room -= pieces[s].padded
        states = self._prefill_graphs.launch([*pieces.values()]) if pieces else []
        for (s, piece), hidden in zip(pieces.items(), states, strict=True):
            s.length += piece.columns.shape[1]
            self._keep_voice(s, hidden)
        for s in [s for s in self._staged if not self._left(s)]:
            self._take_slot(s, None)
        return self._prefill_graphs.size(pieces.values()) if pieces else 0

    def _prefill_first(self) -> int:
        s, row = next(iter(self._staged.items()))
        start, hidden = s.length, None
        if self._left(s):
            s.length += min(self._piece(s), PREFILL)
            columns = self._sent(s.prompt[None, :, start : s.length])
            if self._graphs is None:
                hidden = self._lm.slow(columns, self._cache, Span.prompt(row, start, columns.shape[2], self._device))
            else:
                hidden = self._step.prompt(columns, self._cache, row, start)
            self._keep_voice(s, hidden)
        if not self._left(s):
            self._take_slot(s, hidden)
        return s.length - start

    def _piece(self, s: Sequence) -> int:
        """Columns of a staged prompt's next piece. It ends where the voice ends, so that the arithmetic is the same for a cached voice and a
        computed one.
        """
        return s.fixed - s.length if s.length < s.fixed else self._left(s)

    def _keep_voice(self, s: Sequence, hidden: Tensor) -> None:
        """After the last piece of a voice, keep its KV prefix, unless the piece's states are no numbers."""
        if s.length == s.fixed and bool(hidden.isfinite().all()):
            self._prefixes.put(KVPrefix.of(self._cache, self._staged[s], s.prompt[:, : s.length]))

    def text_attention(self, sequence: Sequence, text: range, frames: range, heads: Seq[AlignmentHead]) -> Tensor:
        """What `heads` looked at in the prompt's columns `text` while the model chose `frames`: (heads, frames, columns) FP32 on the CPU.

        Nothing that later frames depend on changes.
        """
        columns, found = [sequence.prompt[:, -1].numpy(), *sequence.frames], []
        for first in range(frames.start, frames.stop, PREFILL):  # in pieces: each holds the weights of all heads to all columns
            before = self._sent(torch.from_numpy(np.stack(columns[first : min(first + PREFILL, frames.stop)], axis=1)))
            start = sequence.prompt.shape[1] - 1 + first
            found.append(self._step.text_attention(before, self._cache, sequence.slot, start, text, heads).cpu())
        return torch.cat(found, dim=1)

    def kv_prefix_bytes(self, sequence: Sequence) -> int:
        """The bytes that `kv_prefix` would take."""
        return self._cache.both[:, :, sequence.slot, :, : sequence.length].nbytes

    def kv_prefix(self, sequence: Sequence) -> KVPrefix:
        """A copy of a running sequence's slot, from which it can continue later."""
        frames = torch.from_numpy(np.stack(sequence.frames[:-1], axis=1)) if len(sequence.frames) > 1 else sequence.prompt[:, :0]
        return KVPrefix.of(self._cache, sequence.slot, torch.cat((sequence.prompt, frames), dim=1))

    def pause(self, sequence: Sequence) -> bool:
        """Take a sequence out of its slot. It keeps its keys and values, and `resume` continues with the same frames.

        Returns False, and leaves it there, when it has none yet or has finished meanwhile.
        """
        self._collect_pending()
        if sequence.finish is not None or not sequence.frames:
            return False
        sequence.kv_prefix = self.kv_prefix(sequence)
        self._forget(sequence.slot, sequence.length)
        self.remove(sequence)
        return True

    def resume(self, sequence: Sequence) -> None:
        """Put a paused sequence into a free slot."""
        prefix, sequence.kv_prefix = sequence.kv_prefix, None
        assert prefix is not None
        sequence.slot, sequence.length = self._next_slot(), prefix.columns.shape[1]
        self.sequences.append(sequence)
        prefix.restore(self._cache, sequence.slot, sequence.length)
        if self._placed:
            self._place(sequence)

    def _next_slot(self) -> int:
        """The row behind the running sequences. A prompt that is computed there moves elsewhere."""
        slot = len(self.sequences)
        for other, row in self._staged.items():
            if row == slot:
                self._move_staged(other, self._free_row())
        return slot

    def _take_slot(self, sequence: Sequence, hidden: Tensor | None) -> None:
        if self._staged[sequence] != len(self.sequences):
            self._move_staged(sequence, self._next_slot())
        sequence.slot = self._staged.pop(sequence)
        self.sequences.append(sequence)
        if self._graphs is None:
            assert hidden is not None
            self._finish_frame(hidden[:, -1], [sequence])
        elif self._placed:
            self._place(sequence)

    def _move_staged(self, sequence: Sequence, target: int) -> None:
        row, self._staged[sequence] = self._staged[sequence], target
        self._cache.move(row, target, sequence.length)
        if self._prefill_graphs is not None:
            self._forget(row, sequence.length)

    def _forget(self, row: int, length: int) -> None:
        """Zero a row's first positions: were they not numbers, the next sequence there would read them."""
        self._cache.both[:, :, row, :, :length] = 0

    @property
    def can_leave_out(self) -> bool:
        """Whether a step is shorter without some of the sequences, and gives the others the same frames."""
        return self._graphs is None and self._step.exact

    def step(self, only: list[Sequence] | None = None) -> None:
        """Generate one frame for every sequence, or for some where `can_leave_out`. The caller must have removed finished sequences.

        With graphs, frames arrive one step late: the device computes the next ones while the runner reads these. While a reference sequence
        runs, all steps are eager.
        """
        if self._graphs is None:
            self._step_eagerly(self.sequences if only is None else only)
        elif not any(s.reference for s in self.sequences):
            self._step_ahead()
        elif self._flight is not None:  # collect pending frames first
            self._collect_pending()
        else:
            self._step_eagerly(self.sequences)

    def _step_eagerly(self, sequences: list[Sequence]) -> None:
        self._placed = False
        if sequences:
            columns = self._sent(torch.stack([s.column for s in sequences]))
            rows = None if sequences is self.sequences else [s.slot for s in sequences]
            self._finish_frame(self._step.slow(columns, self._cache, [s.length for s in sequences], rows), sequences)
        for s in sequences:
            s.length += 1

    def _step_ahead(self) -> None:
        assert self._graphs is not None
        launched = None
        if self.sequences:
            if not self._placed:
                for s in self.sequences:
                    self._place(s)
                self._placed = True
            launched = list(self.sequences), self._graphs.launch(len(self.sequences))
            for s in self.sequences:
                s.length += 1
        self._collect_pending()
        self._flight = launched

    def _collect_pending(self) -> None:
        """Take the pending frames. A sequence that has left meanwhile has one surplus frame, which is discarded."""
        if self._flight is None:
            return
        (sequences, flight), self._flight = self._flight, None
        left = [i for i, s in enumerate(sequences) if s.slot >= 0]
        if left:
            frames = flight.wait().numpy()
            self._record([sequences[i] for i in left], frames if len(left) == len(sequences) else frames[left])

    def _place(self, s: Sequence) -> None:
        assert self._graphs is not None
        self._graphs.place(s.slot, s.column, s.length, s.seed, len(s.frames), self._history(s), s.request.sampling)

    def _history(self, s: Sequence) -> Tensor:
        """The ids that the penalty of each draw sees, (codebooks, WINDOW) int64, the latest last: tokens as indices into the head's ids."""
        if not s.frames:  # the first frame is drawn without penalty
            return torch.full((self._codebooks, WINDOW), NONE)
        # It never enters the window, which is full of zeros after it. Token id zero is a text token, which only the reference can speak.
        history = np.zeros((self._codebooks, WINDOW), np.int64)
        if not s.reference:
            history[0] = NONE
        if recent := s.frames[1:][-WINDOW:]:
            columns = np.stack(recent, axis=1)
            history[0, -len(recent) :] = columns[0] - (0 if s.reference else self._semantic_begin - 1)
            history[1:, -len(recent) :] = columns[2:]
        return torch.from_numpy(history)

    def _sent(self, x: Tensor) -> Tensor:
        """Copy x to the device without waiting for the device's current work."""
        return x if self._device.type == "cpu" else x.pin_memory().to(self._device, non_blocking=True)

    def remove(self, sequence: Sequence) -> None:
        """Free a sequence's slot and move the last slot into its place; or unstage the sequence."""
        row = self._staged.pop(sequence, None)
        if row is not None and self._prefill_graphs is not None:
            self._forget(row, sequence.length)
        if sequence.slot < 0:
            return
        slot, last = sequence.slot, self.sequences.pop()
        sequence.slot = -1
        if sequence.finish is FinishReason.ERROR:
            self._cache.clear(slot)
        if last is not sequence:
            self.sequences[slot] = last
            self._cache.move(last.slot, slot, last.length)
            if self._graphs is not None:
                self._graphs.move(last.slot, slot)
            if last.finish is FinishReason.ERROR:
                self._cache.clear(last.slot)  # its own removal will clear only its new slot
            last.slot = slot

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
        output = self._step.heads.rows_of
        return Head(ids, output(tokens), codes, output(scores))

    def _finish_frame(self, hidden: Tensor, sequences: list[Sequence]) -> None:
        """Draw a frame for each sequence from slow hidden states (batch, dim). Normal and reference slots may draw different ids."""
        for reference in (False, True):
            group = [i for i, s in enumerate(sequences) if s.reference is reference]
            if group:
                whole = len(group) == len(sequences)
                self._draw(hidden if whole else hidden[group], [sequences[i] for i in group], self._head(reference))

    def _draw(self, hidden: Tensor, sequences: list[Sequence], head: Head) -> None:
        controls = self._controls_of(sequences)
        seen = self._seen(sequences, head) if controls.penalty is not None else [None] * self._codebooks
        noise = self._noise(sequences)

        def pick(draw: int, logits: Tensor) -> Tensor:
            if draw == 0 and head is self._speakable and not all(s.frames for s in sequences):
                # The reference does not test its first frame for the end token and continues to speak; so do we.
                logits[[i for i, s in enumerate(sequences) if not s.frames], 0] = -torch.inf
            return sample(logits, seen[draw], controls, noise[draw], lambda count: self._rest(sequences, draw, count))

        self._record(sequences, self._step.frame(hidden, head, pick).cpu().numpy())

    def _controls_of(self, sequences: list[Sequence]) -> Controls:
        sampling = tuple(s.request.sampling for s in sequences)
        if self._controls is None or self._controls[0] != sampling:  # else as in the last frame
            penalised = any(penalty != 1 for _, _, penalty in sampling)
            self._controls = sampling, Controls.of(torch.tensor(sampling, dtype=torch.float32, device=self._device), penalised)
        return self._controls[1]

    def _seen(self, sequences: list[Sequence], head: Head) -> Seq[Tensor]:
        """Masks (bool) of the ids to penalise: tokens (batch, ids), then codes (batch, codes) for each later codebook."""
        history = torch.stack([self._history(s) for s in sequences]).to(self._device)
        return seen_ids(history[:, 0], len(head.ids)), *seen_ids(history[:, 1:], head.codes).unbind(1)

    def _record(self, sequences: list[Sequence], frames: np.ndarray) -> None:
        """Append the frames of `Step.frame` to their sequences, and set `finish` where a sequence ends.

        On a GPU everybody waits meanwhile: all rows are looked at together, and those one by one at which there is something to see.
        """
        columns, sound = frames[:, :-2], frames[:, -1] != 0
        odd = ~sound | (columns[:, 0] == self._im_end)
        if columns[:, 1:].max() >= CODES_PER_GROUP:
            for i in np.flatnonzero((columns[:, 1:] >= CODES_PER_GROUP).any(axis=1)):
                sequences[i].undecodable = True
        for s, column, is_odd in zip(sequences, columns, odd.tolist(), strict=True):
            s.frames.append(column)
            if is_odd or len(s.frames) >= s.limit:
                s.finish = self._ending(s)
        for i in np.flatnonzero(~sound):
            sequences[i].finish = FinishReason.ERROR

    def _ending(self, s: Sequence) -> FinishReason | None:
        """Why a sequence ends with its last frame, if it does. The first is not tested for the end token, as in the reference."""
        if int(s.frames[-1][0]) == self._im_end and len(s.frames) > 1:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(s.frames) >= s.limit else None

    def _noise(self, sequences: list[Sequence]) -> Seq[Tensor]:
        """The noise of each draw for the first TOP_RANKS ranks, (batch, TOP_RANKS)."""
        for s in sequences:
            block = len(s.frames) // NOISE_FRAMES
            if s.noise[0] != block:
                frames = torch.arange(block * NOISE_FRAMES, (block + 1) * NOISE_FRAMES)
                s.noise = block, gumbel(torch.tensor([s.seed]), frames, self._draws, 0, TOP_RANKS)
        return torch.stack([s.noise[1][len(s.frames) % NOISE_FRAMES] for s in sequences]).to(self._device).unbind(1)

    def _rest(self, sequences: list[Sequence], draw: int, count: int) -> Tensor:
        """The noise of a draw for the `count` ranks after TOP_RANKS, (batch, count)."""
        seeds, frames = torch.tensor([(s.seed, len(s.frames)) for s in sequences]).T
        return gumbel(seeds, frames, self._draws[draw : draw + 1], TOP_RANKS, count)[:, 0].to(self._device)
