"""`python -m training.preferences`: minnow's language model learns from its own takes which of them are understood.

It says sentences of the corpus several times each. Of every take the recogniser tells how likely it finds the text in it, and the model
learns to prefer the better takes of a text to the others (direct preference optimisation, arXiv:2305.18290). README.md says what that gave.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize

from inference import SpeechEngine, SpeechRequest
from inference.hub import EMBEDDED_VOICE
from training.dual_ar import Student
from training.evaluate import Ear
from training.export import write_language_model
from training.machine import Machine, in_processes
from training.recipe import DualARRecipe, Recipe
from training.samples import IGNORE, Batch, Conversation, SequenceBuilder, byte_tokenizer, collate
from training.shards import CodedUtterance, code_shards, coded, save

TAKES = 5
PER_SHARD = 50
"""Texts."""
SLOTS = 16
MAX_BYTES, MIN_WORDS = 110, 3
"""Of a text: what the engine says in one go, and more than a word."""
MIN_FRAMES, MAX_FRAMES = 6, 400
"""Of a take. A longer one did not find its end."""
MIN_DIFFERENCE = 0.1
"""Of the two takes' likelihoods, in nats a token: with less, neither is better."""
BETA = 0.1
RATE = 6e-5
COLUMNS = 4_000
"""Of a batch of takes."""
WARM_UP = 20


@dataclass(frozen=True)
class Takes:
    """Several takes of one text: each one's codes (frames, codebooks) int16, and how likely the recogniser finds the text in it, in nats."""

    text: bytes
    codes: list[Tensor]
    heard: list[float]

    def usable(self) -> Takes:
        """Without takes that did not begin or did not end."""
        kept = [i for i, codes in enumerate(self.codes) if MIN_FRAMES <= len(codes) <= MAX_FRAMES]
        return Takes(self.text, [self.codes[i] for i in kept], [self.heard[i] for i in kept])

    @property
    def differ(self) -> bool:
        """Whether one of them is better understood than another."""
        return bool(self.heard) and max(self.heard) - min(self.heard) >= MIN_DIFFERENCE


@dataclass(frozen=True)
class TakesBatch:
    """Takes of several texts, one a row."""

    batch: Batch
    better: Tensor
    """(takes, takes) bool: the one of the row and that of the column say the same text, and the former is better understood."""
    reference: Tensor
    """(takes,) how likely the model found each before it learned, in nats."""


def texts(recipe: Recipe) -> list[str]:
    """Texts of the coded speech that the engine says in one go, in any order."""
    spoken = [u.text.decode() for path in code_shards(recipe) for u in coded(path)]
    chosen = [text for text in spoken if len(text.encode()) <= MAX_BYTES and len(text.split()) >= MIN_WORDS]
    random.Random(0).shuffle(chosen)
    return chosen


def take_shards(recipe: Recipe) -> list[Path]:
    """The shards of takes that are there, in order."""
    return sorted(recipe.folder.glob("takes_*.pt"))


def speak_takes(recipe: Recipe, machine: Machine, process: int, checkpoint: Path, shards: int) -> None:
    """Write this process's share of the first shards of takes, where they are missing."""
    drawn, ear = texts(recipe), Ear()
    with SpeechEngine.load(checkpoint, device="cpu", slots=SLOTS, copies=recipe.folder / "copies") as engine:
        for number in range(process, shards, machine.processes):
            path = recipe.folder / f"takes_{number:04d}.pt"
            if not path.exists():
                made = heard_takes(engine, ear, drawn[number * PER_SHARD :][:PER_SHARD], number)
                save(path, [vars(takes) for takes in made])
                print(f"{path.name}: takes of {sum(t.usable().differ for t in made)} texts differ", flush=True)


def heard_takes(engine: SpeechEngine, ear: Ear, drawn: Sequence[str], number: int) -> list[Takes]:
    """Each text said TAKES times, with seeds that no other shard has."""
    requests = [SpeechRequest(text, seed=1_000_000 + number * TAKES + k) for text in drawn for k in range(TAKES)]
    with ThreadPoolExecutor(SLOTS) as pool:
        codes = list(pool.map(engine.generate_codes, requests))
    heard = [ear.likelihood(engine.decode(c).samples, r.text) if c.size else -math.inf for c, r in zip(codes, requests, strict=True)]
    takes = [torch.from_numpy(np.ascontiguousarray(c.T)).short() for c in codes]
    return [Takes(text.encode(), takes[i * TAKES : (i + 1) * TAKES], heard[i * TAKES : (i + 1) * TAKES]) for i, text in enumerate(drawn)]


def likelihood(student: Student, batch: Batch, r: DualARRecipe, im_end: int) -> Tensor:
    """How likely the model finds each sequence's speech, (batch,) in nats: tokens and codes, but not the end column's codes."""
    device = batch.columns.device
    with torch.autocast(device.type, torch.bfloat16, enabled=r.bfloat16), sdpa_kernel([SDPBackend.MATH]), parametrize.cached():
        hidden = student.model.slow(batch.columns)
        spoken = batch.target[:, 0] != IGNORE
        hidden, target = hidden[spoken], batch.target.transpose(1, 2)[spoken]
        token = -F.cross_entropy(student.model.token_logits(hidden), target[:, 0], reduction="none")
        frames = target[:, 0] != im_end
        logits = student.code_logits(hidden[frames], target[frames, 1:])[:, 1:].float()  # the token is the first code
    codes = -F.cross_entropy(logits.flatten(0, 1), target[frames, 2:].flatten(), reduction="none").view(len(logits), -1).sum(1)
    row = spoken.nonzero()[:, 0]
    return torch.zeros(len(spoken), device=device).index_add(0, row, token).index_add(0, row[frames], codes)


def better(text: Tensor, heard: Tensor) -> Tensor:
    """From each take's number of its text and how it is heard, (takes,): which take is better than which, (takes, takes) bool."""
    return (text[:, None] == text) & (heard[:, None] - heard >= MIN_DIFFERENCE)


def preference_loss(likelihoods: Tensor, reference: Tensor, better: Tensor) -> Tensor:
    """-log sigmoid(beta * (gain of the better take - gain of the other)), the mean over all such pairs."""
    gain = likelihoods - reference
    return -F.logsigmoid(BETA * (gain[:, None] - gain))[better].mean()


class PreferenceTraining:
    """A student that begins as the recipe's average, and what it learns from."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.r = recipe, recipe.dual_ar
        torch.manual_seed(self.r.seed)
        self.tokenizer = byte_tokenizer(recipe.folder / "tokenizer.tiktoken")
        self.builder = SequenceBuilder(self.tokenizer)
        self.student = Student(self.r, self.tokenizer.semantic_begin, self.tokenizer.n_vocab)
        average = torch.load(recipe.folder / "dual_ar.pt", map_location="cpu", weights_only=True)["average"]
        self.student.load_state_dict({name: tensor.float() for name, tensor in average.items()})
        self.reference = copy.deepcopy(self.student).eval()

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
            self.student.train()
            found = likelihood(self.student, batch.batch, self.r, self.tokenizer.im_end)
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

    def _columns(self, takes: Takes) -> int:
        return self.builder.system_size + self.builder.size(takes.text) + max(map(len, takes.codes))

    def _batch(self, group: Sequence[Takes]) -> TakesBatch:
        batch = collate([self._conversation(takes.text, codes) for takes in group for codes in takes.codes])
        text = torch.tensor([number for number, takes in enumerate(group) for _ in takes.codes])
        heard = torch.tensor([heard for takes in group for heard in takes.heard])
        with torch.no_grad():
            reference = likelihood(self.reference, batch, self.r, self.tokenizer.im_end)
        return TakesBatch(batch, better(text, heard), reference)

    def _conversation(self, text: bytes, codes: Tensor) -> Conversation:
        nowhere, silent = torch.zeros(len(codes)), torch.zeros(len(codes), 4, dtype=torch.uint8)
        return self.builder.build([CodedUtterance(text, codes, nowhere, silent)], system=True)


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
    parser.add_argument("--shards", type=int, default=60, help=f"shards of {PER_SHARD} texts to speak (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="times to learn from all takes (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="cores to speak on (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("shards", "epochs", "processes"):
        if (number := getattr(options, name)) < 1:
            parser.error(f"--{name} is {number}; it must be at least 1")
    recipe = Recipe(options.work)
    if not code_shards(recipe) or not (recipe.folder / "dual_ar.pt").exists():
        missing = "dual_ar.pt" if code_shards(recipe) else "shards of codes"
        raise SystemExit(
            f"{options.work} has no {missing}: make them with `python -m training.unpack` and `python -m training speech codes`"
        )
    in_processes(partial(speak_takes, checkpoint=options.checkpoint, shards=options.shards), recipe, Machine(processes=options.processes))
    torch.set_num_threads(1)
    training = PreferenceTraining(recipe)
    training.run(options.epochs)
    print(write_language_model(training.student, options.work), flush=True)


if __name__ == "__main__":
    main()
