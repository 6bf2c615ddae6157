"""`python -m training.strangers --kokoro DIR`: clips of Kokoro's voices, so that minnow's language model knows more than disguises.

--work needs `encoder.pt` and other speakers (`python -m training.widening`). The voices, and mixtures of two of them, say some sentences
each; the teacher's voice and those that `python -m training.cloning` measures with are left out. Nobody learns to speak like them: behind
a clip of theirs the language model learns what those disguised speakers say whose pitch is nearest.
"""

from __future__ import annotations

import argparse
import math
import random
from functools import partial
from pathlib import Path

import numpy as np
import soxr
import torch

from inference.model.codec import HOP, LogMel
from inference.model.config import SAMPLE_RATE
from training.cloning import VOICES
from training.codes import encode
from training.disguise import PITCH_SCALE
from training.encoder import load_encoder
from training.kokoro import KOKORO_RATE, TEACHER_VOICE, Kokoro, kokoro_folder
from training.machine import Machine, in_processes
from training.pitch import median_pitch
from training.recipe import Recipe
from training.shards import HOPS_PER_FRAME, read_corpus, save
from training.speech import Utterance, unaligned

SHARDS, PER_SHARD = 10, 8
"""Speakers."""
SENTENCES = 5
"""Of a speaker."""
PACE = (0.88, 1.15)
MIN_BYTES, MAX_BYTES = 30, 110
"""Of a sentence."""


def voices(folder: Path, count: int) -> list[str]:
    """The voices that may be heard, then pairs of them."""
    alone = single_voices(folder)
    draw = random.Random(0)
    found = draw.sample(alone, len(alone))
    while len(found) < count:
        found.append("+".join(draw.sample(alone, 2)))
    return found[:count]


def single_voices(folder: Path) -> list[str]:
    """All of Kokoro's but the teacher's and those that cloning is measured with."""
    return sorted(file.stem for file in (folder / "voices").glob("*.bin") if file.stem not in (*VOICES, TEACHER_VOICE))


def utterance(text: str, sound: np.ndarray, mel: LogMel) -> Utterance:
    """Samples at 24 kHz -> what the encoder makes codes of."""
    wave = torch.from_numpy(soxr.resample(sound, KOKORO_RATE, SAMPLE_RATE))
    hops = HOPS_PER_FRAME * (len(wave) // (HOP * HOPS_PER_FRAME))
    return unaligned(text, mel(wave[None, : hops * HOP])[0].half())


def speak_strangers(recipe: Recipe, machine: Machine, process: int, folder: Path, shards: int) -> None:
    """Write this process's share of the missing shards of strangers."""
    torch.set_num_threads(1)
    kokoro, encoder, mel = Kokoro(folder), load_encoder(recipe).eval(), LogMel(160)
    texts = [text for text in read_corpus(recipe).train if MIN_BYTES <= len(text.encode()) <= MAX_BYTES]
    teacher = median_pitch(np.concatenate([kokoro.speak(TEACHER_VOICE, text) for text in texts[:SENTENCES]]), KOKORO_RATE)
    everyone = list(enumerate(voices(folder, shards * PER_SHARD)))
    for shard in range(shards)[process :: machine.processes]:
        path = recipe.folder / f"strangers_{shard:04d}.pt"
        if path.exists():
            continue
        said = []
        for number, voice in everyone[shard * PER_SHARD :][:PER_SHARD]:
            draw = random.Random(number)
            pace, chosen = draw.uniform(*PACE), draw.sample(texts, SENTENCES)
            sounds = [kokoro.speak(voice, text, pace) for text in chosen]
            pitch = median_pitch(np.concatenate(sounds), KOKORO_RATE)
            if not pitch:  # it whispers
                continue
            coded = encode(encoder, [utterance(text, sound, mel) for text, sound in zip(chosen, sounds, strict=True)])
            said.append({"pitch": math.log(pitch / teacher) / PITCH_SCALE, "clip": [(c.text, c.codes) for c in coded]})
        save(path, said)
        print(path.name, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Speak, code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.strangers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("var/minnow"), help="folder of the recipe's run (default: %(default)s)")
    parser.add_argument("--kokoro", type=kokoro_folder, required=True, help="what `training.kokoro` needs")
    parser.add_argument(
        "--shards",
        type=int,
        default=SHARDS,
        help=f"shards of {PER_SHARD} speakers, who say {SENTENCES} sentences each (default: %(default)s)",
    )
    parser.add_argument("--processes", type=int, default=1, help="cores to speak on (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("shards", "processes"):
        if (number := getattr(options, name)) < 1:
            parser.error(f"--{name} is {number}; it must be at least 1")
    if (found := len(single_voices(options.kokoro))) < 2:
        parser.error(f"--kokoro: {options.kokoro / 'voices'} has {found} voices that may be heard; at least 2 are needed")
    recipe = Recipe(options.work)
    if not (recipe.folder / "encoder.pt").exists() or not list(recipe.folder.glob("other_codes_*.pt")):
        raise SystemExit(f"{options.work} has no encoder.pt or no codes of other speakers: run `python -m training.widening`")
    in_processes(partial(speak_strangers, folder=options.kokoro, shards=options.shards), recipe, Machine(processes=options.processes))


if __name__ == "__main__":
    main()
