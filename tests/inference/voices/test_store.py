import contextlib
import io
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from inference import AudioError, FishserveError, Reference, RequestError, Voice, VoiceExists, VoiceNotFound
from inference.voices.store import VoiceStore

CODEC = "0123456789ab"
CODES = np.ones((8, 30), np.int64)


def clip(seconds=2.0, rate=16_000):
    """A tone as a WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.3 * np.sin(np.arange(int(seconds * rate)) * 0.2), rate, format="WAV")
    return buffer.getvalue()


CLIP = clip()


@pytest.fixture
def store(tmp_path):
    """anna, who has a clip, Bob 2, of whom there are only codes, and next to them a folder that is nobody's business."""
    store = VoiceStore(tmp_path / "voices")
    store.add("anna", CLIP, " what is said\n")
    for folder in (tmp_path / "voices" / "Bob 2", tmp_path / "secret"):
        folder.mkdir(parents=True)
        np.save(folder / "codes.npy", np.ones((8, 5), int))
        (folder / "text.txt").write_text("what is said\n")
    return store


def spoken(store, name, codec=CODEC, codes=CODES):
    """As doors and command line do it."""
    found = store.voice(name, codec)
    if isinstance(found, Voice):
        return found
    assert store.clip(found).shape[0] > 44_100
    store.keep(found, codec, codes)
    return Voice((Reference(codes, found.text),), name)


def test_voices_are_listed_and_found(store):
    assert store.names() == ["default", "Bob 2", "anna"]
    assert spoken(store, "Bob 2").references[0].codes.shape == (8, 5)
    assert spoken(store, "anna").references[0].text == "what is said"
    assert spoken(store, "default").references == ()


def test_a_clip_is_encoded_once_for_each_codec(store):
    assert store.voice("anna", CODEC) == store.entry("anna")
    spoken(store, "anna")
    assert np.array_equal(store.voice("anna", CODEC).references[0].codes, CODES)
    assert store.voice("anna", "another00000") == store.entry("anna")


def test_codes_of_another_clip_are_not_used(store):
    old = store.entry("anna")
    store.delete("anna")
    store.add("anna", clip(3.0), "something else")
    store.keep(old, CODEC, CODES)
    assert store.voice("anna", CODEC) == store.entry("anna")
    spoken(store, "anna")
    os.utime(store.directory / "anna" / "clip.flac", ns=(1, 1))  # put there by hand
    assert store.voice("anna", CODEC) == store.entry("anna")


def test_codes_kept_of_a_voice_that_is_gone_leave_nothing(store):
    old = store.entry("anna")
    store.delete("anna")
    store.keep(old, CODEC, CODES)
    assert sorted(p.name for p in store.directory.iterdir()) == ["Bob 2"]


def test_kept_codes_that_are_damaged_or_nobody_may_read_are_made_again(store):
    spoken(store, "anna")
    kept = store.directory / "anna" / f"codes-{CODEC}.npy"
    assert kept.stat().st_mode & 0o044  # another user of the machine may well be the one who serves
    kept.write_bytes(b"half a")
    os.utime(kept, ns=(store.entry("anna").age,) * 2)
    assert store.voice("anna", CODEC) == store.entry("anna")
    spoken(store, "anna")
    assert isinstance(store.voice("anna", CODEC), Voice)


def test_a_clip_put_there_by_hand_is_a_voice(store):
    (store.directory / "carl").mkdir()
    (store.directory / "carl" / "clip.wav").write_bytes(CLIP)
    (store.directory / "carl" / "text.txt").write_text("said by Carl")
    assert "carl" in store.names()
    assert spoken(store, "carl").references[0].text == "said by Carl"


def test_an_unknown_voice_names_the_known_ones(store):
    with pytest.raises(VoiceNotFound, match=r"no voice 'carl'; known voices: default, Bob 2, anna"):
        store.voice("carl", CODEC)


BAD = ["../secret", "anna/../../secret", "/etc", "..", ".", "", "anna\0", "a" * 300, "anna/", ".hidden", "default"]


@pytest.mark.parametrize("name", BAD)
def test_a_name_never_leads_out(store, name):
    with pytest.raises(RequestError):
        store.add(name, CLIP, "hello")
    with pytest.raises(RequestError):
        store.rename("anna", name)
    for act in (store.delete, store.entry, lambda n: store.rename(n, "new")):
        with pytest.raises(VoiceNotFound):
            act(name)
    assert sorted(p.name for p in store.directory.parent.iterdir()) == ["secret", "voices"]
    assert store.names() == ["default", "Bob 2", "anna"]


@given(st.text())
def test_any_name_is_found_or_refused(name):
    with pytest.raises(VoiceNotFound):
        VoiceStore(Path("nowhere")).entry(name)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04nonsense", b"\x93NUMPY\x01\x00"], ids=repr)
def test_a_damaged_voice_says_so_and_not_where(store, content):
    (store.directory / "Bob 2" / "codes.npy").write_bytes(content)
    with pytest.raises(VoiceNotFound, match=r"voice 'Bob 2' is damaged: Bob 2/codes\.npy is not"):
        store.voice("Bob 2", CODEC)
    (store.directory / "anna" / "clip.flac").write_bytes(content)
    with pytest.raises(VoiceNotFound, match=r"voice 'anna' is damaged: clip\.flac (is not audio|holds no sound)"):
        store.clip(store.entry("anna"))


@pytest.mark.parametrize(
    ("audio", "text", "words"),
    [
        (b"nonsense", "hi", "not audio"),
        (clip(0.3), "hi", "lasts 0.3 s"),
        (clip(100), "hi", "lasts 100.0 s"),
        (CLIP, "  ", "0 characters"),
        (CLIP, "x" * 3000, "3000 characters"),
        (CLIP, "a\udcff", "lone surrogate"),
    ],
    ids=["noise", "short", "long", "no text", "long text", "no Unicode"],
)
def test_what_makes_no_voice_is_refused_and_leaves_nothing(store, audio, text, words):
    with pytest.raises((AudioError, RequestError), match=words):
        store.add("new", audio, text)
    assert sorted(p.name for p in store.directory.iterdir()) == ["Bob 2", "anna"]


def test_of_many_who_add_the_same_name_one_wins(store):
    outcomes = []

    def add(text):
        try:
            store.add("carl", CLIP, text)
            outcomes.append(text)
        except VoiceExists as e:
            outcomes.append(e)

    threads = [threading.Thread(target=add, args=(f"text {i}",)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    (winner,) = [o for o in outcomes if isinstance(o, str)]
    assert store.entry("carl").text == winner
    assert sorted(p.name for p in store.directory.iterdir()) == ["Bob 2", "anna", "carl"]


def test_where_codes_cannot_be_written_the_voice_is_read_all_the_same(store):
    (store.directory / "anna" / f"codes-{CODEC}.npy").mkdir()
    assert spoken(store, "anna").references[0].codes is CODES
    assert sorted(p.name for p in (store.directory / "anna").iterdir()) == ["clip.flac", f"codes-{CODEC}.npy", "text.txt"]


def test_where_voices_cannot_be_written_it_says_so(tmp_path):
    (tmp_path / "voices").write_text("not a directory")
    with pytest.raises(FishserveError, match=r"the voices cannot be written to disk: (File exists|Not a directory)"):
        VoiceStore(tmp_path / "voices").add("new", CLIP, "said")


def test_a_directory_that_is_not_there_has_the_default_voice(tmp_path):
    assert VoiceStore(tmp_path / "none").names() == ["default"]


NAMES = st.sampled_from(["a", "b", "c d", "default", "../x"])


class Voices(RuleBasedStateMachine):
    """Against a dictionary of what was said. `fresh` makes an empty store."""

    fresh = None

    @initialize()
    def start(self):
        self.store, self.known = type(self).fresh(), {}

    @rule(name=NAMES, text=st.sampled_from(["one", "two"]))
    def add(self, name, text):
        possible = name not in self.known and name in ("a", "b", "c d")
        with contextlib.nullcontext() if possible else pytest.raises(RequestError):
            self.store.add(name, CLIP, text)
            self.known[name] = text

    @rule(name=NAMES, new=NAMES)
    def rename(self, name, new):
        possible = name in self.known and new not in self.known and new in ("a", "b", "c d")
        with contextlib.nullcontext() if possible else pytest.raises(RequestError):
            self.store.rename(name, new)
            self.known[new] = self.known.pop(name)

    @rule(name=NAMES)
    def delete(self, name):
        with contextlib.nullcontext() if name in self.known else pytest.raises(VoiceNotFound):
            self.store.delete(name)
            del self.known[name]

    @rule(name=NAMES)
    def speak(self, name):
        with contextlib.nullcontext() if name in self.known or name == "default" else pytest.raises(VoiceNotFound):
            voice = spoken(self.store, name)
            assert [r.text for r in voice.references] == ([self.known[name]] if name in self.known else [])

    def teardown(self):
        if hasattr(self, "known"):
            assert self.store.names() == ["default", *sorted(self.known)]


def test_the_store_keeps_what_it_was_given(tmp_path):
    def fresh():
        shutil.rmtree(tmp_path / "voices", ignore_errors=True)
        return VoiceStore(tmp_path / "voices")

    Voices.fresh = fresh
    run_state_machine_as_test(Voices, settings=settings(max_examples=8, stateful_step_count=12, deadline=None))
