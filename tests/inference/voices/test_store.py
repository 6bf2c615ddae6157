import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import VoiceNotFound
from inference.voices.store import VoiceStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    for name in ("anna", "Bob 2"):
        (root / "voices" / name).mkdir(parents=True)
        np.save(root / "voices" / name / "codes.npy", np.ones((8, 5), int))
        (root / "voices" / name / "text.txt").write_text("what is said\n")
    (root / "secret").mkdir()
    np.save(root / "secret" / "codes.npy", np.ones((8, 5), int))
    return VoiceStore(root / "voices")


def test_voices_are_listed_and_found(store):
    assert store.names() == ["default", "Bob 2", "anna"]
    voice = store.get("anna")
    assert voice.references[0].text == "what is said"
    assert voice.references[0].codes.shape == (8, 5)
    assert store.get("default").references == ()


def test_an_unknown_voice_names_the_known_ones(store):
    with pytest.raises(VoiceNotFound, match=r"no voice 'carl'; known voices: default, Bob 2, anna"):
        store.get("carl")


@pytest.mark.parametrize("name", ["../secret", "anna/../../secret", "/etc", "..", ".", "", "anna\0", "a" * 300, "anna/"])
def test_a_name_never_leads_out(store, name):
    with pytest.raises(VoiceNotFound):
        store.get(name)


@given(st.text())
def test_any_name_is_found_or_refused(store, name):
    if name not in store.names():
        with pytest.raises(VoiceNotFound):
            store.get(name)


def test_a_damaged_voice_says_so(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "codes.npy").write_bytes(b"nonsense")
    with pytest.raises(VoiceNotFound, match="voice 'x' is damaged"):
        VoiceStore(tmp_path).get("x")


def test_a_directory_that_is_not_there_has_the_default_voice(tmp_path):
    assert VoiceStore(tmp_path / "none").names() == ["default"]
