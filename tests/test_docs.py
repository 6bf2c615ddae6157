"""What the documentation shows is run, or at least known to the command."""

import re
import shlex
import wave
from pathlib import Path

import pytest
from typer.main import get_command

from inference.cli import app
from inference.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
COMMANDS = get_command(app).commands


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_python_page_runs(capsys, tmp_path, monkeypatch):
    (code,) = blocks(ROOT / "docs/python.md", "python")
    monkeypatch.chdir(tmp_path)
    exec(code)
    assert "float32 44100" in capsys.readouterr().out
    with wave.open("hello.wav") as file:
        assert file.getnframes() > 10_000


def test_no_page_installs_from_an_index_that_does_not_have_it():
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        assert "pip install 'fishserve" not in page.read_text(), page.name


def test_a_page_that_shows_the_command_says_where_it_is():
    """`make install` puts it into .venv/bin, which is on nobody's PATH."""
    for page in PAGES:
        text = page.read_text()
        if re.search(r"^fishserve ", "\n".join(blocks(page, "sh")), re.MULTILINE):
            assert ".venv/bin" in text, page.name


def command_lines():
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                if match := re.search(r"\bfishserve (.*)", line.split(" #")[0]):
                    yield pytest.param(re.split(r" [|<>] ", match[1])[0], id=f"{page.name}: {match[1][:40]}")


@pytest.mark.parametrize("line", list(command_lines()))
def test_every_command_shown_exists_with_its_options(line):
    name, *words = shlex.split(line)
    command = COMMANDS[name]
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {w.split("=")[0] for w in words if re.match(r"--?[a-z]", w)} <= known


def test_every_make_target_shown_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        for block in blocks(page, "sh"):
            assert set(re.findall(r"\bmake ([a-z]+)", block)) <= targets


def test_every_setting_is_on_the_page():
    page = (ROOT / "docs/serve.md").read_text()
    assert {f"FISHSERVE_{name.upper()}" for name in Settings.model_fields} <= set(re.findall(r"FISHSERVE_[A-Z_]+", page))


def test_every_link_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
