"""Training of the Dual-AR: the project's own model, with what a small one needs to find its way from little sound.

In each table of codes, a code's row is the sum of one row per FSQ digit and its own row. Three auxiliary losses train two heads in each of
some layers to look at the right byte of the text, and the middle of the slow model to predict the next phoneme and to tell who speaks. The
teacher's durations give the first two targets. Export drops what only these losses need. Muon (orthogonalised momentum) trains the matrices, AdamW the rest.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader

from inference.model.config import CODES_PER_GROUP, FRAMES_PER_SECOND, DualARConfig
from inference.model.dual_ar import Attention, DualAR, apply_rope
from training.encoder import phoneme_share
from training.fsq import digits
from training.machine import Machine
from training.recipe import DualARRecipe, Recipe
from training.samples import CODEBOOKS, IGNORE, SPEAKER, Batch, Frames, SequenceBuilder, byte_tokenizer, collate, following, plan_epoch
from training.shards import CodedUtterance, code_shards, coded, held_out_codes, other_speakers, save
from training.speech import PHONEMES

NORM_EPS = 1e-6
_DIGIT_ROWS = 8 + 5 + 5 + 5
_DIGIT_STARTS = (0, 8, 13, 18)
_WARM_UP = 200
_SPEAKER_WIDTH, _EARLY = 128, 4
_SHORTEST, _GAUGE_LONGEST, _GAUGE_SENTENCES, _GAUGE_SHIFT = 6, 110, 48, 7


class DigitRows(nn.Module):
    """Parametrization of a weight whose rows from `first` on are `tables` tables of 1000 codes: adds the rows of each code's digits."""

    hot: Tensor

    def __init__(self, tables: int, dim: int, first: int = 0) -> None:
        super().__init__()
        self.first = first
        self.rows = nn.Parameter(torch.randn(tables, _DIGIT_ROWS, dim) * 0.02)
        places = digits(torch.arange(CODES_PER_GROUP)) + torch.tensor(_DIGIT_STARTS)
        self.register_buffer("hot", torch.zeros(CODES_PER_GROUP, _DIGIT_ROWS).scatter_(1, places, 1.0), persistent=False)

    def forward(self, own: Tensor) -> Tensor:
        """(rows, dim) -> the same shape, with the digits' rows added to every code's row."""
        sums = (self.hot @ self.rows).flatten(0, 1)
        return own + F.pad(sums, (0, 0, self.first, len(own) - self.first - len(sums)))


class Student(nn.Module):
    """The model, its factored tables, the readouts of the phoneme and of who speaks, and hooks for the activations that the auxiliary losses need."""

    def __init__(self, r: DualARRecipe, semantic_begin: int, vocab_size: int) -> None:
        super().__init__()
        self.model = DualAR(dual_ar_config(r, vocab_size), semantic_begin)
        self.phoneme = nn.Linear(r.dim, PHONEMES)
        self.speaker = nn.Sequential(nn.Linear(r.dim, _SPEAKER_WIDTH), nn.GELU(), nn.Linear(_SPEAKER_WIDTH, SPEAKER))
        self._initialise(semantic_begin)
        self._heads = {self.model.layers[i].attention: len(offsets) for i, offsets in r.guided}
        self._guided: list[tuple[Attention, Tensor, Tensor]] = []
        self._middle = torch.empty(0)
        for attention in self._heads:
            attention.register_forward_pre_hook(self._note_attention)
        self.model.layers[r.phoneme_layer - 1].register_forward_hook(self._note_middle)

    def slow(self, columns: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(batch, rows, time) -> hidden (batch, time, dim), phoneme logits, attention of each guided layer's heads (batch, heads, time, time)."""
        self._guided.clear()
        hidden = self.model.slow(columns)
        self._middle = F.rms_norm(self._middle.float(), self._middle.shape[-1:])
        return hidden, self.phoneme(self._middle), [self._attention(*noted) for noted in self._guided]

    def told_speakers(self) -> Tensor:
        """Who speaks, as the middle of the last `slow` tells it at each column, (batch, time, SPEAKER)."""
        told: Tensor = self.speaker(self._middle)
        return told

    def code_logits(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Teacher-forced fast model: hidden (n, dim), codes (n, codebooks) of the same frames -> (n, codebooks, codebook_size)."""
        model = self.model
        x = torch.cat((model.fast_project_in(hidden)[:, None], model.fast_embeddings(codes[:, :-1])), dim=1)
        for i, layer in enumerate(model.fast_layers):
            x = layer(x, model.fast_rope, i, None, None)
        return model.code_logits(x)

    def plain_state(self) -> dict[str, Tensor]:
        """The model's weights under the official names, with the factored tables summed."""
        tables = {f"{name}.weight": module.weight for name, module in self.model.named_modules() if parametrize.is_parametrized(module)}
        rest = {n: t for n, t in self.model.state_dict().items() if ".parametrizations." not in n}
        return {n: t.detach().clone() for n, t in (rest | tables).items()}

    def _initialise(self, semantic_begin: int) -> None:
        model, c = self.model, self.model.config
        for name, p in model.named_parameters():
            if p.dim() == 2:
                deep = name.endswith(("wo.weight", "w2.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * c.n_layer) if deep else 0.02)
        assert model.output is not None
        tables = [(model.embeddings, 1, semantic_begin), (model.output, 1, semantic_begin), (model.codebook_embeddings, CODEBOOKS, 0)]
        for table, count, first in [*tables, (model.fast_embeddings, 1, 0), (model.fast_output, 1, 0)]:
            with torch.no_grad():
                table.weight[first:] = 0
            parametrize.register_parametrization(table, "weight", DigitRows(count, table.weight.shape[1], first))

    def _note_attention(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.training and isinstance(module, Attention):
            self._guided.append((module, inputs[0], inputs[1]))

    def _note_middle(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._middle = output

    def _attention(self, layer: Attention, x: Tensor, rope: Tensor) -> Tensor:
        """Recompute the attention weights of the first heads, which share the first key head."""
        size, heads = layer.head_dim, self._heads[layer]
        key = layer.n_head * size
        weight = torch.cat((layer.wqkv.weight[: heads * size], layer.wqkv.weight[key : key + size]))
        turned = apply_rope(F.linear(x, weight).unflatten(-1, (heads + 1, size)), rope).float()
        scores = torch.einsum("bthd,bsd->bhts", turned[:, :, :heads], turned[:, :, heads]) / math.sqrt(size)
        unseen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        return scores.masked_fill(unseen, -1e9).softmax(-1)


@dataclass(frozen=True)
class Losses:
    """Mean cross entropies of the next token, its codes and its phoneme, the guided heads' loss for looking elsewhere, and the squared
    error of who speaks.
    """

    token: Tensor
    codes: Tensor
    guide: Tensor
    phoneme: Tensor
    speaker: Tensor

    def total(self, r: DualARRecipe) -> Tensor:
        """The total loss."""
        auxiliary = r.guide_weight * self.guide + r.phoneme_weight * self.phoneme + r.speaker_weight * self.speaker
        return self.token + self.codes + auxiliary


def load_weights(student: Student, weights: Mapping[str, Tensor], file: Path) -> None:
    """Load the weights of a file. A readout that the file is older than stays as it was made. SystemExit for another model's weights."""
    known = {name: tensor for name, tensor in student.state_dict().items() if name.startswith("speaker.")}
    try:
        student.load_state_dict(known | dict(weights))
    except RuntimeError as e:
        what = " ".join(str(e).splitlines()[-1].split())[:200].rstrip(".")
        raise SystemExit(f"{file} is not of this recipe's model: {what}") from None


def dual_ar_config(r: DualARRecipe, vocab_size: int) -> DualARConfig:
    """FishSpeech 1.5's Dual-AR at minnow's size; the fast model is as wide as the slow one."""
    fast = {
        f"fast_{n}": v for n, v in (("dim", r.dim), ("n_head", r.heads), ("n_local_heads", r.kv_heads), ("intermediate_size", r.hidden))
    }
    return DualARConfig(
        vocab_size=vocab_size,
        n_layer=r.layers,
        n_head=r.heads,
        n_local_heads=r.kv_heads,
        dim=r.dim,
        intermediate_size=r.hidden,
        norm_eps=NORM_EPS,
        max_seq_len=r.max_seq_len,
        tie_word_embeddings=False,
        codebook_size=CODES_PER_GROUP,
        num_codebooks=CODEBOOKS,
        n_fast_layer=r.fast_layers,
        **fast,
    )


@dataclass(frozen=True)
class Predictions:
    """What a student predicts of the speech in a batch, column by column."""

    tokens: Tensor
    """Logits of the next token, (columns, vocabulary)."""
    codes: Tensor
    """Logits of the next frame's codes, (chosen, codebooks, 1000)."""
    chosen: Tensor
    """Which columns have logits of codes, (chosen,) int64."""
    phonemes: Tensor
    """Logits of the next phoneme, (batch, time, phonemes)."""
    attention: list[Tensor]


def predictions(student: Student, batch: Batch, r: DualARRecipe, chosen: Tensor | None = None) -> Predictions:
    """The logits that `losses` compares with what is said. `chosen`: the columns whose codes count; None: `r.fast_share` of them, drawn."""
    device = batch.columns.device
    attend = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    with torch.autocast(device.type, torch.bfloat16, enabled=r.bfloat16), sdpa_kernel(attend), parametrize.cached():
        hidden, phonemes, attention = student.slow(batch.columns)
        hidden, frames = hidden[batch.is_spoken], batch.said[:, 1:]
        tokens = student.model.token_logits(hidden)
        if chosen is None:
            chosen = torch.randperm(len(frames), device=device)[: max(1, int(r.fast_share * len(frames)))]
        codes = student.code_logits(hidden[chosen], frames[chosen])
    return Predictions(tokens, codes, chosen, phonemes, attention)


def losses(student: Student, batch: Batch, r: DualARRecipe, im_end: int) -> Losses:
    """Mean cross entropies in nats. The end column's code 0 is fixed at inference and is not learned."""
    predicted, target = predictions(student, batch, r), batch.said
    token = F.cross_entropy(predicted.tokens.float(), target[:, 0])
    frames = target[predicted.chosen]
    learned = frames[:, 1:].clone()
    learned[frames[:, 0] == im_end, 0] = IGNORE
    codes = F.cross_entropy(predicted.codes.float().flatten(0, 1), learned.flatten(), ignore_index=IGNORE)
    return Losses(token, codes, *auxiliary_losses(student, batch, predicted, r))


def auxiliary_losses(student: Student, batch: Batch, predicted: Predictions, r: DualARRecipe) -> tuple[Tensor, Tensor, Tensor]:
    """The last three of `Losses`, of what the student predicted last."""
    placed = batch.place >= 0
    share = phoneme_share(batch.phonemes.flatten(1))[placed]
    phoneme = -(share * predicted.phonemes[placed].float().log_softmax(-1)).sum(-1).mean()
    return _guide_loss(predicted.attention, batch.place, r), phoneme, _speaker_loss(student.told_speakers(), batch)


def train_dual_ar(recipe: Recipe, machine: Machine, process: int) -> None:
    """Run one of the processes that train together on one machine."""
    with meeting(recipe, machine, process):
        DualARTraining(recipe, machine, process).run()


@contextmanager
def meeting(recipe: Recipe, machine: Machine, process: int) -> Iterator[None]:
    """Lets the processes of one machine find each other, through a file in the recipe's folder."""
    if machine.processes == 1:
        yield
        return
    file = (recipe.folder / "meeting").resolve()
    torch.distributed.init_process_group("gloo", init_method=file.as_uri(), rank=process, world_size=machine.processes)
    yield
    torch.distributed.destroy_process_group()


@torch.no_grad()
def own_words(student: Student, batch: Batch, share: Tensor, frames: Frames, builder: SequenceBuilder, r: DualARRecipe) -> Batch:
    """Replace about `share` (batch,) of each sequence's input frames with frames that the model itself would have generated.

    This is scheduled sampling with all draws made at once (arXiv:1906.07651): the first code is drawn, the others come from a real frame.
    That is one of the teacher's, also behind a clip of somebody else: who speaks must not be taken from these frames.
    """
    device = batch.columns.device
    taken = builder.semantic(batch.columns[:, 0]) & batch.is_own & (torch.rand(batch.columns[:, 0].shape, device=device) < share[:, None])
    taken[:, 0] = False
    row, time = taken.nonzero(as_tuple=True)
    begin = student.model.semantic_begin
    with torch.autocast(device.type, torch.bfloat16, enabled=r.bfloat16), parametrize.cached():
        hidden = student.eval().model.slow(batch.columns)[row, time - 1]
        logits = student.model.token_logits(hidden)[:, begin : begin + CODES_PER_GROUP].float()
    said, known = frames.any_of(torch.multinomial((logits / r.own_temperature).softmax(-1), 1)[:, 0])
    row, time, said = row[known], time[known], said[known]
    columns = batch.columns.clone()
    columns[row, 0, time] = said[:, 0] + begin
    columns[row[:, None], torch.arange(1, 1 + CODEBOOKS, device=device), time[:, None]] = said
    return replace(batch, columns=columns)


class DualARTraining:
    """One run: model, optimisers, moving average and progress. Saved in `dual_ar.pt`.

    With several processes, each trains on its own batches; every `meet_every` steps all continue from the mean of their weights
    (arXiv:1805.09767). Process 0 writes the file.
    """

    def __init__(self, recipe: Recipe, machine: Machine, process: int = 0) -> None:
        self.recipe, self.r = recipe, recipe.dual_ar
        self.machine, self.process, self.processes = machine, process, machine.processes
        torch.manual_seed(self.r.seed)
        self.tokenizer = byte_tokenizer(recipe.folder / "tokenizer.tiktoken")
        self.builder = SequenceBuilder(self.tokenizer)
        self.student = Student(self.r, self.tokenizer.semantic_begin, self.tokenizer.n_vocab).to(machine.device)
        self.optimisers = _optimisers(self.student, self.r)
        self.average = {n: p.detach().clone() for n, p in self.student.named_parameters()}
        self.seconds, self.step, self.heard, self.fresh, self.is_over = 0.0, 0, 0.0, 0, False
        if self._file.exists():
            self._resume(torch.load(self._file, map_location=machine.device, weights_only=True))
        self.rng = random.Random(self.step * self.processes + process)
        torch.manual_seed(self.r.seed + self.step * self.processes + process)

    def run(self) -> None:
        """Train until this run and earlier ones total `recipe.dual_ar.seconds`, or until the machine's time is up."""
        spoken = [u for path in code_shards(self.recipe) for u in coded(path) if len(u.codes) >= _SHORTEST]
        self.frames = Frames(torch.cat([u.codes for u in spoken]).to(self.machine.device))
        batches = self._batches(spoken)
        others = other_speakers(self.recipe)
        clips = following(others, self.builder, self.r.columns, self.rng) if others else batches
        self._met = self.seconds
        start, due = self.machine.clock() - self.seconds / self.processes, self.seconds + self.recipe.checkpoint_seconds
        while (elapsed := self._elapsed(start)) < self.r.seconds:
            self._step(next(clips if self.rng.random() < self.r.clip_share else batches), elapsed)
            if elapsed > due:
                due += self.recipe.checkpoint_seconds
                self._checkpoint(elapsed)
            if self.is_over:
                break
        self._checkpoint(elapsed)

    def averaged(self) -> Student:
        """The student with the moving average of its weights."""
        with torch.no_grad():
            for name, p in self.student.named_parameters():
                p.copy_(self.average[name])
        return self.student.eval()

    @torch.no_grad()
    def gauge(self) -> dict[str, float]:
        """On unseen sentences, with the averaged weights: losses with the right text, and how much worse they are with another text.

        Only the difference shows that the model reads: it can be accurate on known sentences without reading.
        """
        held = [u for u in coded(held_out_codes(self.recipe, "validation")) if len(u.codes) <= _GAUGE_LONGEST][:_GAUGE_SENTENCES]
        current = {n: p.detach().clone() for n, p in self.student.named_parameters()}
        self.averaged().train()
        right, wrong = (self._held_losses(held, shift) for shift in (0, _GAUGE_SHIFT))
        for name, p in self.student.named_parameters():
            p.copy_(current[name])
        scores = {
            "token": right.token,
            "gauge": wrong.token - right.token,
            "codes": right.codes,
            "attention": (-right.guide).exp(),
            "phoneme": right.phoneme,
            "speaker": right.speaker,
        }
        return {name: round(float(v), 3) for name, v in scores.items()}

    @property
    def _file(self) -> Path:
        return self.recipe.folder / "dual_ar.pt"

    def _batches(self, spoken: list[CodedUtterance]) -> Iterator[Batch]:
        """Batches on the CPU, epoch after epoch; for a GPU, separate processes make them while it works."""
        sizes = [len(u.codes) + self.builder.size(u.text) for u in spoken]

        def made(plan: list[tuple[tuple[int, ...], bool]]) -> Batch:
            return collate([self.builder.build([spoken[i] for i in group], system) for group, system in plan])

        generator = torch.Generator()  # a separate one: the loader draws a number that it does not need
        while True:
            plans = plan_epoch(sizes, self.builder.system_size, self.r, self.rng)[::-1]
            if not plans:
                raise ValueError(
                    f"{len(spoken)} utterances do not fill a batch of {self.r.columns} columns; run the stages speech and codes to their end"
                )
            yield from DataLoader(plans, batch_size=None, collate_fn=made, num_workers=self.r.loaders, generator=generator)

    def _step(self, batch: Batch, elapsed: float) -> None:
        heard, device = int(batch.is_spoken.sum()), self.machine.device
        batch, n = batch.to(device), len(batch.columns)
        if self.rng.random() < self.r.own_share:
            batch = own_words(self.student, batch, torch.rand(n, device=device) * self.r.own, self.frames, self.builder, self.r)
        else:
            noise = torch.where(torch.rand(n, device=device) < self.r.noisy_share, torch.rand(n, device=device) * self.r.noise, 0.0)
            batch = self.builder.noisy(batch, noise)
        left = max(0.03, min(1.0, (self.r.seconds - elapsed) / self.r.decay_seconds))
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.r.rate * min(1, (self.step - self.fresh + 1) / _WARM_UP) * left
        self.student.train()
        loss = self._losses(batch).total(self.r)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.heard += self.processes * heard / FRAMES_PER_SECOND
        keep = min(self.r.average, 1 - 1 / (0.2 * self.step + 2))
        for name, p in self.student.named_parameters():
            self.average[name].lerp_(p.detach(), 1 - keep)

    def _losses(self, batch: Batch) -> Losses:
        return losses(self.student, batch, self.r, self.tokenizer.im_end)

    def _elapsed(self, start: float) -> float:
        """Seconds of all processes, the same number in each. When due, it averages the weights and agrees whether time is up."""
        if self.processes == 1:
            self.is_over = self.machine.is_over
            return self.machine.clock() - start
        if self.step % self.r.meet_every == 0:
            spent = torch.tensor([self.machine.clock() - start, self.machine.is_over])
            for tensor in (spent, *(p.data for p in self.student.parameters())):
                torch.distributed.all_reduce(tensor)
                tensor.div_(self.processes)
            self._met, self.is_over = float(spent[0]) * self.processes, bool(spent[1])
        return self._met

    def _held_losses(self, held: list[CodedUtterance], shift: int) -> Losses:
        sequences = []
        for i, u in enumerate(held):
            text = held[(i + shift) % len(held)].text
            sequences.append(self.builder.build([CodedUtterance(text, u.codes, u.bytes, u.phonemes)], system=True))
        return losses(self.student, collate(sequences).to(self.machine.device), self.r, self.tokenizer.im_end)

    def _checkpoint(self, seconds: float) -> None:
        if self.process:
            return
        self.seconds = seconds
        scores = {"seconds": round(seconds), "step": self.step, "hours_heard": round(self.heard / 3600, 2), **self.gauge()}
        print(f"dual_ar {json.dumps(scores)}", flush=True)
        optimisers = [o.state_dict() for o in self.optimisers]
        state = {"student": self.student.state_dict(), "average": self.average, "optimisers": optimisers}
        done = {"seconds": seconds, "step": self.step, "heard": self.heard, "fresh": self.fresh}
        save(self._file, state | done | {"machine": self.machine.name})

    def _resume(self, state: dict[str, Any]) -> None:
        self.seconds, self.step, self.heard = state["seconds"], state["step"], state["heard"]
        self.average = {name: tensor.float() for name, tensor in state["average"].items()}
        if "optimisers" not in state or any(name not in self.average for name, _ in self.student.named_parameters()):
            # A packed checkpoint has only the average, and the optimisers of an older one know less; both warm up again.
            load_weights(self.student, self.average, self._file)
            self.average = {name: p.detach().clone() for name, p in self.student.named_parameters()}
            self.fresh = self.step
            return
        self.fresh = state.get("fresh", 0)
        load_weights(self.student, state["student"], self._file)
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)


def _optimisers(student: Student, r: DualARRecipe) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in student.named_parameters() if "layers." in n and p.dim() == 2]
    known = {id(p) for p in matrices}
    rest = [p for p in student.parameters() if id(p) not in known]
    muon = torch.optim.Muon(matrices, lr=r.rate, weight_decay=r.weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, lr=r.rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]


def _guide_loss(attention: list[Tensor], place: Tensor, r: DualARRecipe) -> Tensor:
    """The guided heads' loss, in nats per head: how little of their attention falls where they should look."""
    known = place >= 0
    times = torch.arange(place.shape[1], device=place.device)
    misses = []
    for layer, (_, offsets) in zip(attention, r.guided, strict=True):
        for head, offset in enumerate(offsets):
            near = torch.exp(-((times - offset - place[..., None]) ** 2) / (2 * r.guide_width**2))  # (batch, query, key)
            misses.append(-(layer[:, head] * near).sum(-1).clamp(min=1e-6).log()[known].mean())
    return torch.stack(misses).mean()


def _speaker_loss(told: Tensor, batch: Batch) -> Tensor:
    """How wrongly the columns that have heard hardly more than the clip tell who speaks: the text's, and the first of the speech.

    Later columns know it from the speech itself. Without this loss the model did not learn to listen to the clip.
    """
    early = batch.is_own & (batch.is_spoken.cumsum(1) <= _EARLY) & (batch.columns[:, 0] > 0)
    return (told - batch.speaker[:, None])[early].square().clamp(max=9).mean()
