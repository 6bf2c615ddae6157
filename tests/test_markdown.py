"""How the documentation is written: short lines, one sentence each, and none of the phrases that read as translated."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for folder in (".", "docs", "docs/decisions", "sql", "training") for page in (ROOT / folder).glob("*.md"))
MAX_LINE = 140
BANNED = re.compile(r"\b(with commas between|of one's own|is had|be had|goes on|in a process of (?:its|their) own)\b")


def prose(page):
    """Numbered lines outside code, tables and HTML."""
    code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if re.match(r"\s*(```|~~~)", line):
            code = not code
        elif not code and not re.match(r"\s*[|<]", line):
            yield number, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_is_too_long(page):
    assert [number for number, line in prose(page) if len(line) > MAX_LINE] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_phrase_reads_as_translated(page):
    assert [(number, found[0]) for number, line in enumerate(page.read_text().splitlines(), 1) if (found := BANNED.search(line))] == []
