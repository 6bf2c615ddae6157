"""`python -m training.widening`: teaches a codec that was trained on one speaker to code others, too.

In --work it needs the codec's `encoder.pt`, which `python -m training.unpack` writes, and the teacher's `speech` and `codes`. It speaks as
other speakers (disguise.py). Then it trains the encoder to keep what the teacher's sound is coded as, and to code theirs so that a mel decoder
can tell them; their codes follow, then a new `encoder.pt` and a codec with it. `python -m training.pulsed_head --begin CODEC` lets its head learn
their sound, and `python -m training.following` the language model to follow clips.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inference.hub import EMBEDDED_VOICE
from inference.model.layout import CODEC_NAME
from training.codes import encode
from training.disguise import EACH, PER_SHARD, codes_beside, other_speech, speak_disguised, speaker
from training.encoder import MelAutoencoder, crops, encoder_loss, load_encoder, score
from training.export import write_codec
from training.fsq import digits
from training.machine import Machine, in_processes
from training.pulsed_head import codec_of, is_heard
from training.recipe import Recipe
from training.recordings import recorded
from training.shards import code_shards, held_out, save, speech_shards, utterances
from training.speech import Utterance

SHARDS = 3
"""Of other speakers' speech."""
READOUT_SECONDS, SECONDS = 200, 420
"""First for a mel decoder and a readout of phonemes, which a codec's file does not hold; then for the encoder together with them."""
RATE, WARM_UP = 2e-3, 50
SAME_WEIGHT = 0.3
"""Of the distance between the teacher's digits and what they were."""
TEACHER_SHARDS = 2
HELD = 40


class Widening:
    """An encoder that learns other speakers, and a copy of it from before."""

    def __init__(self, recipe: Recipe, machine: Machine) -> None:
        self.recipe, self.machine, self.r = recipe, machine, recipe.encoder
        torch.manual_seed(self.r.seed)
        self.before, self.model = load_encoder(recipe), load_encoder(recipe).requires_grad_(True)
        teachers = [u for path in speech_shards(recipe)[-TEACHER_SHARDS:] for u in utterances(path)]
        others = [u for path in other_speech(recipe) for *_, u in said(path)]
        self.held = {"teacher": utterances(held_out(recipe, "validation"))[:HELD], "others": others[-HELD:]}
        self.spoken = [
            (torch.cat([u.mel for u in group], 1), torch.cat([u.phonemes for u in group])) for group in (teachers, others[:-HELD])
        ]
        with torch.no_grad():
            self.model.mel.bias.copy_(self.spoken[0][0].float().mean(1))

    def run(self, readout_seconds: float, seconds: float) -> MelAutoencoder:
        """Train the readouts alone, then everything."""
        readouts = [*self.model.mel.parameters(), *self.model.phoneme.parameters(), *self.model.quantizer.upsample.parameters()]
        readouts += [p for rvq in self.model.quantizer.residual_fsq.rvqs for p in rvq.project_out.parameters()]
        for parameters, given in ((readouts, readout_seconds), (list(self.model.parameters()), seconds)):
            self._train(parameters, given)
            for name, held in self.held.items():
                print(f"{name}: {score(self.model, held)}, digits as before {self.kept(held):.3f}", flush=True)
        return self.model.eval()

    @torch.no_grad()
    def kept(self, held: list[Utterance]) -> float:
        """The share of digits that are what they were."""
        now, before = ([digits(c.codes.long()) for c in encode(model.eval(), held)] for model in (self.model, self.before))
        return float((torch.cat(now) == torch.cat(before)).float().mean())

    def _train(self, parameters: list[nn.Parameter], seconds: float) -> None:
        self.model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimiser = torch.optim.AdamW(parameters, RATE, betas=(0.8, 0.98), weight_decay=1e-4)
        start, step = self.machine.clock(), 0
        while (elapsed := self.machine.clock() - start) < seconds:
            fall = 0.03 + 0.97 * (1 + math.cos(math.pi * elapsed / seconds)) / 2
            optimiser.param_groups[0]["lr"] = RATE * min(1, (step + 1) / WARM_UP) * fall
            loss = self._loss()
            self.model.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            step += 1

    def _loss(self) -> Tensor:
        (teachers, spoken), (others, said_by_others) = (crops(mel, phonemes, self.r) for mel, phonemes in self.spoken)
        loss = encoder_loss(self.model.train(), torch.cat((teachers, others)), torch.cat((spoken, said_by_others)), self.r)
        with torch.no_grad():
            was = self._bounded(self.before, teachers)
        return loss + SAME_WEIGHT * (self._bounded(self.model, teachers) - was)[:, 2:].abs().mean()

    def _bounded(self, model: MelAutoencoder, mel: Tensor) -> Tensor:
        return model.fsq.bounded(model.quantizer.reduce(model.backbone(mel)).transpose(1, 2))


def said(path: Path) -> list[tuple[int, int, Utterance]]:
    """A shard of other speakers' speech: who speaks, with which seed, and what."""
    return [(item.pop("speaker"), item.pop("seed"), Utterance(**item)) for item in torch.load(path, weights_only=True)]


def code_others(recipe: Recipe, model: MelAutoencoder) -> None:
    """Write the codes of all other speakers' speech, in place of those of an earlier encoder."""
    for path in other_speech(recipe):
        spoken, target = said(path), codes_beside(path)
        clean = encode(model, [u for *_, u in spoken])
        clips = encode(model, [recorded(u, number, seed) for number, seed, u in spoken])
        found = zip(spoken, clean, clips, strict=True)
        save(
            target,
            [{"speaker": n, "readout": speaker(n).readout, "recorded": clip.codes} | vars(c) for (n, _, _), c, clip in found],
        )
        print(target.name, flush=True)


def write(recipe: Recipe, model: MelAutoencoder, begun: Path) -> Path:
    """Write the encoder as `encoder.pt`, and the codec that it was of with it in place of its own. The codec's path."""
    encoder = model.state_dict()
    for path in recipe.folder.glob("strangers_*.pt"):  # their codes are of the encoder before
        path.unlink()
    codec = write_codec({n: t if is_heard(n) else encoder[n] for n, t in load_file(begun).items()}, recipe.folder)
    save(recipe.folder / "encoder.pt", {"model": encoder, "steps": 0})
    return codec


def main(arguments: list[str] | None = None) -> None:
    """Speak, train, code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.widening", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("var/minnow"), help="folder of the recipe's run (default: %(default)s)")
    parser.add_argument(
        "--begin",
        type=Path,
        default=EMBEDDED_VOICE / f"{CODEC_NAME}.safetensors",
        help="the codec whose encoder `encoder.pt` is (default: minnow's)",
    )
    parser.add_argument(
        "--shards", type=int, default=SHARDS,
        help=f"shards of {PER_SHARD} speakers, who say {EACH} texts each (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help=f"seconds of a core for the encoder, after {READOUT_SECONDS} for what reads its codes; "
        "0: it knows others and stays as it is (default: %(default)s)",
    )
    parser.add_argument("--processes", type=int, default=1, help="cores to speak on (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("shards", "processes"):
        if (number := getattr(options, name)) < 1:
            parser.error(f"--{name} is {number}; it must be at least 1")
    if not options.seconds >= 0:
        parser.error(f"--seconds is {options.seconds:g}; it must be at least 0")
    recipe, machine = Recipe(options.work), Machine(processes=options.processes)
    if not options.begin.is_file():
        parser.error(f"--begin: there is no file {options.begin}")
    needed = {
        "encoder.pt": (recipe.folder / "encoder.pt").exists(),
        "shards of speech": speech_shards(recipe),
        "shards of codes": code_shards(recipe),
    }
    if lacks := [name for name, there in needed.items() if not there]:
        raise SystemExit(f"{options.work} has no {lacks[0]}: run `python -m training.unpack`, then `python -m training speech codes`")
    codec_of(recipe, options.begin)
    for shard in other_speech(recipe):
        if (most := max(Counter(number for number, *_ in said(shard)).values())) < EACH:
            raise SystemExit(f"{shard} has {most} utterances a speaker, and {EACH} are wanted: delete it, and it is spoken again")
    in_processes(partial(speak_disguised, shards=options.shards), recipe, machine)
    torch.set_num_threads(1)
    if not options.seconds:
        code_others(recipe, load_encoder(recipe))
        return
    model = Widening(recipe, machine).run(READOUT_SECONDS, options.seconds)
    code_others(recipe, model)
    codec = write(recipe, model, options.begin)
    print(f"{codec}: its head learns the others' sound by `python -m training.pulsed_head --begin {codec}`", flush=True)


if __name__ == "__main__":
    main()
