"""ElevenLabs' pronunciation dictionaries, asked for by its own client."""

import io
from http import HTTPStatus

import httpx
import pytest
from elevenlabs import PronunciationDictionaryVersionLocator
from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError
from elevenlabs.pronunciation_dictionaries import (
    BodyAddAPronunciationDictionaryV1PronunciationDictionariesAddFromRulesPostRulesItem_Alias as Alias,
)
from elevenlabs.pronunciation_dictionaries import (
    BodyAddAPronunciationDictionaryV1PronunciationDictionariesAddFromRulesPostRulesItem_Phoneme as Phoneme,
)
from elevenlabs.pronunciation_dictionaries.rules import PronunciationDictionaryRule_Alias

from inference.text.pronunciation import Rule
from inference.voices.lexicon import as_pls
from tests.inference.server.test_elevenlabs_live import socket
from tests.waiting import HANG_SECONDS


@pytest.fixture
def client(minnow):
    with httpx.Client(timeout=HANG_SECONDS) as http:
        yield ElevenLabs(base_url=minnow.url, api_key="any", httpx_client=http)


@pytest.fixture
def words(client):
    """A dictionary, for as long as a test lasts."""
    yield client.pronunciation_dictionaries.create_from_rules(name="words", rules=[Alias(string_to_replace="SQL", alias="sequel")])
    client.pronunciation_dictionaries.update("words", archived=True)
    assert client.pronunciation_dictionaries.list().pronunciation_dictionaries == []


def spoken(client, *locators, text="SQL."):
    made = client.text_to_speech.convert_with_timestamps("default", text=text, seed=1, pronunciation_dictionary_locators=list(locators))
    return "".join(made.alignment.characters), "".join(made.normalized_alignment.characters).strip()


def locator(made):
    return PronunciationDictionaryVersionLocator(pronunciation_dictionary_id=made.id, version_id=made.version_id)


def test_a_dictionary_is_made_used_changed_and_archived(client, words):
    listed = client.pronunciation_dictionaries.list()
    assert [(d.id, d.name, d.latest_version_rules_num) for d in listed.pronunciation_dictionaries] == [("words", "words", 1)]
    assert spoken(client, locator(words)) == ("SQL.", "sequel.")
    assert spoken(client) == ("SQL.", "ess cue ell.")
    rule = PronunciationDictionaryRule_Alias(string_to_replace="day", alias="night")
    changed = client.pronunciation_dictionaries.rules.add("words", rules=[rule])
    assert changed.version_rules_num == 2
    with pytest.raises(ApiError) as old:
        spoken(client, locator(words))
    assert old.value.status_code == HTTPStatus.NOT_FOUND
    assert "no version" in old.value.body["detail"]["message"]
    assert spoken(client, locator(changed), text="SQL day.")[1] == "sequel night."
    removed = client.pronunciation_dictionaries.rules.remove("words", rule_strings=["day"])
    assert (removed.version_id, removed.version_rules_num) == (words.version_id, 1)
    assert client.pronunciation_dictionaries.rules.set("words", rules=[rule]).version_rules_num == 1
    found = client.pronunciation_dictionaries.get("words")
    assert [(r.string_to_replace, r.alias) for r in found.rules] == [("day", "night")]


def test_a_file_comes_in_and_goes_out(client):
    pls = as_pls((Rule("SQL", "sequel"), Rule("A&B", "a and b")))
    made = client.pronunciation_dictionaries.create_from_file(name="lexicon", file=("any.pls", io.BytesIO(pls.encode()), "text/xml"))
    assert made.version_rules_num == 2
    assert b"".join(client.pronunciation_dictionaries.download("lexicon", made.version_id)).decode() == pls
    client.pronunciation_dictionaries.update("lexicon", archived=True)


def test_a_socket_uses_dictionaries(minnow, words):
    first = {"text": " ", "pronunciation_dictionary_locators": [{"pronunciation_dictionary_id": words.id}]}
    with socket(minnow, "stream-input") as talk:
        heard = talk(first, {"text": "SQL. "}, {"text": ""})
    said = "".join(c for m in heard if m.get("normalizedAlignment") for c in m["normalizedAlignment"]["chars"])
    assert said.strip() == "sequel."
    with socket(minnow, "stream-input") as talk:
        assert talk(first | {"pronunciation_dictionary_locators": [{"pronunciation_dictionary_id": "none"}]}, {"text": "x "})[-1][
            "error"
        ] == ("pronunciation_dictionary_not_found")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/audio/speech", {"input": "SQL.", "word_timestamps": True}),
        ("/v1/tts", {"text": "SQL."}),
        ("/dev/captioned_speech", {"input": "SQL."}),
    ],
)
def test_other_apis_name_them_too(minnow, words, path, body):
    def ask(*names):
        return httpx.post(f"{minnow.url}{path}", json=body | {"pronunciation_dictionaries": names, "seed": 1}, timeout=HANG_SECONDS)

    assert ask(words.id).content != ask().content
    assert (ask("none").status_code, "no pronunciation dictionary 'none'; known ones: words" in ask("none").text) == (404, True)
    assert (ask(*["words"] * 4).status_code, "at most 3" in ask(*["words"] * 4).text) == (400, True)


def refusal(call, *arguments, **fields):
    with pytest.raises(ApiError) as refused:
        call(*arguments, **fields)
    return refused.value.status_code, refused.value.body["detail"]["message"]


@pytest.mark.usefixtures("words")
def test_what_cannot_be_done_is_refused_in_one_sentence(client):
    make = client.pronunciation_dictionaries.create_from_rules
    alias = Alias(string_to_replace="a", alias="b")
    assert refusal(make, name="words", rules=[alias])[0] == HTTPStatus.BAD_REQUEST  # not 409, after which their client would try again
    assert "cannot be a dictionary's name" in refusal(make, name="../words", rules=[alias])[1]
    assert "phoneme" in refusal(make, name="x", rules=[Phoneme(string_to_replace="a", phoneme="b", alphabet="ipa")])[1]
    assert "inside of words" in refusal(make, name="x", rules=[Alias(string_to_replace="a", alias="b", word_boundaries=False)])[1]
    assert "cannot be spoken" in refusal(make, name="x", rules=[Alias(string_to_replace="a", alias="[voice:anna]b")])[1]
    assert refusal(make, name="x", rules=[alias] * 1001)[0] == HTTPStatus.BAD_REQUEST
    assert refusal(make, name="x", rules=["a"])[1] == "rules.0 is 'a': Input should be an object"
    assert refusal(client.pronunciation_dictionaries.get, "none") == (404, "there is no pronunciation dictionary 'none'; known ones: words")
    assert refusal(client.pronunciation_dictionaries.rules.remove, "none", rule_strings=["a"])[0] == HTTPStatus.NOT_FOUND
    file = ("a.pls", io.BytesIO(b"<!DOCTYPE a><a/>"), "text/xml")
    assert "DOCTYPE" in refusal(client.pronunciation_dictionaries.create_from_file, name="x", file=file)[1]
