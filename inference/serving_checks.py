"""What the commands that serve say before they load a model: who may use the server, and which model speaks."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from inference.errors import RequestError
from inference.settings import Settings


def check_keys(settings: Settings, console: Console) -> None:
    """Warn of a server without keys that other machines reach. Raises RequestError when the keys file holds none."""
    from inference.http.keys import Keys
    from inference.listening import is_loopback

    if settings.keys_file is None:
        if not is_loopback(settings.host):
            console.print(
                f"FISHSERVE_KEYS_FILE is not set: everyone who reaches {settings.host}:{settings.port} can use it.", style="yellow"
            )
    elif not Keys(settings.keys_file).names():
        raise RequestError(f"{settings.keys_file} holds no key; `fishserve keys add NAME` makes one")


def say_what_speaks(checkpoint: Path, console: Console) -> None:
    """Say so when it is the embedded voice, or one with random weights."""
    from inference.hub import EMBEDDED_VOICE
    from inference.model.card import read_card

    if checkpoint == EMBEDDED_VOICE:
        console.print("Using minnow, the bundled voice; for FishSpeech 1.5 name a --checkpoint.")
    elif read_card(checkpoint).random:
        console.print(f"{checkpoint} has random weights: it speaks noise.", style="yellow")
