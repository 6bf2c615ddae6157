"""The command as a user runs it."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from inference import cli
from inference.outputs import check_writable
from tests.conftest import GOLDEN, golden_json
from tests.waiting import HANG_SECONDS


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cli") / "tiny"
    done = fishserve("random-checkpoint", directory, "--shape", "tiny", "--seed", 1)
    assert done.returncode == 0
    assert "speak noise" in done.stderr
    return directory


def fishserve(*arguments, stdin=b"", **environment):
    """Run the command in a process of its own; stdout stays bytes, stderr becomes one line of words."""
    done = subprocess.run(
        [sys.executable, "-m", "inference.cli", *map(os.fspath, map(str, arguments))],
        input=stdin, capture_output=True, timeout=HANG_SECONDS, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, check=False,
    )  # fmt: skip
    done.stderr = " ".join(done.stderr.decode().split())
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def run(monkeypatch, capsysbinary):
    """Run the command in this process, which is quicker: exit code, stdout and stderr as one line of words."""

    def run(*arguments, stdin=b"", **environment):
        monkeypatch.setattr(sys, "argv", ["fishserve", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capsysbinary.readouterr()
        return exit_.value.code, out, " ".join(err.decode().split())

    return run


@pytest.fixture
def refused(run):
    def refused(*arguments, **more):
        code, _, words = run(*arguments, **more)
        assert code == 2, words
        assert "error" in words.lower()
        return words

    return refused


def test_say_reproduces_the_reference_end_to_end(golden_directory, tmp_path):
    case = golden_json("e2e/e2e.json")
    (clip, text), *rest = case["refs"]
    assert not rest
    done = fishserve(
        "say", case["text"], "--checkpoint", golden_directory, "--compat", "reference", "--temperature", 0,
        "--repetition-penalty", case["rep"], "--chunk-length", case["chunk"], "--max-new-tokens", case["max_new_tokens"],
        "--reference", GOLDEN / "codec_tiny" / clip, "--reference-text", text, "--codes", tmp_path / "c.npy", "-o", tmp_path / "o.wav",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "c.npy").tolist() == np.concatenate([s["codes"] for s in case["segments"]], axis=1).tolist()
    heard, expected = (soundfile.read(p, dtype="float32")[0] for p in (tmp_path / "o.wav", GOLDEN / "e2e/expected.wav"))
    np.testing.assert_allclose(heard, expected, atol=1e-4)  # 16 bits


def test_say_writes_a_wav_and_says_how_fast(tiny, tmp_path, run):
    code, _, words = run("say", "Hello there.", "--checkpoint", tiny, "--seed", 3, "-o", tmp_path / "o.wav")
    assert code == 0
    seconds = soundfile.info(tmp_path / "o.wav").duration
    assert float(re.search(r"([\d.]+) s of speech in", words)[1]) == pytest.approx(seconds, abs=0.01)
    assert re.search(r"[\d.]+ times real time", words)
    assert "it speaks noise" in words


def test_say_with_the_guard_tells_what_it_found(tiny, tmp_path, run):
    few = (
        "say",
        "A sentence that needs far more frames than it may have.",
        "--checkpoint",
        tiny,
        "--max-new-tokens",
        12,
        "-o",
        tmp_path / "o.wav",
    )
    assert "quality guard" not in run(*few)[2]
    assert re.search(r"quality guard: found \d+ x too_short.*; retries: [2-9]", run(*few, "--quality-guard")[2])
    assert "quality guard" not in run(*few, "--no-quality-guard", FISHSERVE_QUALITY_GUARD="true")[2]
    assert "quality guard: found" in run(*few)[2]


def test_say_writes_captions_and_words(tiny, tmp_path, run):
    files = {name: tmp_path / f"o.{name}" for name in ("srt", "vtt", "words")}
    options = [argument for name, path in files.items() for argument in (f"--{name}", path)]
    more = ("--checkpoint", tiny, "--seed", 3, "--max-new-tokens", 40, "-o", tmp_path / "o.wav")
    assert run("say", "It is **five**. [pause:1s] Go & see.", *more, *options)[0] == 0
    found = json.loads(files["words"].read_text())
    assert [w["word"] for w in found["words"]] == ["It", "is", "five", "Go", "see"]
    assert found["precision"] == "segment"
    assert found["words"][-1]["end"] <= soundfile.info(tmp_path / "o.wav").duration + 0.0005  # rounded to milliseconds
    assert re.findall(r"\n(\D+)\n\n", files["srt"].read_text()) == ["It is five.", "Go & see."]
    assert re.findall(r"\n(\D+)\n\n", files["vtt"].read_text()) == ["It is five.", "Go &amp; see."]


def test_a_model_without_heads_that_follow_the_text_keeps_the_estimate(tiny, tmp_path, run):
    code, _, said = run("calibrate-times", "--checkpoint", tiny, FISHSERVE_VOICES_DIR=str(tmp_path))
    assert code == 1
    assert "no head follows the text, so word times stay estimates" in said
    (stored,) = json.loads((tmp_path / "alignment-heads.json").read_text()).values()
    assert stored["heads"] == []
    code, _, said = run("calibrate-times", FISHSERVE_VOICES_DIR=str(tmp_path))
    assert (code, "names 2 heads, and they count; nothing was stored" in said) == (0, True)


def test_text_comes_from_standard_input_and_sound_goes_to_standard_output(tiny, tmp_path):
    fishserve("say", "Grüße, 世界!", "--checkpoint", tiny, "--seed", 3, "--max-new-tokens", 20, "-o", tmp_path / "o.wav")
    done = fishserve("say", "-", "--checkpoint", tiny, "--seed", 3, "--max-new-tokens", 20, "-o", "-", stdin="Grüße, 世界!".encode())
    assert done.returncode == 0
    assert done.stdout[44:] == (tmp_path / "o.wav").read_bytes()[44:]


def test_the_environment_names_the_checkpoint(tiny, tmp_path, run):
    code, _, _ = run("say", "Hi.", "-o", tmp_path / "o.wav", FISHSERVE_CHECKPOINT=tiny)
    assert code == 0
    assert (tmp_path / "o.wav").stat().st_size > 44


def test_codes_go_out_and_come_back(tiny, tmp_path, run):
    clip = GOLDEN / "codec_tiny/wave1_noise.wav"
    assert run("encode", clip, "--checkpoint", tiny, "-o", tmp_path / "c.npy")[0] == 0
    assert np.load(tmp_path / "c.npy").shape == (8, 20)
    assert run("decode", tmp_path / "c.npy", "--checkpoint", tiny, "-o", tmp_path / "o.wav")[0] == 0
    assert soundfile.info(tmp_path / "o.wav").frames == 20 * 2048


def spoken(run, tmp_path, tiny, *more, **environment):
    """What a sentence sounds like, in bytes."""
    out = tmp_path / "spoken.wav"
    assert run("say", "Hello.", "--checkpoint", tiny, "--seed", 1, "--max-new-tokens", 20, *more, "-o", out, **environment)[0] == 0
    return out.read_bytes()


def test_a_voice_lives_through_all_its_commands(tiny, tmp_path, run, refused):
    clip, here = GOLDEN / "codec_tiny/wave0_chirp.wav", {"FISHSERVE_VOICES_DIR": str(tmp_path / "voices")}
    assert run("voices", "list", **here)[:2] == (0, b"")
    assert "anna was added" in run("voices", "add", "anna", clip, "--text", "-", stdin=b"When I heard\nthe release demo.", **here)[2]
    assert run("voices", "list")[1].decode().split("\t")[::2] == ["anna", "When I heard the release demo.\n"]
    first = spoken(run, tmp_path, tiny, "--voice", "anna")
    assert first != spoken(run, tmp_path, tiny)
    assert len(list((tmp_path / "voices/anna").glob("codes-*.npy"))) == 1
    assert spoken(run, tmp_path, tiny, "--voice", "anna") == first
    assert "already" in refused("voices", "add", "anna", clip, "--text", "again")
    assert run("voices", "rename", "anna", "Anna B")[0] == 0
    assert "known voices: default, Anna B" in refused("say", "Hello.", "--checkpoint", tiny, "--voice", "anna")
    assert spoken(run, tmp_path, tiny, "--voice", "Anna B") == first
    assert run("voices", "delete", "Anna B", stdin=b"n\n")[0] == 1
    assert run("voices", "delete", "Anna B", stdin=b"y\n")[0] == 0
    assert run("voices", "list")[1] == b""
    assert "no voice 'Anna B'" in refused("voices", "delete", "Anna B", "--yes")


def test_a_voice_that_cannot_be_is_refused(tmp_path, refused):
    here = {"FISHSERVE_VOICES_DIR": str(tmp_path / "voices")}
    assert "nothing.wav does not exist" in refused("voices", "add", "anna", tmp_path / "nothing.wav", "--text", "hi", **here)
    assert "cannot be a voice's name" in refused("voices", "add", "../anna", GOLDEN / "codec_tiny/wave0_chirp.wav", "--text", "hi")
    assert not (tmp_path / "voices").exists()


def test_codes_alone_make_a_voice(tiny, tmp_path, run):
    (tmp_path / "voices/anna").mkdir(parents=True)
    run("encode", GOLDEN / "codec_tiny/wave1_noise.wav", "--checkpoint", tiny, "-o", tmp_path / "voices/anna/codes.npy")
    (tmp_path / "voices/anna/text.txt").write_text("When I heard the release demo.")
    plain = spoken(run, tmp_path, tiny)
    assert spoken(run, tmp_path, tiny, "--voice", "anna", FISHSERVE_VOICES_DIR=tmp_path / "voices") != plain


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    directory = tmp_path_factory.mktemp("clips")
    soundfile.write(directory / "empty.wav", np.zeros(0, np.float32), 44_100)
    soundfile.write(directory / "long.wav", np.zeros(91 * 8000, np.float32), 8000)
    soundfile.write(directory / "longer.wav", np.zeros(700 * 8000, np.float32), 8000)
    (directory / "text.wav").write_text("I am not sound")
    return directory


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        ("empty.wav", "0 samples"),
        ("long.wav", "0.5 to 90 s"),
        ("longer.wav", "at most 600 s"),
        ("text.wav", "not audio"),
        ("no.wav", "does not exist"),
    ],
)
def test_a_bad_reference_is_one_sentence(tiny, clips, clip, words, refused):
    assert words in refused("say", "Hello.", "--checkpoint", tiny, "--reference", clips / clip, "--reference-text", "words")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["say", ""], "nothing to speak"),
        (["say", "hello", "--temperature", "9"], "temperature is 9.0"),
        (["say", "hello", "--compat", "other"], "reference"),
        (["say", "hello", "--reference", "x.wav"], "go together"),
        (["say", "hello", "--voice", "a", "--reference", "x.wav", "--reference-text", "b"], "exclude each other"),
        (["say", "hello", "--max-new-tokens", "9999"], "do not fit in the model's 4096"),
        (["say", "hello", "--device", "tpu"], "device 'tpu'"),
        (["say", "hello", "-o", "/nowhere/out.wav"], "cannot write /nowhere/out.wav"),
        (["say", "hello", "--checkpoint", "no[/b]thing"], "no[/b]thing is not a directory"),
        (["encode", "nothing.wav"], "does not exist"),
        (["decode", "nothing.npy"], "does not exist"),
        (["serve", "--host", "example.org"], "listen on"),
        (["serve", "--port", "70000"], "FISHSERVE_PORT"),
        (["download", "not a name"], "owner/name"),
        (["download", "foo/bar--baz"], "could not be downloaded"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else "",
)
def test_bad_input_is_one_sentence(tiny, arguments, words, refused):
    checkpoint = [] if arguments[0] == "download" or "--checkpoint" in arguments else ["--checkpoint", tiny]
    assert words in refused(*arguments, *checkpoint)


def test_text_that_is_not_text_is_one_sentence(tiny, refused):
    assert "100,000" in refused("say", "-", "--checkpoint", tiny, stdin=b"a " * 500_000)
    assert "not UTF-8" in refused("say", "-", "--checkpoint", tiny, stdin=b"\xff\xfe")
    done = subprocess.run([sys.executable, "-m", "inference.cli", "say", b"a\xffb", "--checkpoint", tiny], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"lone surrogate, U+DCFF at character 2" in b" ".join(done.stderr.split())


def test_a_missing_or_damaged_checkpoint_is_one_sentence(tiny, tmp_path, refused):
    assert "is not a directory" in refused("say", "hello", "--checkpoint", tmp_path / "none")
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.pth").write_bytes((tiny / "model.pth").read_bytes()[:1000])
    assert "download it again" in refused("say", "hello", "--checkpoint", tmp_path)


@pytest.mark.parametrize(
    "codes",
    [np.full((8, 2), 1000), np.zeros((3, 2), int), np.zeros((8, 2)), np.zeros(8, int), np.zeros((8, 0), int)],
    ids=lambda c: f"{c.dtype}{c.shape}",
)
def test_codes_of_another_kind_are_one_sentence(tiny, tmp_path, codes, refused):
    np.save(tmp_path / "codes.npy", codes)
    assert "codes" in refused("decode", tmp_path / "codes.npy", "--checkpoint", tiny)


def test_doctor_finds_a_good_checkpoint_good(tiny, golden_directory, run):
    code, _, words = run("doctor", "--checkpoint", tiny)
    assert code == 0
    for expected in ("float32", "apache-2.0", "speak noise", "complete, undamaged", "GiB free"):
        assert expected in words
    assert "CC BY-NC-SA 4.0, non-commercial" in run("doctor", "--checkpoint", golden_directory)[2]


def test_doctor_finds_a_bad_one_bad(tiny, tmp_path, run):
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    code, _, words = run("doctor", "--checkpoint", tmp_path)
    assert code == 1
    assert "missing: layers.2.attention" in words
    (tmp_path / "model.pth").unlink()
    assert run("doctor", "--checkpoint", tmp_path)[0] == 1
    assert run("doctor", "--checkpoint", tiny, "--device", "cuda:7")[0] == 1


def test_help_is_quick_to_load_nothing():
    code = "import sys, inference.cli; assert not {'torch', 'litserve', 'fastapi'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody may write")
@pytest.mark.parametrize("out", ["/proc/out.wav", "/"])
def test_a_file_that_cannot_be_written_is_found_before_anything_is_spoken(out, refused, tmp_path, monkeypatch):
    monkeypatch.setattr("inference.cli._engine", None)  # it would be too late to find out
    assert f"cannot write {out}" in refused("say", "Hello.", "-o", out)
    kept = tmp_path / "kept.wav"
    kept.write_bytes(b"kept")
    check_writable(kept, tmp_path / "new.wav")
    assert kept.read_bytes() == b"kept"
    assert not (tmp_path / "new.wav").exists()


def test_doctor_says_nothing_of_a_model_that_is_not_there(run):
    code, _, words = run("doctor", "--checkpoint", "nonexistent")
    assert code == 1
    assert "ok model" not in words
    assert "0.0 GiB" not in words
    assert "nonexistent" in words
    assert "0.0 GiB" not in run("doctor")[2]


def test_minnow_says_that_it_hardly_follows_a_voice(run, tmp_path):
    """It is known before the speech, and heard with it."""
    (tmp_path / "voices" / "anna").mkdir(parents=True)
    np.save(tmp_path / "voices" / "anna" / "codes.npy", np.ones((8, 30), int))
    (tmp_path / "voices" / "anna" / "text.txt").write_text("what is said")
    code, _, words = run("say", "Hi.", "--voice", "anna", "-o", tmp_path / "a.wav", FISHSERVE_VOICES_DIR=tmp_path / "voices")
    assert code == 0, words
    assert "minnow follows the pitch of the requested voice and little else" in words


def test_text_shows_what_would_be_spoken(run):
    code, out, _ = run("text", "-", stdin=b"The FBI paid $5. [pause:1s] Really? Oh. I see.<break/>")
    assert code == 0
    assert out.decode().splitlines() == [
        "   1 The eff bee eye paid five dollars.", "     pause 1.00 s", "   2 Really?", "     pause 0.60 s", "   3 Oh. I see.", "     pause 0.50 s",
    ]  # fmt: skip


def test_text_is_shown_for_the_model_that_is_named(run, golden_directory):
    _, out, _ = run("text", "The FBI paid $5. Really? Oh. I see.", "--checkpoint", golden_directory, "--json")
    assert json.loads(out) == {"segments": [{"pause": 0, "text": "The FBI paid $5. Really? Oh. I see."}], "pause_at_end": 0}
    _, out, _ = run("text", "One, two.", "--checkpoint", golden_directory, "--json", "--compat", "reference", "--chunk-length", 10)
    assert [s["text"] for s in json.loads(out)["segments"]] == ["One, two."]


def test_text_says_what_cannot_be_spoken(refused):
    assert "there is nothing to speak" in refused("text", "...")
    assert "is not a pause" in refused("text", "Hi [pause:long]")


def test_text_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; from inference.cli import main; sys.argv = ['fishserve', 'text', 'Hello.']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "   1 Hello.\n", done.stderr
