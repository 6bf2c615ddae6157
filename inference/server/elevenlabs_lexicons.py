"""ElevenLabs' routes for pronunciation dictionaries, with alias rules.

A dictionary's id is its name, and it has its latest version alone.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, UploadFile
from fastapi.responses import Response
from pydantic import Field

from inference.errors import DictionaryNotFound, RequestError
from inference.server.request_bodies import Lenient
from inference.server.state import AppState
from inference.text.pronunciation import MAX_RULES, Rule
from inference.voices.dictionaries import Dictionary
from inference.voices.lexicon import MAX_FILE_BYTES, as_pls, read_rules

router = APIRouter(prefix="/v1/pronunciation-dictionaries", tags=["ElevenLabs"])


class RuleBody(Lenient):
    """A rule. `language` and `voice` are this server's own: the rule then holds for them alone."""

    type: Literal["alias", "phoneme"] = "alias"
    string_to_replace: str
    alias: str = ""
    case_sensitive: bool | None = None
    word_boundaries: bool = True
    language: str | None = None
    voice: str | None = None

    def rule(self) -> Rule:
        """The rule. Raises RequestError for one of phonemes, and one that holds inside of words."""
        if self.type == "phoneme":
            raise RequestError(
                f"the rule for {self.string_to_replace[:40]!r} has a phoneme, which this model cannot read; send an alias", "rules"
            )
        if not self.word_boundaries:
            raise RequestError(
                f"the rule for {self.string_to_replace[:40]!r} holds inside of words; this server replaces whole words", "rules"
            )
        return Rule(self.string_to_replace.strip(), self.alias, self.language, self.voice, self.case_sensitive)


Rules = Annotated[list[RuleBody], Field(max_length=MAX_RULES)]


class RulesBody(Lenient):
    """Rules for a dictionary."""

    rules: Rules


class NewBody(RulesBody):
    """A new dictionary."""

    name: str
    description: str = ""


class TermsBody(Lenient):
    """The terms whose rules are removed."""

    rule_strings: list[str]


class ChangeBody(Lenient):
    """What may change of a dictionary besides its rules."""

    archived: bool = False


@router.post("/add-from-rules")
async def add_from_rules(body: NewBody, state: AppState) -> dict[str, Any]:
    """Add a dictionary."""
    rules = [rule.rule() for rule in body.rules]
    return _added(await asyncio.to_thread(state.dictionaries.add, body.name, rules, body.description))


@router.post("/add-from-file")
async def add_from_file(
    state: AppState,
    name: Annotated[str, Form()],
    file: Annotated[UploadFile | None, File()] = None,
    description: Annotated[str, Form()] = "",
) -> dict[str, Any]:
    """Add a dictionary from a PLS file with aliases, or from JSON."""
    content = await file.read(MAX_FILE_BYTES + 1) if file else None

    def add() -> Dictionary:
        return state.dictionaries.add(name, read_rules(content) if content is not None else (), description)

    return _added(await asyncio.to_thread(add))


@router.get("")
@router.get("/", include_in_schema=False)
async def dictionaries(state: AppState) -> dict[str, Any]:
    """All dictionaries, on one page."""

    def found() -> list[dict[str, Any]]:
        shown = []
        for name in state.dictionaries.names():
            try:
                shown.append(_metadata(state.dictionaries.get(name)))
            except DictionaryNotFound:  # damaged, or deleted meanwhile
                continue
        return shown

    return {"pronunciation_dictionaries": await asyncio.to_thread(found), "next_cursor": None, "has_more": False}


@router.get("/{dictionary_id}")
async def dictionary(dictionary_id: str, state: AppState) -> dict[str, Any]:
    """One dictionary, with its rules."""
    found = state.dictionaries.get(dictionary_id)
    return {**_metadata(found), "rules": [_rule(rule) for rule in found.rules]}


@router.patch("/{dictionary_id}")
async def change(dictionary_id: str, body: ChangeBody, state: AppState) -> dict[str, Any]:
    """`archived: true` deletes the dictionary: this server keeps no archive."""
    found = state.dictionaries.get(dictionary_id)
    if body.archived:
        await asyncio.to_thread(state.dictionaries.delete, dictionary_id)
    return {**_metadata(found), "archived_time_unix": int(time.time()) if body.archived else None}


@router.delete("/{dictionary_id}")
async def delete(dictionary_id: str, state: AppState) -> dict[str, str]:
    """Delete a dictionary, which ElevenLabs' API cannot."""
    await asyncio.to_thread(state.dictionaries.delete, dictionary_id)
    return {"status": "ok"}


@router.post("/{dictionary_id}/set-rules")
async def set_rules(dictionary_id: str, body: RulesBody, state: AppState) -> dict[str, Any]:
    """Replace all rules."""
    rules = [rule.rule() for rule in body.rules]
    return _changed(await asyncio.to_thread(state.dictionaries.change, dictionary_id, lambda _: rules))


@router.post("/{dictionary_id}/add-rules")
async def add_rules(dictionary_id: str, body: RulesBody, state: AppState) -> dict[str, Any]:
    """Add rules. One for the same term, language and voice as an older one takes its place."""
    rules = [rule.rule() for rule in body.rules]
    new = {(rule.term, rule.language, rule.voice) for rule in rules}

    def added(old: tuple[Rule, ...]) -> list[Rule]:
        return [*(rule for rule in old if (rule.term, rule.language, rule.voice) not in new), *rules]

    return _changed(await asyncio.to_thread(state.dictionaries.change, dictionary_id, added))


@router.post("/{dictionary_id}/remove-rules")
async def remove_rules(dictionary_id: str, body: TermsBody, state: AppState) -> dict[str, Any]:
    """Remove the rules of terms."""
    terms = set(body.rule_strings)
    kept = await asyncio.to_thread(state.dictionaries.change, dictionary_id, lambda old: [rule for rule in old if rule.term not in terms])
    return _changed(kept)


@router.get("/{dictionary_id}/{version_id}/download", response_class=Response)
async def download(dictionary_id: str, version_id: str, state: AppState) -> Response:
    """A dictionary as a PLS file."""
    found = state.dictionaries.get(dictionary_id, version_id)
    return Response(as_pls(found.rules), media_type="application/pls+xml")


def _metadata(found: Dictionary) -> dict[str, Any]:
    return {
        "id": found.name, "name": found.name, "latest_version_id": found.version, "latest_version_rules_num": len(found.rules),
        "permission_on_resource": "admin", "created_by": "self", "creation_time_unix": found.created, "archived_time_unix": None,
        "description": found.description,
    }  # fmt: skip


def _added(found: Dictionary) -> dict[str, Any]:
    return {
        "id": found.name, "name": found.name, "created_by": "self", "creation_time_unix": found.created, "version_id": found.version,
        "version_rules_num": len(found.rules), "description": found.description, "permission_on_resource": "admin",
    }  # fmt: skip


def _changed(found: Dictionary) -> dict[str, Any]:
    return {"id": found.name, "version_id": found.version, "version_rules_num": len(found.rules)}


def _rule(rule: Rule) -> dict[str, Any]:
    """A rule in ElevenLabs' format."""
    return {
        "type": "alias", "string_to_replace": rule.term, "alias": rule.replacement, "case_sensitive": rule.exact, "word_boundaries": True,
        "language": rule.language, "voice": rule.voice,
    }  # fmt: skip
