"""Pronunciation dictionaries as files: JSON, and the Pronunciation Lexicon Specification (PLS 1.0) as far as it has aliases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from inference.errors import RequestError
from inference.text.pronunciation import Rule, checked, rules_from

MAX_FILE_BYTES = 2_000_000
"""More than the longest rules of one dictionary take."""
_NAMESPACE = "http://www.w3.org/2005/01/pronunciation-lexicon"


def read_rules(content: bytes) -> tuple[Rule, ...]:
    """The rules in a file of either format: JSON has a list of rules, or an object with such a list as `rules`. Raises RequestError."""
    if len(content) > MAX_FILE_BYTES:
        raise RequestError(f"the dictionary has {len(content):,} bytes; at most {MAX_FILE_BYTES:,} are read", "file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RequestError("the dictionary is not UTF-8", "file") from None
    if text.lstrip().startswith("<"):
        return _lexemes(text)
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError("the dictionary is neither JSON nor PLS", "file") from None
    return rules_from(found.get("rules") if isinstance(found, dict) else found)


def read_file(path: Path) -> tuple[Rule, ...]:
    """As `read_rules`, from a path. Raises RequestError."""
    try:
        with path.open("rb") as file:
            return read_rules(file.read(MAX_FILE_BYTES + 1))
    except OSError as e:
        raise RequestError(f"{path} cannot be read: {e.strerror or e}") from None


def _lexemes(text: str) -> tuple[Rule, ...]:
    if "<!DOCTYPE" in text:  # without one there are no entities to expand
        raise RequestError("the PLS file has a DOCTYPE; dictionaries are read without one", "file")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        raise RequestError("the dictionary begins as XML does, and is not well-formed", "file") from None
    rules = []
    for lexeme in root.iterfind("{*}lexeme"):
        aliases = [alias.text or "" for alias in lexeme.iterfind("{*}alias")]
        if lexeme.find("{*}phoneme") is not None:
            raise RequestError("the PLS file has phonemes, which this model cannot read; write each as an <alias>", "file")
        for grapheme in lexeme.iterfind("{*}grapheme"):
            rules += [Rule((grapheme.text or "").strip(), alias.strip()) for alias in aliases[:1]]
    if not rules:
        raise RequestError("the PLS file has no <lexeme> with a <grapheme> and an <alias>", "file")
    return checked(rules)


def as_pls(rules: tuple[Rule, ...]) -> str:
    """The rules as a PLS file, which has no place for languages and voices of single rules."""
    lexemes = "\n".join(f"  <lexeme><grapheme>{escape(r.term)}</grapheme><alias>{escape(r.replacement)}</alias></lexeme>" for r in rules)
    head = f'<lexicon version="1.0" xmlns="{_NAMESPACE}" alphabet="ipa" xml:lang="en">'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}\n{lexemes}\n</lexicon>\n'
