"""`python -m training.preferences`: minnow's language model learns from its own takes which of them are understood.

It says sentences of the corpus several times each, some of them behind clips of other speakers, if there are any. Of every word of a take
the recogniser tells how likely it finds it; behind a clip, that falls with the distance of the pitch from the clip's. The model learns to
prefer the better takes of each word to the others (direct preference optimisation, arXiv:2305.18290, by words). Its guided heads tell
which frames say which word. README.md says what that gave.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inference import Reference, SpeechEngine, SpeechRequest, Voice
from inference.hub import EMBEDDED_VOICE
from inference.model.config import SAMPLES_PER_FRAME
from training.dual_ar import Student, load_weights, predictions
from training.evaluate import Ear
from training.export import write_language_model
from training.machine import Machine, in_processes
from training.pitch import median_pitch
from training.recipe import DualARRecipe, Recipe
from training.samples import SPEAKER, USER_OPENING, Batch, Conversation, SequenceBuilder, byte_tokenizer, clip_of, collate, joined
from training.shards import CodedUtterance, OtherSpeaker, code_shards, coded, other_speakers, save

TAKES = 5
PER_SHARD = 50
"""Texts."""
SHARDS, EPOCHS = 24, 2
SLOTS = 16
MAX_BYTES, MIN_WORDS = 110, 3
"""Of a text: what the engine says in one go, and more than a word."""
MIN_FRAMES, MAX_FRAMES = 6, 400
"""Of a take. A longer one did not find its end."""
MIN_DIFFERENCE = 1.0
"""Of a word's likelihoods in two takes, in nats: with less, neither is better."""
CLIP_SHARE = 0.5
"""Of the texts: behind a clip, where there are other speakers."""
OCTAVE_COST = 6.0
"""Nats of each word. Without it men get a woman's voice, which the recogniser understands better."""
BETA = 0.3
RATE = 6e-5
COLUMNS = 4_000
"""Of a batch of takes."""
WARM_UP = 20
SILENCE = np.zeros(SAMPLES_PER_FRAME, np.float32)


@dataclass(frozen=True)
class Takes:
    """Several takes of one text: each one's codes (frames, codebooks) int16, and how good each word is in it, in nats: how likely
    the recogniser finds it, less the pitch's cost behind a clip.
    """

    text: bytes
    codes: list[Tensor]
    heard: list[list[float]]
    clip_text: str = ""
    clip: Tensor | None = None
    """Codes (frames, codebooks) of the clip that they are said behind, if any; `clip_text` is what is said in it."""

    def usable(self) -> Takes:
        """Without takes that did not begin or did not end."""
        kept = [i for i, codes in enumerate(self.codes) if MIN_FRAMES <= len(codes) <= MAX_FRAMES]
        return replace(self, codes=[self.codes[i] for i in kept], heard=[self.heard[i] for i in kept])

    @property
    def differ(self) -> bool:
        """Whether a word of one of them is better understood than in another."""
        return any(max(word) - min(word) >= MIN_DIFFERENCE for word in zip(*self.heard, strict=True))


@dataclass(frozen=True)
class TakesBatch:
    """Takes of several texts, one a row."""

    batch: Batch
    share: Tensor
    """(takes, time, words) how much of what each column predicts belongs to which word; anything where no speech is predicted."""
    better: Tensor
    """(takes, takes, words) bool: both say the same text, and the first one's word is better understood than the second one's."""
    reference: Tensor
    """(takes, words) how likely the model found each before it learned, in nats."""


def texts(recipe: Recipe) -> list[str]:
    """Texts of the coded speech that the engine says in one go, in any order."""
    spoken = [u.text.decode() for path in code_shards(recipe) for u in coded(path)]
    chosen = [text for text in spoken if len(text.encode()) <= MAX_BYTES and len(text.split()) >= MIN_WORDS]
    random.Random(0).shuffle(chosen)
    return chosen


def take_shards(recipe: Recipe) -> list[Path]:
    """The shards of takes that are there, in order."""
    return sorted(recipe.folder.glob("takes_*.pt"))


def speak_takes(recipe: Recipe, machine: Machine, process: int, checkpoint: Path, shards: range) -> None:
    """Write this process's share of these shards of takes, where they are missing."""
    drawn, others, ear = texts(recipe), other_speakers(recipe), Ear()
    with SpeechEngine.load(checkpoint, device="cpu", slots=SLOTS, copies=recipe.folder / "copies") as engine:
        for number in shards[process :: machine.processes]:
            path = recipe.folder / f"takes_{number:04d}.pt"
            if not path.exists():
                made = heard_takes(engine, ear, drawn[number * PER_SHARD :][:PER_SHARD], others, number)
                save(path, [vars(takes) for takes in made])
                print(f"{path.name}: takes of {sum(t.usable().differ for t in made)} texts differ", flush=True)


def heard_takes(engine: SpeechEngine, ear: Ear, drawn: Sequence[str], others: Sequence[OtherSpeaker], number: int) -> list[Takes]:
    """Each text said TAKES times, with seeds that no other shard has, some behind a clip of one of `others`, if there are any."""
    rng = random.Random(number)
    behind = [joined(clip_of(rng.choice(others), rng)) if others and rng.random() < CLIP_SHARE else ("", None) for _ in drawn]
    voices = [Voice() if clip is None else Voice((Reference(clip.T.numpy(), said),)) for said, clip in behind]
    requests = [
        SpeechRequest(text, voice, seed=1_000_000 + number * TAKES + k, max_new_tokens=MAX_FRAMES + 1)
        for text, voice in zip(drawn, voices, strict=True)
        for k in range(TAKES)
    ]
    with ThreadPoolExecutor(SLOTS) as pool:
        codes = list(pool.map(engine.generate_codes, requests))
    sounds = [engine.decode(c).samples if c.size else SILENCE for c in codes]
    heard = [ear.likelihood(sound, r.text) for sound, r in zip(sounds, requests, strict=True)]
    takes = [torch.from_numpy(np.ascontiguousarray(c.T)).short() for c in codes]
    made = []
    for i, (text, (said, clip)) in enumerate(zip(drawn, behind, strict=True)):
        these = slice(i * TAKES, (i + 1) * TAKES)
        if clip is not None:
            wanted = median_pitch(engine.decode(clip.T.numpy()).samples)
            found = [median_pitch(sound) for sound in sounds[these]]
            heard[these] = [[w - pitch_cost(p, wanted) for w in words] for words, p in zip(heard[these], found, strict=True)]
        made.append(Takes(text.encode(), takes[these], heard[these], said, clip))
    return made


def pitch_cost(found: float, wanted: float) -> float:
    """What a take loses in each word when its pitch is not that of its clip, in nats. Where either has none, it loses all that it can."""
    distance = abs(math.log2(found / wanted)) if found and wanted else 1
    return OCTAVE_COST * min(1, distance)


def word_of_byte(text: bytes) -> Tensor:
    """Which word of a text, split at spaces, each of its bytes belongs to, (bytes,) int64; spaces go with the word before them."""
    words = re.findall(r"\S+\s*", text.decode())
    return torch.tensor([number for number, word in enumerate(words) for _ in word.encode()])


def word_shares(attention: Sequence[Tensor], texts: Sequence[bytes], starts: Sequence[int], r: DualARRecipe) -> Tensor:
    """From the guided heads' attention, each (takes, heads, time, time): what share of its byte lies in which word, (takes, time, words).

    The texts begin at the columns `starts`. The heads that look at the spoken byte itself count.
    """
    at_byte = [layer[:, head] for layer, (_, offsets) in zip(attention, r.guided, strict=True) for head, o in enumerate(offsets) if o == 0]
    looked = torch.stack(at_byte).float().sum(0)
    shares = torch.zeros(*looked.shape[:2], max(len(text.split()) for text in texts))
    for share, take, text, start in zip(shares, looked, texts, starts, strict=True):
        of_bytes = take[:, start : start + len(text)]
        share.index_add_(1, word_of_byte(text), of_bytes / of_bytes.sum(1, keepdim=True).clamp(min=1e-6))
    return shares


def column_likelihood(student: Student, batch: Batch, r: DualARRecipe, im_end: int) -> tuple[Tensor, list[Tensor]]:
    """How likely the model finds what each column predicts, (takes, time) in nats, 0 where nothing is said, and the guided heads' attention.

    That is the token and the codes, but not the end column's codes.
    """
    spoken, target = batch.is_spoken, batch.said
    frames = (target[:, 0] != im_end).nonzero()[:, 0]
    predicted = predictions(student, batch, r, frames)
    token = -F.cross_entropy(predicted.tokens.float(), target[:, 0], reduction="none")
    logits = predicted.codes[:, 1:].float()  # the token is the first code
    codes = -F.cross_entropy(logits.flatten(0, 1), target[frames, 2:].flatten(), reduction="none").view(len(logits), -1).sum(1)
    columns = spoken.flatten().nonzero()[:, 0]
    found = torch.zeros(spoken.numel()).index_add(0, columns, token).index_add(0, columns[frames], codes)
    return found.view_as(spoken), predicted.attention


def better(text: Tensor, heard: Tensor) -> Tensor:
    """Which take is better than which, by word, (takes, takes, words) bool.

    `text` is the number of each take's text, (takes,), and `heard` how its words are heard, (takes, words), nan where it has fewer.
    """
    return (text[:, None] == text)[..., None] & (heard[:, None] - heard >= MIN_DIFFERENCE)


def preference_loss(likelihoods: Tensor, reference: Tensor, better: Tensor) -> Tensor:
    """-log sigmoid(beta * (gain of the better take's word - gain of the other's)), the mean over all such pairs."""
    gain = likelihoods - reference
    return -F.logsigmoid(BETA * (gain[:, None] - gain)[better]).mean()


class PreferenceTraining:
    """A student that begins as the recipe's average, and what it learns from."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.r = recipe, recipe.dual_ar
        torch.manual_seed(self.r.seed)
        self.tokenizer = byte_tokenizer(recipe.folder / "tokenizer.tiktoken")
        self.builder = SequenceBuilder(self.tokenizer)
        self.student = Student(self.r, self.tokenizer.semantic_begin, self.tokenizer.n_vocab)
        file = recipe.folder / "dual_ar.pt"
        average = torch.load(file, map_location="cpu", weights_only=True)["average"]
        load_weights(self.student, {name: tensor.float() for name, tensor in average.items()}, file)
        self.reference = copy.deepcopy(self.student).train()  # so that it notes its guided heads' attention
        self.student.eval()

    def takes(self) -> list[TakesBatch]:
        """All texts whose takes differ, in batches of similar length."""
        found = [Takes(**item).usable() for path in take_shards(self.recipe) for item in torch.load(path, weights_only=True)]
        chosen = sorted((takes for takes in found if takes.differ), key=self._columns)
        batches, start = [], 0
        while start < len(chosen):
            count = max(1, COLUMNS // (TAKES * self._columns(chosen[start])))
            batches.append(self._batch(chosen[start : start + count]))
            start += count
        return batches

    def run(self, epochs: int) -> None:
        """Learn from all takes so many times, at a rate that falls to nothing."""
        takes, draw = self.takes(), random.Random(self.r.seed)
        optimiser = torch.optim.AdamW(self.student.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        steps = [batch for _ in range(epochs) for batch in draw.sample(takes, len(takes))]
        noted: list[dict[str, float]] = []
        for step, batch in enumerate(steps):
            optimiser.param_groups[0]["lr"] = RATE * min(1, (step + 1) / WARM_UP) * (1 - step / len(steps))
            found = self.likelihood(self.student, batch)
            preference = preference_loss(found, batch.reference, batch.better)
            optimiser.zero_grad(set_to_none=True)
            preference.backward()
            torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
            optimiser.step()
            gain = found.detach() - batch.reference
            right = (gain[:, None] > gain)[batch.better].float().mean().item()
            noted.append({"preference": preference.item(), "right": right, "gain": gain.mean().item()})
            if (step + 1) % 100 == 0 or step + 1 == len(steps):
                mean = {name: round(sum(n[name] for n in noted) / len(noted), 3) for name in noted[0]}
                print(json.dumps({"step": step + 1, "of": len(steps)} | mean), flush=True)
                noted.clear()

    def likelihood(self, student: Student, takes: TakesBatch) -> Tensor:
        """How likely a model finds each word's speech, (takes, words) in nats."""
        found, _ = column_likelihood(student, takes.batch, self.r, self.tokenizer.im_end)
        return torch.einsum("ctw,ct->cw", takes.share, found)

    def _columns(self, takes: Takes) -> int:
        return self._conversation(takes, max(takes.codes, key=len)).columns.shape[1]

    def _batch(self, group: Sequence[Takes]) -> TakesBatch:
        conversations = [self._conversation(takes, codes) for takes in group for codes in takes.codes]
        batch = collate(conversations)
        texts = [takes.text for takes in group for _ in takes.codes]
        number = torch.tensor([number for number, takes in enumerate(group) for _ in takes.codes])
        with torch.no_grad():
            found, attention = column_likelihood(self.reference, batch, self.r, self.tokenizer.im_end)
        starts = [(c.reference or self.builder.system_size) + USER_OPENING for c in conversations]
        share = word_shares(attention, texts, starts, self.r)
        heard = torch.full((len(texts), share.shape[2]), math.nan)
        for row, words in zip(heard, (words for takes in group for words in takes.heard), strict=True):
            row[: len(words)] = torch.tensor(words)
        return TakesBatch(batch, share, better(number, heard), torch.einsum("ctw,ct->cw", share, found))

    def _conversation(self, takes: Takes, codes: Tensor) -> Conversation:
        nowhere, silent = torch.zeros(len(codes)), torch.zeros(len(codes), 4, dtype=torch.uint8)
        said = [CodedUtterance(takes.text, codes, nowhere, silent)]
        if takes.clip is None:
            return self.builder.build(said, system=True)
        return self.builder.follow(takes.clip_text, takes.clip, said, torch.zeros(SPEAKER))


def main(arguments: list[str] | None = None) -> None:
    """Speak and hear takes, then learn from them."""
    parser = argparse.ArgumentParser(
        prog="python -m training.preferences", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("var/minnow"), help="folder of the recipe's run (default: %(default)s)")
    parser.add_argument(
        "--checkpoint", type=Path, default=EMBEDDED_VOICE,
        help="checkpoint that speaks; dual_ar.pt in --work must hold its language model (default: minnow)",
    )  # fmt: skip
    parser.add_argument("--shards", type=int, default=SHARDS, help=f"shards of {PER_SHARD} texts to speak (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them: another round needs other texts (default: 0)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="times to learn from all takes (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="cores to speak and to learn on (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("shards", "epochs", "processes"):
        if (number := getattr(options, name)) < 1:
            parser.error(f"--{name} is {number}; it must be at least 1")
    if options.first < 0:
        parser.error(f"--first is {options.first}; it must be at least 0")
    recipe = Recipe(options.work)
    if not code_shards(recipe) or not (recipe.folder / "dual_ar.pt").exists():
        missing = "dual_ar.pt" if code_shards(recipe) else "shards of codes"
        raise SystemExit(
            f"{options.work} has no {missing}: make them with `python -m training.unpack` and `python -m training speech codes`"
        )
    shards = range(options.first, options.first + options.shards)
    if shards.stop * PER_SHARD > (there := len(texts(recipe))):
        parser.error(f"--first and --shards ask for shards up to {shards.stop - 1}; there are texts for {there // PER_SHARD}")
    in_processes(partial(speak_takes, checkpoint=options.checkpoint, shards=shards), recipe, Machine(processes=options.processes))
    torch.set_num_threads(options.processes)
    training = PreferenceTraining(recipe)
    training.run(options.epochs)
    print(write_language_model(training.student, options.work), flush=True)


if __name__ == "__main__":
    main()
