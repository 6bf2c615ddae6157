"""`python -m training.pulsed_head`: trains a head whose pulses follow from codes, on the teacher's speech with those pulses.

It begins with a codec whose head already puts a whole number of pulses into each code frame, as minnow's does.
It needs `encoder.pt` of that codec, which `python -m training.unpack` writes, and then the stages `speech` and `codes`.
First the teacher's speech is aligned with that head (pulses.py) and a small recogniser of phonemes learns; both are kept in --work.
Beside the judges, the head then learns from distances that hear single pulses, and from what the recogniser takes its vowels for.
Where there is other speakers' speech (widening.py), it learns theirs, and the teacher's codes go on sounding as the codec of
--hold makes them; judges hear the teacher alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inference.hub import EMBEDDED_VOICE
from inference.model.codec import Codec, LogMel
from inference.model.layout import CODEC_NAME
from inference.model.weights import unfold_weight_norm
from training.discriminators import Adversary
from training.disguise import align_others, aligned_beside, by_pitch, codes_beside, other_speech
from training.encoder import codec_config, load_encoder
from training.export import write_codec
from training.head import UNHEARD, HeadTraining, features_of, quantizer_view, sound, stages, trainable_codec
from training.machine import Machine, in_processes
from training.phases import PhaseReadouts, PhaseTraining, Pulsed
from training.pulses import align_shard
from training.recipe import Recipe
from training.shards import HOPS_PER_FRAME, code_shards, save, speech_shards
from training.speech import PHONEMES, Teacher

STATE = "pulsed_head.pt"
SHARDS = 3
"""1,000 utterances each, about 2 h together."""
PERIODS, SPECTRA = (2, 5), ((2048, 512), (1024, 256), (512, 128), (256, 64))
"""The judges: fewer periods than in the recipe and one spectrum more."""
RATE, JUDGES_RATE, FEATURES_SHARE = 4e-4, 4e-4, 0.3
RAMP = 200
"""Steps over which the judges' weight grows to 1."""
JUDGES_EVERY = 2
"""Steps of the head for one of the judges."""
CLIP = 20.0
MEL, WAVE, PHONEMES_WEIGHT, LIKENESS = 20.0, 2.0, 4.0, 2.0
HELD_MEL, HELD_WAVE, HELD_MAGNITUDE, OTHERS_MEL, OTHERS_WAVE, PHASES_WEIGHT, READOUTS_RATE = 15.0, 20.0, 120.0, 16.0, 10.0, 8.0, 5e-4
"""Where there are other speakers: a step's distances from what the held codec makes of the teacher's codes, and from others' true sound."""
OTHERS_SHARE = 0.6
"""Of others' distances and phases in a step's loss."""
PHASE_SECONDS, OTHER_SHARDS = 600, 1
"""For the first stages to learn others' phases, and how many shards of others' speech a head hears."""
MEET_EVERY, MEET_SECONDS = 30, 90
"""Steps after which a process takes the mean of its weights and those of others that are not older than this."""
WAVE_SPECTRA = ((2048, 512, 140), (1024, 256, 93), (512, 128, 46))
"""FFT size, hop and bins: up to 3 kHz where low harmonics are told apart, else to 4 kHz."""
HELD, HELD_SPECTRA = "held.safetensors", ((2048, 512, 558), (1024, 256, 279), (512, 128, 140), (256, 64, 70), (128, 32, 35))
"""What makes the held codec's sound, in --work; and spectra up to 12 kHz, where the teacher ends."""
BFLOAT16_STAGES = 3 if torch.cpu.get_capabilities().get("avx512_bf16") else 0
"""So many of the head's stages, and the judges, learn in BF16 where the processor multiplies it: 1.3 times as fast, and its error is 30 dB or
more below the sound in each band. In the last two stages it is no faster, and triples the error of log-mels.
"""
EAR_STEPS, EAR_CROPS, EAR_HOPS, EAR_RATE = 2_500, 32, 96, 2e-3


class WaveDistance(nn.Module):
    """Distance of complex spectra, by default below 4 kHz, relative to the true one's: phases count, since codes determine them."""

    def __init__(self, spectra: Sequence[tuple[int, int, int]] = WAVE_SPECTRA) -> None:
        super().__init__()
        self.spectra = spectra
        for i, (n_fft, _, _) in enumerate(spectra):
            self.register_buffer(f"window{i}", torch.hann_window(n_fft))

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """Waveforms (batch, samples) -> scalar."""
        return torch.stack([self._complex_distance(a, b) for a, b in self._seen(made, true)]).mean()

    def with_magnitude(self, made: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """The distance, and that of the magnitudes alone, in nats: so what lies between pulses and harmonics counts as much as they do."""
        distances = [(self._complex_distance(a, b), self._magnitude_distance(a, b)) for a, b in self._seen(made, true)]
        whole, magnitudes = (torch.stack(each).mean() for each in zip(*distances, strict=True))
        return whole, magnitudes

    def _seen(self, *waves: Tensor) -> Iterator[list[Tensor]]:
        for i, (n_fft, hop, bins) in enumerate(self.spectra):
            window = self.get_buffer(f"window{i}")
            yield [torch.stft(w, n_fft, hop, window=window, center=False, return_complex=True)[:, 2:bins] for w in waves]

    @staticmethod
    def _complex_distance(made: Tensor, true: Tensor) -> Tensor:
        scale = true.abs() + 0.3 * true.abs().mean(2, keepdim=True) + 1e-2
        return (_magnitude(made - true) / scale).clamp(max=4).mean()

    @staticmethod
    def _magnitude_distance(made: Tensor, true: Tensor) -> Tensor:
        floor = 0.03 * true.abs().mean(2, keepdim=True) + 3e-3
        return ((_magnitude(made) + floor).log() - (true.abs() + floor).log()).abs().mean()


def _magnitude(spectrum: Tensor) -> Tensor:
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-6)


class PhonemeEar(nn.Module):
    """Names the phoneme of each hop from 7 hops of log-mel, 81 ms: it hears sounds, not words."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.first = nn.Conv1d(160, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1, groups=4)
        self.mixed = nn.Conv1d(width, width, 1)
        self.third = nn.Conv1d(width, width, 3, padding=1, groups=4)
        self.named = nn.Conv1d(width, PHONEMES, 1)

    def forward(self, mel: Tensor) -> tuple[list[Tensor], Tensor]:
        """Log-mels (batch, 160, hops) -> three layers of features, and logits (batch, phonemes, hops)."""
        a = F.gelu(self.first((mel + 5) / 3))
        b = a + F.gelu(self.mixed(F.gelu(self.second(a))))
        c = b + F.gelu(self.third(b))
        return [a, b, c], self.named(c)

    def distance(self, made: Tensor, true: Tensor) -> Tensor:
        """How differently it hears two log-mels: the divergence of what it names, and the features' distance; a scalar."""
        (features, logits), (wanted, right) = self(made), self(true)
        divergence = (right.softmax(1) * (right.log_softmax(1) - logits.log_softmax(1))).sum(1).mean()
        return divergence + torch.stack([(f - w).abs().mean() for f, w in zip(features, wanted, strict=True)]).sum()


def train_ear(recipe: Recipe, steps: int = EAR_STEPS) -> PhonemeEar:
    """A `PhonemeEar` taught by the durations of the teacher and of others, three minutes of a core; kept in `phoneme_ear.pt`."""
    ear, file = PhonemeEar(), recipe.folder / "phoneme_ear.pt"
    if not file.exists():
        shards = [*speech_shards(recipe)[-SHARDS:], *other_speech(recipe)]
        spoken = [(u["mel"], u["phonemes"]) for shard in shards for u in torch.load(shard, weights_only=True)]
        mels, phonemes = torch.cat([mel for mel, _ in spoken], 1), torch.cat([named for _, named in spoken])
        optimiser = torch.optim.AdamW(ear.parameters(), EAR_RATE, weight_decay=1e-2)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = EAR_RATE * (1 - step / steps) + 1e-5
            starts = torch.randint(0, len(phonemes) - EAR_HOPS, (EAR_CROPS,)).tolist()
            mel = torch.stack([mels[:, s : s + EAR_HOPS] for s in starts]).float()
            tilt = torch.linspace(-1, 1, 160)[:, None] * torch.randn(EAR_CROPS, 1, 1) / 2 + torch.randn(EAR_CROPS, 1, 1) / 2
            hiss = torch.randn_like(mel) * 0.35 * torch.rand(EAR_CROPS, 1, 1)
            named = torch.stack([phonemes[s : s + EAR_HOPS] for s in starts]).long()
            loss = F.cross_entropy(ear(mel + tilt + hiss)[1], named)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        save(file, ear.state_dict())
    ear.load_state_dict(torch.load(file, weights_only=True))
    return ear.requires_grad_(False)


class PulsedHeadTraining(HeadTraining):
    """A run whose state is `pulsed_head.pt`: its pulses are those of the aligned speech, which another head's are not.

    Where there is speech of other speakers (widening.py), half of a step is theirs, and readouts go on teaching the head where pulses are.
    The teacher's half is then to sound as the held codec makes it, and judges compare it with the true sound.

    With several processes, each trains on its own crops, and takes the mean of its weights and the others' now and then: nobody waits
    for another. Process 0 writes the state.
    """

    def __init__(self, recipe: Recipe, machine: Machine, process: int) -> None:
        self._ear, self._process = train_ear(recipe), process
        self.readouts = PhaseReadouts.of(recipe.head.channels)
        if other_speech(recipe):  # without others the readouts learn nothing, and `prepare` takes them for taught
            self.kept = (*self.kept, "readouts")
            self._held, _ = trainable_codec(recipe)
            self._held.load_state_dict(unfold_weight_norm(load_file(recipe.folder / HELD)), strict=False)  # its encoder is the recipe's
            self._held.requires_grad_(False)
        super().__init__(recipe, machine)
        torch.manual_seed(self.r.seed + self.steps + 1_000_000 * process)
        self.against.param_groups[0]["lr"] = JUDGES_RATE
        self._wave, self._mel, self._begun = WaveDistance(), LogMel(160), self.steps
        self._whole_wave = WaveDistance(HELD_SPECTRA)
        self.reading = torch.optim.AdamW(self.readouts.parameters(), READOUTS_RATE)
        self.optimiser.param_groups[1]["share"] = FEATURES_SHARE

    @property
    def _file(self) -> Path:
        return self.recipe.folder / STATE

    def _judges(self) -> Adversary:
        return Adversary(self.r.adversary_width, PERIODS, SPECTRA)

    def _audio(self) -> tuple[Tensor, Tensor]:
        others = [path for shard in other_speech(self.recipe) if (path := aligned_beside(shard)).exists()]
        self.speech = [Pulsed.of(aligned_shards(self.recipe)), *([Pulsed.of(others)] if others else [])]
        return self.speech[0].wave, self.speech[0].codes

    def run(self) -> None:
        """Train for the recipe's seconds, whatever earlier runs had, at a rate that falls to a twentieth."""
        start, due = self.machine.clock(), self.recipe.checkpoint_seconds
        while (elapsed := self.machine.clock() - start) < self.r.seconds:
            loss = self._step(0.05 + 0.95 * (1 + math.cos(math.pi * elapsed / self.r.seconds)) / 2)
            self.steps += 1
            if self.machine.processes > 1 and self.steps % MEET_EVERY == 0:
                self._meet()
            if self._process == 0 and elapsed > due:
                due += self.recipe.checkpoint_seconds
                print(f"{elapsed:.0f} s step {self.steps} loss {loss:.3f}", flush=True)
                self._save(self.seconds + elapsed)
        if self._process == 0:
            self._save(self.seconds + elapsed)

    def _step(self, fall: float) -> float:
        n, crop, head = self.r.batch, self.r.crop, self.codec.head
        drawn = [(speech, *speech.drawn(n, crop, self.r)) for speech in self.speech]
        codes, true = (torch.cat(x) for x in zip(*((codes, s.wave[at].flatten(1).float() / 32768) for s, codes, at in drawn), strict=True))
        features = features_of(self.codec, self.fsq, codes)
        outputs = list(stages(head, features, crop * HOPS_PER_FRAME, BFLOAT16_STAGES))
        made, true = sound(head, outputs[-1])[:, UNHEARD:], true[:, UNHEARD:]
        if len(self.speech) == 1:
            loss = self._against_judges(made, true)
        else:
            loss = self._as_held(codes[:n], made[:n]) + self._judged(made[:n], true[:n])
            last, now, voiced = (
                torch.cat(x) for x in zip(*((s.counts[at - 1], s.counts[at], s.voiced[at]) for s, _, at in drawn), strict=True)
            )
            voiced[:, 0] = False  # its past was cut off inside the head
            phases = self.readouts.loss([x[:, :, 0] for x in outputs[:2]], last, now, voiced)[0]
            loss = loss + OTHERS_SHARE * (self._as_others(made[n:], true[n:]) + PHASES_WEIGHT * phases)
            self.reading.zero_grad()
        self._improve(loss, RATE * min(1, (self.steps - self._begun + 1) / 50) * fall, CLIP)
        if len(self.speech) > 1:
            self.reading.step()
        return loss.item()

    def _as_held(self, codes: Tensor, made: Tensor) -> Tensor:
        """How far what is made of the teacher's codes is from what the held codec makes of them."""
        wanted = self._held_sound(codes)
        wave, magnitude = self._whole_wave.with_magnitude(made, wanted)
        return HELD_MEL * self.mel_distance(made, wanted) + HELD_WAVE * wave + HELD_MAGNITUDE * magnitude

    @torch.no_grad()
    def _held_sound(self, codes: Tensor) -> Tensor:
        features = features_of(self._held, quantizer_view(self._held), codes)
        *_, last = stages(self._held.head, features, self.r.crop * HOPS_PER_FRAME, BFLOAT16_STAGES)
        return sound(self._held.head, last)[:, UNHEARD:]

    def _as_others(self, made: Tensor, true: Tensor) -> Tensor:
        return OTHERS_MEL * self.mel_distance(made, true) + OTHERS_WAVE * self._wave(made, true) + self._heard(made, true)

    def _heard(self, made: Tensor, true: Tensor) -> Tensor:
        return PHONEMES_WEIGHT * self._ear.distance(self._mel(made), self._mel(true))

    def _against_judges(self, made: Tensor, true: Tensor) -> Tensor:
        distance = MEL * self.mel_distance(made, true) + WAVE * self._wave(made, true)
        with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16_STAGES > 0):
            heard = self._heard(made, true)
        return distance + heard + self._judged(made, true)

    def _judged(self, made: Tensor, true: Tensor) -> Tensor:
        """What the judges say, and every other time they learn first."""
        with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16_STAGES > 0):
            if self.steps % JUDGES_EVERY == 0:
                self.against.zero_grad(set_to_none=True)
                self.adversary.loss(true, made).backward()
                self.against.step()
            belief, likeness = self.adversary.deception(true, made)
        self.against_steps += 1
        return min(1.0, self.against_steps / RAMP) * (belief + LIKENESS * likeness)

    @torch.no_grad()
    def _meet(self) -> None:
        weights = [*self.codec.parameters(), *self.adversary.parameters()]
        mine = _met(self.recipe, self._process)
        save(mine, [w.detach() for w in weights])
        others = [path for k in range(self.machine.processes) if (path := _met(self.recipe, k)) != mine and path.exists()]
        fresh = [torch.load(path, weights_only=True) for path in others if time.time() - path.stat().st_mtime < MEET_SECONDS]
        for weight, *theirs in zip(weights, *fresh, strict=True):
            weight.copy_(torch.stack([weight, *theirs]).mean(0))


def _met(recipe: Recipe, process: int) -> Path:
    return recipe.folder / f"pulsed_head_{process}.pt"


def aligned_shards(recipe: Recipe) -> list[Path]:
    """The shards of speech with a head's pulses."""
    return sorted(recipe.folder.glob("aligned_*.pt"))


def codec_of(recipe: Recipe, file: Path) -> tuple[Codec, dict[str, Tensor]]:
    """The codec of a file, and its weights in FP32.

    SystemExit if it holds no codec of the recipe's shape, or if its encoder is not the recipe's, whose codes mean something else.
    """
    codec, weights = loaded(recipe, file)
    check_encoder(recipe, file, weights)
    return codec.eval(), weights


def loaded(recipe: Recipe, file: Path) -> tuple[Codec, dict[str, Tensor]]:
    """As `codec_of`, whatever its encoder."""
    codec = Codec(codec_config(recipe.encoder, recipe.head))
    try:
        weights = {name: tensor.float() for name, tensor in load_file(file).items()}
        codec.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as e:
        raise SystemExit(f"{file} holds no codec of this recipe's shape: {str(e).splitlines()[-1].strip()[:200]}") from None
    return codec, weights


def is_heard(name: str) -> bool:
    """Whether a codec's weight of this name makes sound of codes. The others make codes of sound."""
    return name.startswith(("head.", "quantizer.upsample.")) or ".project_out." in name


def check_encoder(recipe: Recipe, file: Path, weights: Mapping[str, Tensor]) -> None:
    """SystemExit if the encoder of a codec, or of a run's state, is not the recipe's, whose codes mean something else."""
    for name, tensor in load_encoder(recipe).state_dict().items():
        if name in weights and not is_heard(name) and not torch.equal(weights[name].half(), tensor.half()):  # files are FP16
            raise SystemExit(
                f"{file} has another encoder than {recipe.folder / 'encoder.pt'}, whose codes it cannot read: "
                "in an empty folder run `python -m training.unpack`, then `python -m training speech codes`"
            )


def prepare(
    recipe: Recipe, begun: Path, shards: int, ear_steps: int = EAR_STEPS, phase_seconds: float = PHASE_SECONDS, held: Path | None = None
) -> None:
    """Align the first shards of speech with the head of this codec, teach the ear, and the head others' phases; what is there is not made again.

    `held` is the codec whose sound the teacher keeps where there are others (default: `begun`).
    SystemExit if there is no speech, or not the codes of all of it, or no encoder, and as `codec_of`.
    """
    spoken, codes = speech_shards(recipe), code_shards(recipe)
    if not spoken or len(spoken) != len(codes):
        found = f"{recipe.folder} has {len(spoken)} shards of speech and codes of {len(codes)}"
        raise SystemExit(f"{found}: make them with `python -m training.unpack` and `python -m training speech codes`")
    if not (recipe.folder / "encoder.pt").is_file():
        raise SystemExit(f"{recipe.folder} has no encoder.pt: make it with `python -m training.unpack`, and speech and codes anew")
    codec, weights = codec_of(recipe, begun)
    if (state := recipe.folder / STATE).exists():
        check_encoder(recipe, state, torch.load(state, map_location="cpu", weights_only=True)["average"])
    if uncoded := [path.name for path in other_speech(recipe) if not codes_beside(path).exists()]:
        raise SystemExit(f"{recipe.folder} has no codes of {', '.join(uncoded)}: make them with `python -m training.widening`")
    teacher = Teacher(recipe.folder)
    for speech, code in list(zip(spoken, codes, strict=True))[:shards]:
        target = recipe.folder / speech.name.replace("speech", "aligned")
        if not target.exists():
            align_shard(recipe, codec, teacher, speech, code, target)
            print(target.name, flush=True)
    train_ear(recipe, ear_steps)
    if not state.exists():
        save(state, {"average": unfold_weight_norm(weights), "seconds": 0.0, "steps": 0, "against_steps": 0})
    if others := other_speech(recipe)[:OTHER_SHARDS]:
        sounding = {name: tensor for name, tensor in loaded(recipe, held or begun)[1].items() if is_heard(name)}
        save_file(sounding, recipe.folder / HELD)
        if "readouts" not in torch.load(state, map_location="cpu", weights_only=True):
            teach_phases(recipe, phase_seconds)
        elif not all(aligned_beside(shard).exists() for shard in others):  # the state was packed, and this is another folder
            align_others(recipe, OTHER_SHARDS, phase_training(recipe).counts)
    for path in recipe.folder.glob("pulsed_head_*.pt"):  # an earlier run's, whose weights may be of another head
        path.unlink()


def teach_phases(recipe: Recipe, seconds: float) -> None:
    """Let the head of the run's state learn where others' pulses are, and align their sound with the pulses that it then names."""
    training = phase_training(recipe)
    training.run(Pulsed.of(aligned_shards(recipe)), Pulsed.of(align_others(recipe, OTHER_SHARDS, by_pitch)), seconds)
    align_others(recipe, OTHER_SHARDS, training.counts)
    state = torch.load(recipe.folder / STATE, map_location="cpu", weights_only=True)
    kept = {name: state[name] for name in ("adversary", "against", "seconds") if name in state}
    taught = {"average": training.codec.state_dict(), "readouts": training.readouts.state_dict()}
    save(recipe.folder / STATE, kept | taught | {"steps": 0, "against_steps": 0})


def phase_training(recipe: Recipe) -> PhaseTraining:
    """The head of the run's state, and its readouts if it has been taught by any."""
    state = torch.load(recipe.folder / STATE, map_location="cpu", weights_only=True)
    codec, _ = trainable_codec(recipe)
    codec.load_state_dict(state["average"])
    training = PhaseTraining(codec, recipe.head, Machine(step_seconds=recipe.step_seconds))
    if "readouts" in state:
        training.readouts.load_state_dict(state["readouts"])
    return training


def train_pulsed_head(recipe: Recipe, machine: Machine, process: int) -> None:
    """Run one of the processes that train together for `recipe.head.seconds` each. What `prepare` makes must be there."""
    PulsedHeadTraining(recipe, machine, process).run()


def export_pulsed_head(recipe: Recipe) -> Path:
    """Write the average of the weights as a codec, FP16, and return its path."""
    average = torch.load(recipe.folder / STATE, map_location="cpu", weights_only=True)["average"]
    return write_codec(average, recipe.folder)


def main(arguments: list[str] | None = None) -> None:
    """Align, teach the ear, and train."""
    parser = argparse.ArgumentParser(
        prog="python -m training.pulsed_head", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("var/minnow"), help="folder of the recipe's run (default: %(default)s)")
    parser.add_argument(
        "--begin", type=Path, default=EMBEDDED_VOICE / f"{CODEC_NAME}.safetensors",
        help=f"codec to begin with where --work has no {STATE} (default: minnow's)",
    )  # fmt: skip
    parser.add_argument(
        "--hold", type=Path, default=EMBEDDED_VOICE / f"{CODEC_NAME}.safetensors",
        help="codec whose sound the teacher's codes keep where there are other speakers (default: minnow's)",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=3_300, help="seconds of a core for each process (default: %(default)s)")
    parser.add_argument("--shards", type=int, default=SHARDS, help="shards of speech to align (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="cores to train on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for name in ("begin", "hold"):
        if not (file := getattr(options, name)).is_file():
            parser.error(f"--{name}: there is no file {file}")
    for name in ("processes", "shards"):
        if (number := getattr(options, name)) < 1:
            parser.error(f"--{name} is {number}; it must be at least 1")
    if not options.seconds > 0:
        parser.error(f"--seconds is {options.seconds:g}; it must be more than 0")
    if (state := options.work / STATE).exists():
        print(f"the head continues from {state}, not from --begin", flush=True)
    torch.set_num_threads(1)
    recipe = Recipe(options.work)
    recipe = replace(recipe, head=replace(recipe.head, seconds=options.seconds, seed=options.seed))
    prepare(recipe, options.begin, options.shards, held=options.hold)
    in_processes(train_pulsed_head, recipe, Machine(processes=options.processes))
    target = export_pulsed_head(recipe)
    print(f"{target}: try it with FISHSERVE_CODEC={target} fishserve say ...", flush=True)


if __name__ == "__main__":
    main()
