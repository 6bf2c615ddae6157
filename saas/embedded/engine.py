"""The fishserve process of `fishserve saas --embedded`, reachable only over loopback with a private key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from inference.http.keys import Keys
from saas.embedded.processes import Program, free_ports
from saas.settings import Settings

_PATIENCE = 30


def start(folder: Path) -> tuple[Program, dict[str, Any]]:
    """Start the process; return it and the settings to reach it. It loads the checkpoint of FISHSERVE_CHECKPOINT, or the bundled voice."""
    keys = folder / "engine-keys"
    keys.unlink(missing_ok=True)
    key, (port,) = Keys(keys).add("saas"), free_ports(1)
    program = Program(
        "the fishserve that speaks", [sys.executable, "-m", "inference.cli", "serve", "--host", "127.0.0.1", "--port", str(port)],
        folder / "log" / "engine.log", {"FISHSERVE_KEYS_FILE": str(keys), "FISHSERVE_VOICES_DIR": str(folder / "voices")}, patience=_PATIENCE,
    )  # fmt: skip
    return program, {"fishserve_url": f"http://127.0.0.1:{port}", "fishserve_key": SecretStr(key)}


def ready(settings: Settings) -> bool:
    """Whether the engine is ready."""
    try:
        return httpx.get(f"{settings.fishserve_url}/ready", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def model(settings: Settings) -> str:
    """The name of the engine's model; call this once the engine is ready."""
    state = httpx.get(f"{settings.fishserve_url}/ready", timeout=5, trust_env=False).json()
    return str(state["model"])
