"""Reads what a checkpoint's model card (README.md with YAML front matter) says about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

OFFICIAL_LICENCE = "CC BY-NC-SA 4.0, non-commercial"


@dataclass(frozen=True)
class Card:
    """`name` and `licence` as the card states them, None when it does not. `random` weights speak noise."""

    name: str | None
    licence: str | None
    random: bool


def read_card(checkpoint: Path) -> Card:
    """The card of a checkpoint directory; an empty one when there is none."""
    try:
        text = (checkpoint / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Card(None, None, random=False)
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    lines = front[1] if front else ""
    licence = re.search(r"^license:\s*(\S.*)$", lines, re.MULTILINE)
    name = re.search(r"^# (.*\S)", text, re.MULTILINE)
    return Card(name[1] if name else None, licence[1].strip() if licence else None, random="random-weights" in lines)
