"""Clips of voices that nobody speaks like: who they are, and what is learned behind them."""

import random
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from inference.model.codec import HOP, LogMel
from training import strangers
from training.cloning import VOICES
from training.disguise import PITCH_SCALE, speaker
from training.kokoro import KOKORO_RATE, TEACHER_VOICE
from training.machine import Machine
from training.recipe import Recipe
from training.samples import clip_of, joined
from training.shards import SPEAKERS_PER_STRANGER, CodedUtterance, other_speakers, save
from training.strangers import main, utterance, voices


def says(number):
    codes = torch.full((40, 8), number).short()
    return CodedUtterance(f"{number}".encode(), codes, torch.zeros(40).half(), torch.zeros(40, 4, dtype=torch.uint8))


def test_neither_the_teacher_nor_who_cloning_is_measured_with_is_among_them(tmp_path):
    (tmp_path / "voices").mkdir()
    for name in (*VOICES, TEACHER_VOICE, "af_one", "am_two", "zf_three"):
        (tmp_path / "voices" / f"{name}.bin").touch()
    found = voices(tmp_path, 30)
    assert len(found) == 30
    assert set(found[:3]) == {"af_one", "am_two", "zf_three"}
    for mixture in found[3:]:
        one, other = mixture.split("+")
        assert one != other
        assert {one, other} < set(found[:3])


def test_an_utterance_has_whole_frames_and_the_codecs_mel():
    time = np.arange(KOKORO_RATE) / KOKORO_RATE
    mel = LogMel(160)
    found = utterance("Hello.", (0.1 * np.sin(2 * np.pi * 300 * time)).astype(np.float32), mel)
    assert found.mel.shape == (160, len(found.bytes)) == (160, len(found.phonemes))
    assert found.mel.shape[1] == 4 * (44_100 // (4 * HOP))
    wave = 0.1 * torch.sin(2 * torch.pi * 300 * torch.arange(found.mel.shape[1] * HOP) / 44_100)
    middle = slice(20, 60)
    assert (found.mel[:, middle].float().argmax(0) == mel(wave[None])[0][:, middle].argmax(0)).all()


def test_behind_a_strangers_clip_those_speak_whose_pitch_is_nearest(tmp_path):
    numbers = range(3 * SPEAKERS_PER_STRANGER)
    items = [
        {"speaker": n, "readout": speaker(n).readout, "recorded": torch.zeros(30, 8).short()} | vars(says(100 * n + k))
        for n in numbers
        for k in range(4)
    ]
    save(tmp_path / "other_codes_0000.pt", items)
    save(tmp_path / "strangers_0000.pt", [{"pitch": -1.0, "clip": [(b"who knows", torch.full((20, 8), 7).short())]}])
    found = other_speakers(Recipe(tmp_path))
    pitch = {n: float(speaker(n).readout[0]) for n in numbers}
    nearest = sorted(numbers, key=lambda n: abs(pitch[n] + 1))[:SPEAKERS_PER_STRANGER]
    strangers = found[len(numbers) :]
    assert [torch.equal(one.readout, speaker(n).readout) for one, n in zip(strangers, nearest, strict=True)] == SPEAKERS_PER_STRANGER * [
        True
    ]
    for one, n in zip(strangers, nearest, strict=True):
        assert {int(said.text) // 100 for said in one.says} == {n}
        text, codes = joined(clip_of(one, random.Random(0)))
        assert text == "who knows"
        assert codes.unique().tolist() == [7]


def test_a_clip_is_one_recording_and_leaves_something_to_say(tmp_path):
    items = [{"speaker": 1, "readout": speaker(1).readout, "recorded": torch.zeros(300, 8).short()} | vars(says(k + 1)) for k in range(8)]
    save(tmp_path / "other_codes_0000.pt", items)
    (somebody,) = other_speakers(Recipe(tmp_path))
    draw, kinds, sizes = random.Random(0), set(), set()
    for _ in range(60):
        clip = clip_of(somebody, draw)
        kinds.add(all(not codes.any() for _, codes in clip))
        assert all(codes.any() for _, codes in clip) or all(not codes.any() for _, codes in clip)
        sizes.add(len(clip))
        assert len({text for text, _ in clip}) == len(clip) <= 6
    assert kinds == {True, False}
    assert len(sizes) > 3


def test_codes_from_before_there_were_recordings_are_told(tmp_path):
    save(tmp_path / "other_codes_0000.pt", [{"speaker": 1, "readout": speaker(1).readout} | vars(says(1))])
    with pytest.raises(SystemExit, match=r"other_codes_0000\.pt has no recorded clips: make it again with"):
        other_speakers(Recipe(tmp_path))


def test_who_says_one_text_only_is_left_out(tmp_path):
    one = {"readout": speaker(1).readout, "recorded": torch.zeros(30, 8).short()} | vars(says(1))
    save(tmp_path / "other_codes_0000.pt", [one | {"speaker": 1}, one | {"speaker": 2}, one | {"speaker": 2}])
    assert other_speakers(Recipe(tmp_path)) == []


@pytest.mark.parametrize(
    ("missing", "message"),
    [("kokoro.int8.onnx", "there is no file"), ("voices/af_heart.bin", "there is no file"), ("voices/am_two.bin", "has 1 voices")],
)
def test_a_folder_that_is_not_kokoros_is_told(tmp_path, capsys, missing, message):
    (tmp_path / "voices").mkdir()
    for name in ("kokoro.int8.onnx", "vocab.json", "voices/af_heart.bin", "voices/af_one.bin", "voices/am_two.bin"):
        (tmp_path / name).touch()
    (tmp_path / missing).unlink()
    with pytest.raises(SystemExit):
        main(["--kokoro", str(tmp_path), "--work", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_it_needs_other_speakers(tmp_path):
    (tmp_path / "voices").mkdir()
    for name in ("kokoro.int8.onnx", "vocab.json", "voices/af_heart.bin", "voices/af_one.bin", "voices/am_two.bin", "encoder.pt"):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match=r"no codes of other speakers: run `python -m training\.widening`"):
        main(["--kokoro", str(tmp_path), "--work", str(tmp_path)])


class FakeKokoro:
    """Says every text as a second of a tone: 100 Hz, two voices together 200, and the teacher 150; `am_mute` whispers."""

    def __init__(self, folder):
        del folder

    def speak(self, voice, text, speed=1):
        del text, speed
        hertz = {TEACHER_VOICE: 150, "am_mute": 0}.get(voice, 200 if "+" in voice else 100)
        return np.sin(2 * np.pi * hertz * np.arange(KOKORO_RATE) / KOKORO_RATE).astype(np.float32)


def test_strangers_are_written_by_shard_with_their_pitch_and_made_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "voices").mkdir()
    for name in (TEACHER_VOICE, "af_one", "am_mute", "zf_three"):
        (tmp_path / "voices" / f"{name}.bin").touch()
    texts = [f"This is the sentence with the number {n}." for n in range(20)]
    monkeypatch.setattr(strangers, "Kokoro", FakeKokoro)
    monkeypatch.setattr(strangers, "load_encoder", Mock())
    monkeypatch.setattr(strangers, "read_corpus", Mock(return_value=Mock(train=["Short.", *texts])))
    monkeypatch.setattr(strangers, "encode", lambda _, said: [CodedUtterance(u.text.encode(), u.mel, u.bytes, u.phonemes) for u in said])
    monkeypatch.setattr(strangers, "PER_SHARD", 3)
    strangers.speak_strangers(Recipe(tmp_path), Machine(), 0, tmp_path, 2)
    assert capsys.readouterr().out.split() == ["strangers_0000.pt", "strangers_0001.pt"]
    alone, mixed = (torch.load(tmp_path / f"strangers_000{n}.pt", weights_only=True) for n in (0, 1))
    assert [one["pitch"] for one in alone] == pytest.approx(2 * [np.log(100 / 150) / PITCH_SCALE], abs=0.1)  # one whispers
    assert [one["pitch"] for one in mixed] == pytest.approx(3 * [np.log(200 / 150) / PITCH_SCALE], abs=0.1)
    for one in alone + mixed:
        said = [text.decode() for text, _ in one["clip"]]
        assert len(set(said)) == strangers.SENTENCES
        assert set(said) <= set(texts)
    (tmp_path / "strangers_0000.pt").unlink()
    before = (tmp_path / "strangers_0001.pt").stat().st_mtime_ns
    strangers.speak_strangers(Recipe(tmp_path), Machine(), 0, tmp_path, 2)
    assert (tmp_path / "strangers_0001.pt").stat().st_mtime_ns == before
    assert (tmp_path / "strangers_0000.pt").exists()
