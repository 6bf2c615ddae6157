"""Pronunciation dictionaries on disk, and as files that people bring."""

import errno
import json
import threading

import pytest

from inference import FishserveError, RequestError
from inference.errors import DictionaryExists, DictionaryNotFound
from inference.text.pronunciation import Pronunciations, Rule
from inference.voices import dictionaries
from inference.voices.dictionaries import DictionaryStore
from inference.voices.lexicon import as_pls, read_file, read_rules
from inference.voices.store import VoiceStore

RULES = (Rule("SQL", "sequel"), Rule("C&A", "see and <eh".replace("<", ""), "en", "anna", case_sensitive=False))


@pytest.fixture
def store(tmp_path):
    return DictionaryStore(tmp_path / "voices")


def test_a_dictionary_is_added_found_changed_and_deleted(store):
    assert store.names() == []
    added = store.add("my words", RULES, "mine")
    assert (added.rules, added.description, store.names()) == (RULES, "mine", ["my words"])
    changed = store.change("my words", lambda old: old[:1])
    assert (changed.rules, changed.created, changed.description) == (RULES[:1], added.created, "mine")
    assert changed.version != added.version
    assert store.change("my words", lambda _: RULES).version == added.version
    store.delete("my words")
    with pytest.raises(DictionaryNotFound, match="'my words'; known ones: none"):
        store.get("my words")


def test_a_request_gets_the_rules_of_its_dictionaries_in_order(store):
    first, second = store.add("a", RULES[:1]), store.add("b", RULES)
    assert store.pronunciations([("b", second.version), ("a", None)]) == Pronunciations(RULES + RULES[:1])
    with pytest.raises(DictionaryNotFound, match=f"no version 'old'; its rules are those of version {first.version}"):
        store.pronunciations([("a", "old")])
    with pytest.raises(RequestError, match="4 pronunciation dictionaries were named; at most 3"):
        store.pronunciations([("a", None)] * 4)


@pytest.mark.parametrize("name", ["", "../a", ".a", "a/b", "a" * 65, "a\n", "é"])
def test_a_name_never_leads_elsewhere(store, name):
    with pytest.raises(RequestError, match="cannot be a dictionary's name"):
        store.add(name, RULES)
    with pytest.raises(DictionaryNotFound):
        store.get(name)
    with pytest.raises(DictionaryNotFound):
        store.delete(name)


def test_dictionaries_are_no_voices(store, tmp_path):
    store.add("a", RULES)
    assert VoiceStore(tmp_path / "voices").names() == ["default"]


def test_names_are_unique_and_numbers_limited(store, monkeypatch):
    store.add("a", RULES)
    with pytest.raises(DictionaryExists, match="'a' already"):
        store.add("a", RULES)
    monkeypatch.setattr(dictionaries, "MAX_DICTIONARIES", 1)
    with pytest.raises(RequestError, match="1 pronunciation dictionaries already"):
        store.add("b", RULES)
    with pytest.raises(RequestError, match="at most 1,000"):
        store.change("a", lambda old: old[:1] * 1001)
    assert store.get("a").rules == RULES


def test_a_full_disk_is_told_and_leaves_the_old_rules(store, monkeypatch):
    store.add("a", RULES)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dictionaries.os, "fsync", full)
    for change in (lambda: store.add("b", RULES), lambda: store.change("a", lambda old: old[:1])):
        with pytest.raises(FishserveError, match="cannot be written to disk: No space left"):
            change()
    assert store.names() == ["a"]
    assert store.get("a").rules == RULES
    assert [p.name for p in store.directory.iterdir()] == ["a.json"]


def test_of_changes_at_once_none_is_lost(store):
    store.add("a", ())
    threads = [threading.Thread(target=store.change, args=("a", lambda old, n=n: [*old, Rule(f"t{n}", "x")])) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {rule.term for rule in store.get("a").rules} == {f"t{n}" for n in range(8)}


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "damaged"), ('{"rules": [1]}', "a list of objects"), ("[" * 100_000, "damaged"), ('{"rules": []', "damaged"), ('{"rules": [], "created": "x"}', "damaged"), ('{"rules": [], "created": 1e999}', "damaged")],
)  # fmt: skip
def test_a_damaged_file_is_told_without_its_path_and_can_be_deleted(store, content, words):
    store.add("a", RULES)
    (store.directory / "a.json").write_text(content)
    with pytest.raises(DictionaryNotFound, match=words) as refused:
        store.get("a")
    assert str(store.directory) not in str(refused.value)
    store.delete("a")
    assert store.add("a", RULES).rules == RULES


def test_files_are_json_or_pls(tmp_path):
    given = [rule.fields() for rule in RULES]
    assert read_rules(json.dumps(given).encode()) == read_rules(json.dumps({"rules": given}).encode("utf-8-sig")) == RULES
    as_file = as_pls(RULES)
    assert read_rules(as_file.encode()) == tuple(Rule(r.term, r.replacement) for r in RULES)
    (tmp_path / "a.pls").write_text(as_file)
    assert read_file(tmp_path / "a.pls") == read_rules(as_file.encode())


PLS = '<?xml version="1.0"?><lexicon xmlns="http://www.w3.org/2005/01/pronunciation-lexicon" version="1.0">{}</lexicon>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff", "not UTF-8"),
        (b"term: x", "neither JSON nor PLS"),
        (b"[" * 100_000, "neither JSON nor PLS"),
        (b"3", "a list of objects"),
        (b"[" + b" " * 2_000_000 + b"]", "at most 2,000,000"),
        (b"<a", "not well-formed"),
        (PLS.format("").encode(), "no <lexeme>"),
        (PLS.format("<lexeme><grapheme>a</grapheme><phoneme>b</phoneme></lexeme>").encode(), "phonemes"),
        (PLS.format("<lexeme><grapheme>a</grapheme><alias></alias></lexeme>").encode(), "cannot be spoken"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "DOCTYPE"),
        (PLS.format("&nothing;").encode(), "not well-formed"),
        ('<?xml version="1.0" encoding="utf-16"?><a/>'.encode("utf-16"), "not UTF-8"),
    ],
    ids=range(12),
)
def test_what_is_no_dictionary_is_refused_in_one_sentence(content, words):
    with pytest.raises(RequestError, match=words):
        read_rules(content)
    with pytest.raises(RequestError, match="cannot be read"):
        read_file(dictionaries.Path("nowhere.json"))
