"""`python -m training.short_texts`: how often letters, capitals and very short sentences are understood.

Each text is spoken with several seeds and heard by the recogniser of `training.evaluate`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from inference import SpeechEngine, SpeechRequest
from inference.hub import EMBEDDED_VOICE
from training.evaluate import Ear, words

SEEDS = 5
SENTENCE = "They said that the {} was late again."
NAMES = {
    "FBI": "eff bee eye",
    "API": "ay pee eye",
    "USB": "you ess bee",
    "BBC": "bee bee see",
    "TV": "tee vee",
    "PDF": "pee dee eff",
    "ID": "eye dee",
}
CASES = {
    "letters' names": [(SENTENCE.format(name), letters) for letters, name in NAMES.items()],
    "letters' names, with hyphens": [(SENTENCE.format(name.replace(" ", "-")), letters) for letters, name in NAMES.items()],
    "letters": [(SENTENCE.format(letters), letters) for letters in NAMES],
    "two in a sentence": [("The CEO of IBM is here.", "CEO of IBM")],
    "a sentence of capitals": [("THIS IS ALL CAPS.", "this is all caps")],
    "a word of capitals": [(SENTENCE.format("NASA"), "NASA")],
    "No.": [("No.", "no")],
    "No. before a sentence": [("No. They walked along the river.", "no they walked along the river")],
    "Oh.": [("Oh.", "oh")],
    "Oh. before a sentence": [("Oh. They walked along the river.", "oh they walked along the river")],
    "Hmm. before a sentence": [("Hmm. They walked along the river.", "They walked along the river")],
}
"""By name, what is given and what the recogniser should write; what it writes beside that does not matter."""


def is_right(wanted: str, heard: str) -> bool:
    """Whether some words are in what was heard, one after the other, both as `words` writes them."""
    return f" {words(wanted)} " in f" {words(heard)} "


def measure(checkpoint: Path) -> dict[str, dict[str, object]]:
    """By name of the case, in how many of its takes it was right, of how many, and what was heard in the others."""
    ear, found = Ear(), {}
    with SpeechEngine.load(checkpoint, device="cpu") as engine:
        for name, texts in CASES.items():
            takes = [
                (wanted, ear.hear(engine.synthesize(SpeechRequest(text, seed=seed)).samples))
                for text, wanted in texts
                for seed in range(SEEDS)
            ]
            wrong = [heard for wanted, heard in takes if not is_right(wanted, heard)]
            found[name] = {"right": len(takes) - len(wrong), "of": len(takes), "otherwise": wrong}
            print(name, found[name], flush=True)
    return found


def main() -> None:
    """Speak, hear, and write a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m training.short_texts", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=EMBEDDED_VOICE, help="whose voice (default: minnow)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    options.out.write_text(json.dumps(measure(options.checkpoint), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
