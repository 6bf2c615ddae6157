"""`python -m training.sound`: words and quality of the teacher, of its codes through the codec alone, and of speech from text.

The first row is what can be reached, the second what the codec leaves of it, the third what people hear. Needs the held-out sentences of
the stages `speech` and `codes` (`--minutes 0` makes these alone), distillmos (README.md), and for DNSMOS librosa and
`pip install --no-deps speechmos==0.0.1.1`. With --show, and matplotlib, it also keeps some sentences as MP3 and draws the spectrograms of
the first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import jiwer
import numpy as np
import torch

from inference import SpeechEngine
from inference.audio.encode import Encoder
from inference.hub import EMBEDDED_VOICE
from inference.model import checkpoint
from inference.model.config import SAMPLE_RATE
from training.evaluate import HEARING_RATE, Ear, as_heard, distill_mos, needs, speak, words
from training.recipe import Recipe
from training.shards import coded, held_out, held_out_codes, read_corpus, utterances

SHOWN = 5
"""Sentences, spread over their kinds, that are kept as sound."""
Waves = list[np.ndarray]


def spoken_three_ways(recipe: Recipe, voice: Path, texts: Sequence[str]) -> dict[str, Waves]:
    """The held-out sentences as the teacher says them, from the teacher's codes, and from text; 44.1 kHz, float32."""
    taught = [u.wave for u in utterances(held_out(recipe, "test"))]
    teacher = [wave.numpy().astype(np.float32) / 32768 for wave in taught if wave is not None]
    codec = checkpoint.load(voice, torch.device("cpu"), copies=recipe.folder / "copies").codec
    with torch.no_grad():
        alone = [codec.decode(u.codes.long().T[None])[0].float().numpy() for u in coded(held_out_codes(recipe, "test"))]
    with SpeechEngine.load(voice, device="cpu", copies=recipe.folder / "copies") as engine:
        speech, _ = speak(engine, texts)
    return {"teacher": teacher, "codec alone": alone, "speech": speech}


def dns_mos(waves: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean DNSMOS (1 to 5) of waveforms at 44.1 kHz, each brought to the same peak: P.835 overall, and P.808."""
    from speechmos import dnsmos

    found = [dnsmos.run((heard / np.abs(heard).max() * 0.9).clip(-1, 1), HEARING_RATE) for heard in map(as_heard, waves)]
    return {name: round(float(np.mean([one[key] for one in found])), 3) for name, key in (("overall", "ovrl_mos"), ("p808", "p808_mos"))}


def draw(waves: dict[str, np.ndarray], title: str, path: Path) -> None:
    """A picture of the spectrograms of one sentence, one below the other: 0 to 8 kHz, 80 dB."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(waves), sharex=True, figsize=(11, 7), layout="constrained")
    for axis, (name, wave) in zip(axes, waves.items(), strict=True):
        power, *_, image = axis.specgram(wave, NFFT=1024, noverlap=896, Fs=SAMPLE_RATE, cmap="magma")
        loudest = 10 * np.log10(power.max())
        image.set_clim(loudest - 80, loudest)
        axis.set(ylim=(0, 8000), ylabel="Hz", title=name)
    axes[-1].set_xlabel("seconds")
    figure.suptitle(title)
    figure.savefig(path, dpi=90)


def _mp3(waves: Sequence[np.ndarray]) -> bytes:
    """Waveforms one after the other, with pauses."""
    encoder, pause = Encoder("mp3", SAMPLE_RATE), np.zeros(SAMPLE_RATE // 2, np.float32)
    content = b"".join(encoder.encode(np.concatenate((wave.astype(np.float32), pause))) for wave in waves) + encoder.finish()
    encoder.close()
    return content


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m training.sound", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("var/minnow"), help="folder of the run (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=EMBEDDED_VOICE, help="voice to measure (default: the minnow of this package)")
    parser.add_argument("--show", type=Path, metavar="DIR", help="folder for spectrograms of the first sentence, and for sound")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    needs("distillmos", "speechmos", "librosa", *(["matplotlib"] if options.show else []))
    recipe = Recipe(options.work)
    if missing := [path for path in (held_out(recipe, "test"), held_out_codes(recipe, "test")) if not path.exists()]:
        stages = "`python -m training speech --minutes 0` and `python -m training codes --minutes 0`"
        raise SystemExit(f"{options.work} has no {missing[0].name}: make it with `python -m training.unpack`, {stages}")
    texts = [t.text for t in read_corpus(recipe).test]
    ways, ear, rows = spoken_three_ways(recipe, options.checkpoint, texts), Ear(), {}
    for name, waves in ways.items():
        errors = jiwer.wer([words(t) for t in texts], [ear.hear(wave) for wave in waves])
        rows[name] = {"word_errors": round(errors, 4), "distill_mos": round(distill_mos(waves), 3), "dnsmos": dns_mos(waves)}
        print(name, rows[name], flush=True)
    options.out.write_text(json.dumps({"sentences": len(texts), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    if options.show:
        options.show.mkdir(parents=True, exist_ok=True)
        draw({name: waves[0] for name, waves in ways.items()}, texts[0], options.show / "spectrograms.png")
        for name, waves in ways.items():
            (options.show / f"{name.replace(' ', '_')}.mp3").write_bytes(_mp3(waves[:: len(texts) // SHOWN]))


if __name__ == "__main__":
    main()
