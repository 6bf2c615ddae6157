"""Training sequences for the Dual-AR: the spec's conversation as columns, what each column should predict, and where it is in the text."""

from __future__ import annotations

import base64
import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.model.config import FRAMES_PER_SECOND, SEMANTIC_TOKENS
from inference.model.prompt import PromptBuilder
from inference.model.tokenizer import Tokenizer
from training.fsq import nudge
from training.recipe import DualARRecipe
from training.shards import CodedUtterance, OtherSpeaker

CODEBOOKS = 8
BYTES = 256
"""Tokens of text: one for each byte."""
IGNORE = -100
NOWHERE = -1.0
LONGEST = 300
"""Two utterances share a sequence only when together they have at most this many columns."""
USER_OPENING = 6
"""Columns before a text: <|im_start|> and "user\\n"."""
SPEAKER = 5
"""Numbers that tell a speaker from others."""
CLIP_SECONDS = (2, 25)
UTTERANCES_BEHIND_CLIP = 2
MAX_COLUMNS_BEHIND_CLIP = 1_400
"""Longer sequences, with the clip, are left out."""
_MAX_RUN = 4
_MULTIPLE = 32  # sequences are padded to a multiple, so that there are few distinct shapes to compile kernels for


def byte_tokenizer(path: Path) -> Tokenizer:
    """Write and read a `tokenizer.tiktoken` with the 256 bytes and no merges."""
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text("".join(f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(BYTES)), encoding="ascii")
    written.replace(path)  # at once: another process may be reading it
    return Tokenizer.from_file(path)


@dataclass(frozen=True)
class Conversation:
    """One conversation. `spoken` marks the columns to predict; `place` is the text column that each of them speaks."""

    columns: Tensor  # (1 + codebooks, time) int64
    spoken: Tensor  # (time,) bool
    place: Tensor  # (time,) float32, NOWHERE where unknown
    phonemes: Tensor  # (time, 4) uint8
    reference: int = 0
    """How many columns at its beginning are the clip to follow and what stands before it: they are heard as they are."""
    speaker: Tensor = field(default_factory=lambda: torch.zeros(SPEAKER))
    """Who speaks, as `disguise.Speaker.readout` says it."""


@dataclass(frozen=True)
class Batch:
    """Training data. `columns` is the model's input; `target`, `place` and `phonemes` describe the *next* column."""

    columns: Tensor  # (batch, 1 + codebooks, time)
    target: Tensor  # (batch, 1 + codebooks, time), IGNORE where nothing is predicted
    place: Tensor  # (batch, time)
    phonemes: Tensor  # (batch, time, 4)
    reference: Tensor  # (batch,) int64
    speaker: Tensor  # (batch, SPEAKER)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    @property
    def is_own(self) -> Tensor:
        """Which columns are not the clip's, (batch, time) bool."""
        return torch.arange(self.columns.shape[2], device=self.columns.device) >= self.reference[:, None]

    @property
    def is_spoken(self) -> Tensor:
        """Which columns have speech, or its end, next, (batch, time) bool."""
        return self.target[:, 0] != IGNORE

    @property
    def said(self) -> Tensor:
        """What these columns should predict, (columns, 1 + codebooks)."""
        return self.target.transpose(1, 2)[self.is_spoken]


class SequenceBuilder:
    """Builds sequences with the same prompt as the engine."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._prompts, self._tokenizer = PromptBuilder(tokenizer, CODEBOOKS), tokenizer

    @property
    def system_size(self) -> int:
        """Columns of the system message."""
        return self._prompts.system().shape[1]

    def size(self, text: bytes) -> int:
        """Number of columns of a text with its prompt and its end column."""
        return self._prompts.segment(text.decode()).shape[1] + 1

    def prompt(self, text: str) -> Tensor:
        """Columns of a request without a reference."""
        return torch.cat((self._prompts.system(), self._prompts.segment(text)), dim=1)

    def build(self, utterances: Sequence[CodedUtterance], system: bool) -> Conversation:
        """Put utterances one after the other: for later ones the earlier ones are references, or the text so far."""
        columns = [self._prompts.system()] if system else []
        time = sum(c.shape[1] for c in columns)
        spoken, places, phonemes = (
            [torch.zeros(time, dtype=torch.bool)],
            [torch.full((time,), NOWHERE)],
            [torch.zeros(time, 4, dtype=torch.uint8)],
        )
        for u in utterances:
            prompt, answer = self._prompts.segment(u.text.decode()), self._answer(u)
            start, silent = time + USER_OPENING, prompt.shape[1]
            columns += [prompt, answer]
            spoken += [torch.zeros(silent, dtype=torch.bool), torch.ones(answer.shape[1], dtype=torch.bool)]
            places += [torch.full((silent,), NOWHERE), start + u.bytes.float() - 0.5, torch.tensor([NOWHERE])]
            phonemes += [torch.zeros(silent, 4, dtype=torch.uint8), u.phonemes, torch.zeros(1, 4, dtype=torch.uint8)]
            time += silent + answer.shape[1]
        return Conversation(torch.cat(columns, 1), torch.cat(spoken), torch.cat(places), torch.cat(phonemes))

    def follow(self, text: str, clip: Tensor, said: Sequence[CodedUtterance], speaker: Tensor) -> Conversation:
        """What a speaker says after a clip of theirs, (frames, codebooks): one reference, as the engine writes it."""
        before = torch.cat((self._prompts.system(), self._prompts.reference(text, clip.T.numpy())), dim=1)
        own, size = self.build(said, system=False), before.shape[1]
        return Conversation(
            torch.cat((before, own.columns), dim=1),
            F.pad(own.spoken, (size, 0)),
            F.pad(torch.where(own.place >= 0, own.place + size, own.place), (size, 0), value=NOWHERE),
            F.pad(own.phonemes, (0, 0, size, 0)),
            size,
            speaker,
        )

    def _answer(self, u: CodedUtterance) -> Tensor:
        """The utterance's columns and <|im_end|>. The end column has code_0 = 0, as at inference, and the last frame's other codes."""
        codes = u.codes.long().T
        end = codes[:, -1:].clone()
        end[0] = 0
        tokens = torch.cat((codes[:1] + self._tokenizer.semantic_begin, torch.tensor([[self._tokenizer.im_end]])), dim=1)
        return torch.cat((tokens, torch.cat((codes, end), dim=1)))

    def semantic(self, tokens: Tensor) -> Tensor:
        """Which of `tokens` are semantic ones, bool."""
        begin = self._tokenizer.semantic_begin
        return (tokens >= begin) & (tokens < begin + SEMANTIC_TOKENS)

    def noisy(self, batch: Batch, share: Tensor) -> Batch:
        """Alter about `share` (batch,) of each sequence's input frames: runs of other speech, and neighbouring digits.

        A model that has only seen true pasts trusts the audio more than the text, and loses its place in the text at its own first
        mistake. The swapped-in sounds are real ones from the same batch: unlike random codes, the model cannot recognise them as wrong.
        """
        tokens, codes = batch.columns[:, 0], batch.columns[:, 1:].transpose(1, 2)
        begin = self._tokenizer.semantic_begin
        semantic = self.semantic(tokens) & batch.is_own
        altered = _swap_runs(codes, codes[semantic], share)
        device = codes.device
        blurred = (torch.rand(tokens.shape, device=device) < share[:, None] / 2)[..., None] & (torch.rand(codes.shape, device=device) < 0.5)
        altered = torch.where(blurred, nudge(altered), altered)
        codes = torch.where(semantic[..., None], altered, codes).transpose(1, 2)
        tokens = torch.where(semantic, codes[:, 0] + begin, tokens)
        return replace(batch, columns=torch.cat((tokens[:, None], codes), dim=1))


class Frames:
    """Every frame of the data, indexed by its first code."""

    def __init__(self, codes: Tensor) -> None:
        """`codes` (frames, codebooks)."""
        first = codes[:, 0].long()
        self._ordered = codes[first.argsort(stable=True)]
        self._count = torch.bincount(first, minlength=SEMANTIC_TOKENS)
        self._start = self._count.cumsum(0) - self._count

    def any_of(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """For each of `first` (n,) int64 a random frame that begins with it, (n, codebooks) int64, and whether there is one, (n,) bool."""
        at = self._start[first] + (torch.rand(len(first), device=first.device) * self._count[first]).long()
        return self._ordered[at.clamp(max=len(self._ordered) - 1)].long(), self._count[first] > 0


def _swap_runs(codes: Tensor, pool: Tensor, share: Tensor) -> Tensor:
    """Overwrite parts of codes (batch, time, codebooks) with runs of 1 to 4 consecutive frames of `pool` (n, codebooks)."""
    shape, device = codes.shape[:2], codes.device
    starts = torch.rand(shape, device=device) < share[:, None] / 3
    lengths, sources = torch.randint(1, _MAX_RUN + 1, shape, device=device), torch.randint(0, len(pool), shape, device=device)
    for k in range(_MAX_RUN):
        here = F.pad(starts & (lengths > k), (k, 0))[:, : shape[1]]
        source = F.pad(sources, (k, 0))[:, : shape[1]] + k
        codes = torch.where(here[..., None], pool[source % len(pool)], codes)
    return codes


def collate(sequences: Sequence[Conversation]) -> Batch:
    """Pad on the right: the model is causal, so padding is never seen."""
    time = _padded(max(s.columns.shape[1] for s in sequences) - 1)
    n = len(sequences)
    columns = torch.zeros(n, 1 + CODEBOOKS, time, dtype=torch.int64)
    target = torch.full((n, 1 + CODEBOOKS, time), IGNORE)
    place = torch.full((n, time), NOWHERE)
    phonemes = torch.zeros(n, time, 4, dtype=torch.uint8)
    for i, s in enumerate(sequences):
        t = s.columns.shape[1] - 1
        columns[i, :, :t] = s.columns[:, :-1]
        target[i, :, :t] = torch.where(s.spoken[1:], s.columns[:, 1:], IGNORE)
        place[i, :t], phonemes[i, :t] = s.place[1:], s.phonemes[1:]
    reference, speaker = torch.tensor([s.reference for s in sequences]), torch.stack([s.speaker for s in sequences])
    return Batch(columns, target, place, phonemes, reference, speaker)


def without_text(batch: Batch) -> Batch:
    """The same where every byte of what is said is a space: a model that sees this can tell a text's length and no more."""
    tokens = batch.columns[:, 0].masked_fill((batch.columns[:, 0] < BYTES) & batch.is_own, ord(" "))
    return replace(batch, columns=torch.cat((tokens[:, None], batch.columns[:, 1:]), dim=1))


def following(speakers: Sequence[OtherSpeaker], builder: SequenceBuilder, columns: int, rng: random.Random) -> Iterator[Batch]:
    """Batches without end. Each speaker says something behind a clip of other things."""
    while True:
        sequences = [follow_somebody(somebody, builder, rng) for somebody in rng.sample(speakers, len(speakers))]
        sequences = sorted((s for s in sequences if s.columns.shape[1] <= MAX_COLUMNS_BEHIND_CLIP), key=lambda s: s.columns.shape[1])
        if not sequences:
            raise ValueError(f"no clip and what is said behind it have at most {MAX_COLUMNS_BEHIND_CLIP} columns")
        batches = [[sequences.pop(0)]]
        for sequence in sequences:
            if (len(batches[-1]) + 1) * _padded(sequence.columns.shape[1] - 1) > columns:
                batches.append([])
            batches[-1].append(sequence)
        rng.shuffle(batches)
        yield from map(collate, batches)


def follow_somebody(somebody: OtherSpeaker, builder: SequenceBuilder, rng: random.Random) -> Conversation:
    """What somebody says behind a clip of theirs, which is not in it."""
    clip = clip_of(somebody, rng)
    left = [u for u in somebody.says if u.text not in {text for text, _ in clip}]
    return builder.follow(*joined(clip), rng.sample(left, min(UTTERANCES_BEHIND_CLIP, len(left))), somebody.readout)


def clip_of(somebody: OtherSpeaker, rng: random.Random) -> list[tuple[bytes, Tensor]]:
    """Utterances that together are as long as a length drawn between CLIP_SECONDS, short ones oftener, where the speaker says enough.

    Enough of what the speaker says is not in it.
    """
    sounds = rng.choice(somebody.clips)
    own = {u.text for u in somebody.says}
    most = len(own) - UTTERANCES_BEHIND_CLIP if sounds[0][0] in own else len(sounds)
    sounds = rng.sample(sounds, len(sounds))
    wanted = FRAMES_PER_SECOND * math.exp(rng.uniform(*map(math.log, CLIP_SECONDS)))
    clip = [sounds.pop()]
    while sounds and len(clip) < most and sum(len(codes) for _, codes in clip) < wanted:
        clip.append(sounds.pop())
    return clip


def joined(clip: Sequence[tuple[bytes, Tensor]]) -> tuple[str, Tensor]:
    """A clip's text, and its codes (frames, codebooks)."""
    return " ".join(text.decode() for text, _ in clip), torch.cat([codes for _, codes in clip])


def plan_epoch(sizes: Sequence[int], system_size: int, r: DualARRecipe, rng: random.Random) -> list[list[tuple[tuple[int, ...], bool]]]:
    """Batches of (utterance indices, with system message?), each of sequences of one padded length; sequences that do not fill a batch
    wait.

    `sizes` are the numbers of columns of each utterance with its prompt.
    """
    order = list(range(len(sizes)))
    rng.shuffle(order)
    by_length: dict[int, list[tuple[tuple[int, ...], bool]]] = {}
    while order:
        group = [order.pop()]
        if order and rng.random() < r.several_share and sizes[group[0]] + sizes[order[-1]] <= LONGEST:
            group.append(order.pop())
        system = rng.random() < r.system_share
        time = _padded(sum(sizes[i] for i in group) + system_size * system - 1)
        by_length.setdefault(time, []).append((tuple(group), system))
    batches = []
    for time, sequences in by_length.items():
        n = max(1, r.columns // time)
        batches += [sequences[i : i + n] for i in range(0, len(sequences) - n + 1, n)]
    rng.shuffle(batches)
    return batches


def _padded(time: int) -> int:
    return -(-time // _MULTIPLE) * _MULTIPLE
