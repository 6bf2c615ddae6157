"""`make clients`: runs the real clients against a server with minnow, listens to what they heard, and writes the table of docs/clients.md.

`python -m tests.clients.run [NAME...]` runs some of them and leaves the others' results as they are.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from inference.hub import EMBEDDED_VOICE

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
ENVIRONMENTS = ROOT / "var" / "clients"
RESULTS, PAGE = HERE / "results.json", ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- the table of `make clients` -->\n", "<!-- its end -->\n"
NAMES = ("openai", "elevenlabs", "fish", "litellm", "livekit", "pipecat", "wyoming", "open_webui", "node")
MAX_WORD_ERRORS = 0.35
"""The share of words that the recogniser may hear otherwise; at half the speed it is about 1."""
MIN_SECONDS, MAX_SECONDS = 0.2, 0.7
"""Seconds of speech for each word, at minnow's speed."""
LIMIT_SECONDS = 300


def complaint(ear: Any, path: Path, says: str) -> str:
    """What is wrong with a file that should say something; "" for nothing."""
    import jiwer

    from inference.audio.read import read_clip
    from inference.model.config import SAMPLE_RATE
    from training.evaluate import words

    samples = read_clip(path.read_bytes())
    seconds, count = len(samples) / SAMPLE_RATE, len(says.split())
    if not MIN_SECONDS * count < seconds < MAX_SECONDS * count:
        return f"{seconds:.2f} s of sound for {count} words"
    heard = ear.hear(samples)
    return f"heard {heard!r}" if jiwer.wer(words(says), heard or "nothing") > MAX_WORD_ERRORS else ""


def main(names: list[str]) -> int:
    """Run the clients named, or all; 1 when a call failed."""
    import numpy as np

    from tests.inference.server.conftest import Server
    from training.evaluate import Ear

    with tempfile.TemporaryDirectory() as folder:
        voices = Path(folder) / "voices" / "anna"
        voices.mkdir(parents=True)
        np.save(voices / "codes.npy", np.ones((8, 30), int))
        (voices / "text.txt").write_text("what is said")
        with Server(EMBEDDED_VOICE, voices.parent).wait_ready() as server:
            lines = {name: _run(name, server.url, Path(folder) / name) for name in names}
        ear = Ear()
        results = {name: [_judged(line, ear) for line in found] for name, found in lines.items() if found}
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results = {name: results.get(name, known.get(name)) for name in NAMES if name in results or name in known}
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_table(results)
    failed = [line for name in names for line in results.get(name, []) if line["result"] != "passes"]
    for line in failed:
        print(f"{line['client']}: {line['call']}: {line['result']}")
    print(f"{sum(len(results.get(name, [])) for name in names) - len(failed)} passed, {len(failed)} failed")
    return bool(failed)


def _run(name: str, url: str, folder: Path) -> list[dict[str, Any]]:
    """The lines that a client's calls print."""
    home = ENVIRONMENTS / name
    if not (home / ".installed").exists():
        print(f"{name} is not installed; its results stay as they are")
        return []
    folder.mkdir()
    calls = HERE / "calls"
    if name == "node":  # its packages are found from where the script is
        command = ["node", shutil.copy(calls / "node_calls.mjs", home)]
    else:
        command = [home / "bin" / "python", calls / f"{name}_calls.py"]
    print(f"running {name}", flush=True)
    with (folder.parent / f"{name}.log").open("w+b") as log:
        done = subprocess.run(
            [*map(str, command), url, str(folder)], cwd=home, stdout=subprocess.PIPE, stderr=log, timeout=LIMIT_SECONDS, check=False
        )
        log.seek(0)
        said = log.read().decode(errors="replace")
    lines = [json.loads(line) for line in done.stdout.decode().splitlines() if line.startswith('{"client"')]
    if done.returncode or not lines or any("error" in line for line in lines):
        print(said[-3000:])
    if done.returncode:
        lines.append({"client": name, "version": "", "call": "all of it", "error": f"exit code {done.returncode}"})
    return lines


def _judged(line: dict[str, Any], ear: Any) -> dict[str, Any]:
    """A line with its result, and without the paths of its sounds."""
    sounds = line.pop("sounds", [])
    error = line.pop("error", "") or next((c for s in sounds if (c := complaint(ear, Path(s["path"]), s["says"]))), "")
    return {**line, "sounds": len(sounds), "result": error or "passes"}


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """The results as Markdown, a line for each client and version; a result of its own for each call that did not pass."""
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line in (line for lines in results.values() for line in lines):
        rows.setdefault((line["client"], line["version"], line["result"]), []).append(line)
    written = ["| client | what was called | first audio, ms | result |\n| --- | --- | --- | --- |\n"]
    for (client, version, result), lines in rows.items():
        calls = "; ".join(line["call"] for line in lines)
        first = sorted(line["first_audio_ms"] for line in lines if "first_audio_ms" in line)
        written.append(
            f"| {client} {version} | {calls} | {' to '.join(dict.fromkeys(map(str, (first[0], first[-1])))) if first else ''} | {result} |\n"
        )
    return "".join(written)


def write_table(results: dict[str, list[dict[str, Any]]]) -> None:
    """Put the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(NAMES)))
