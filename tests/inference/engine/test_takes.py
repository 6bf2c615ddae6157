"""What the engine does with takes that are faulty on purpose."""

import math
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import REGISTRY

from bench.forced import Forced
from inference import Audio, SpeechRequest
from inference.engine.guard import Paces
from inference.engine.request import GuardReport
from inference.engine.takes import MAX_TAKES
from inference.errors import RequestError
from inference.model.config import SAMPLES_PER_FRAME
from tests.inference.engine.by_hand import ByHand, ends, live

TEXT = "Here is a sentence that takes about fifty frames."
NEED = Paces().need(b"", TEXT)
USUAL = round(NEED.usual)
REQUEST = SpeechRequest(TEXT, seed=1, quality_guard=True, guard_look_ahead=math.inf, max_new_tokens=400)


def codes(frames, seed=0):
    return np.random.default_rng(seed).integers(0, 1000, (8, frames))


def loop(good, seed=5):
    """A take with so many good frames; its last ten come again and again."""
    begin = codes(good, seed)
    return np.concatenate((begin, *[begin[:, -10:]] * 30), axis=1)


GOOD = codes(USUAL)
FAULTY = {"loop": loop(25), "too_short": codes(int(NEED.least) - 1, 2), "too_long": codes(int(NEED.most) + 20, 3), "no_end": codes(400, 4)}


@pytest.fixture
def engine(golden):
    engine = ByHand(golden, slots=2)
    engine.forced = Forced(engine)
    yield engine
    engine.close()


def spoken(engine, request, *scripts, **named):
    """The chunks of a request whose takes are these, and its handle."""
    items = []
    engine.forced.play(scripts)
    handle = engine.submit(request, items.append, **named)
    engine.finish()
    assert ends(items) == [None]
    return [item for item in items if isinstance(item, Audio)], handle


def whole(chunks):
    return Audio.joined(chunks)


def count(name, **labels):
    return REGISTRY.get_sample_value(f"fishserve_guard_{name}_total", labels) or 0


def test_a_good_take_is_sent_as_it_is(engine):
    plain, handle = spoken(engine, replace(REQUEST, quality_guard=None), GOOD)
    guarded, judged = spoken(engine, REQUEST, GOOD)
    assert np.allclose(whole(guarded).samples, whole(plain).samples, atol=1e-5)
    assert np.array_equal(judged.codes, handle.codes)
    assert whole(plain).guard is None
    assert whole(guarded).guard == GuardReport(segments=1)


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("audio", [True, False])
def test_a_faulty_take_is_spoken_anew_and_nothing_of_it_is_heard(engine, fault, audio):
    request = replace(REQUEST, max_new_tokens=USUAL + 20) if fault == "no_end" else REQUEST
    before = count("faults", fault=fault), count("retries"), count("frames_discarded")
    chunks, handle = spoken(engine, request, FAULTY[fault], GOOD, audio=audio)
    assert np.array_equal(handle.codes, GOOD)
    assert handle.finish_reason == "stop"
    assert count("faults", fault=fault) == before[0] + 1
    assert count("retries") == before[1] + 1
    assert count("frames_discarded") > before[2]
    if audio:
        alone, _ = spoken(engine, replace(request, quality_guard=False), GOOD)
        assert np.allclose(whole(chunks).samples, whole(alone).samples, atol=1e-5)
        assert whole(chunks).guard.faults == (fault,)
        assert whole(chunks).guard.retries == 1


def test_a_take_with_a_block_of_frames_twice_is_spoken_anew(engine):
    twice = np.concatenate((GOOD[:, :30], GOOD[:, 15:]), axis=1)
    chunks, handle = spoken(engine, REQUEST, twice, GOOD)
    assert np.array_equal(handle.codes, GOOD)
    assert whole(chunks).guard.faults == ("repeated",)


def test_a_take_that_cannot_become_good_is_not_spoken_to_its_end(engine):
    engine.forced.play([loop(25), GOOD])
    handle = engine.submit(REQUEST, lambda _: None)
    frames = []
    while handle.finish_reason is None:
        engine.turn()
        frames += [len(s.frames) for s in engine._runner.sequences]
    assert max(frames) < 25 + 50


def test_the_best_of_several_faulty_takes_is_sent(engine):
    least = int(NEED.least)
    takes = [codes(least // 2, 1), codes(least - 1, 2), codes(least // 3, 3)]
    rest = codes(20, 9)
    _, handle = spoken(engine, REQUEST, *takes, rest)
    assert np.array_equal(handle.codes[:, : least - 1], takes[1])
    assert len(takes) == MAX_TAKES


def test_what_is_behind_a_fault_of_every_take_is_said_as_a_new_segment(engine):
    half, rest = loop(25), codes(USUAL // 2, 7)
    chunks, handle = spoken(engine, replace(REQUEST, words=True), half, half, half, rest)
    assert np.array_equal(handle.codes, np.concatenate((half[:, :25], rest), axis=1))
    assert handle.finish_reason == "stop"
    audio = whole(chunks)
    assert len(audio.samples) == handle.codes.shape[1] * SAMPLES_PER_FRAME
    assert [w.text for w in audio.words] == ["Here", "is", "a", "sentence", "that", "takes", "about", "fifty", "frames"]
    times = [t for w in audio.words for t in (w.start, w.end)]
    assert times == sorted(times)
    assert audio.guard == GuardReport(2, 2, 1, 0, audio.guard.discarded_seconds, ("loop",) * 3)


def test_the_text_behind_a_fault_is_not_said_for_ever(engine):
    chunks, handle = spoken(engine, REQUEST, *[loop(12, seed) for seed in range(40)])
    report = whole(chunks).guard
    assert 1 <= report.rests <= 3
    assert report.unmended == 1
    assert report.segments == report.rests + 1
    assert handle.codes.shape[1] < 100


def test_a_stream_is_cut_where_it_goes_wrong(engine, monkeypatch):
    """Of the segment's beginning some was sent, so it is not spoken anew."""
    monkeypatch.setattr("inference.engine.takes.RUN_OUT_SECONDS", math.inf)
    rest = codes(USUAL // 2, 7)
    chunks, handle = spoken(engine, replace(REQUEST, guard_look_ahead=0.0), loop(40), rest)
    assert handle.codes.shape[1] < 40 + 32 + USUAL // 2
    assert np.array_equal(handle.codes[:, :40], loop(40)[:, :40])
    assert np.array_equal(handle.codes[:, -rest.shape[1] :], rest)
    report = whole(chunks).guard
    assert (report.retries, report.rests, report.unmended) == (0, 1, 0)
    assert len(whole(chunks).samples) == handle.codes.shape[1] * SAMPLES_PER_FRAME


def test_of_a_take_that_was_sent_in_part_the_rest_is_its_own(engine, monkeypatch):
    """The first take goes wrong within the look-ahead, the second one behind it."""
    monkeypatch.setattr("inference.engine.takes.RUN_OUT_SECONDS", math.inf)
    first, second, rest = loop(10, 1), loop(60, 2), codes(USUAL // 3, 3)
    chunks, handle = spoken(engine, replace(REQUEST, guard_look_ahead=2.2), first, second, rest)
    assert np.array_equal(handle.codes, np.concatenate((second[:, :60], rest), axis=1))
    assert whole(chunks).guard.retries == whole(chunks).guard.rests == 1
    assert len(whole(chunks).samples) == handle.codes.shape[1] * SAMPLES_PER_FRAME


def test_no_more_than_the_look_ahead_is_held_back(engine, monkeypatch):
    monkeypatch.setattr("inference.engine.takes.RUN_OUT_SECONDS", math.inf)
    engine.forced.play([GOOD])
    items = []
    engine.submit(replace(REQUEST, guard_look_ahead=0.5), items.append)
    held = []
    while not ends(items):
        engine.turn()
        for job in [*engine._scheduler.running, *engine._scheduler.voicing]:
            held.append(sum(map(len, job.guard._take.held)) / 44100)
    assert max(held) <= 0.5 + 2 * SAMPLES_PER_FRAME / 44100
    assert np.allclose(whole([i for i in items if i]).samples, whole(spoken(engine, REQUEST, GOOD)[0]).samples, atol=1e-5)


def test_sound_that_is_held_back_is_wanted_before_nobody_elses(engine):
    """Else a whole file with the guard would hold up all others until its last sound."""
    engine.forced.play([GOOD])
    engine.submit(replace(REQUEST, guard_look_ahead=math.inf), lambda _: None)
    engine.turn()
    (job,) = engine._scheduler.running
    assert job.urgent
    while not job.guard.has_sound:
        engine.turn()
    assert job.unheard
    assert not job.urgent
    engine.finish()


def test_a_retry_waits_for_no_longer_texts_and_says_its_pause_once(engine):
    request = replace(REQUEST, text=f"[pause:0.5s] {TEXT} [pause:0.25s]")
    chunks, _ = spoken(engine, request, loop(25), GOOD)
    alone, _ = spoken(engine, replace(request, quality_guard=False), GOOD)
    assert np.allclose(whole(chunks).samples, whole(alone).samples, atol=1e-5)


def test_the_next_take_has_a_seed_that_follows_from_the_requests(engine):
    request = replace(REQUEST, max_new_tokens=9)

    def takes():
        found, begin = [], engine._runner.stage
        with pytest.MonkeyPatch.context() as watched:
            watched.setitem(vars(engine._runner), "stage", lambda s: (found.append(s.seed), begin(s)))
            _, handle = spoken(engine, request)
        return found, handle.codes

    (first, codes_of_first), (second, codes_of_second) = takes(), takes()
    assert first == second
    assert len(set(first)) == len(first) >= MAX_TAKES
    assert np.array_equal(codes_of_first, codes_of_second)
    plain = engine.generate(replace(request, quality_guard=False))
    assert plain.shape == (8, 9)


def test_live_text_is_judged_segment_by_segment(engine):
    items = []
    engine.forced.play([loop(25), GOOD, loop(30), GOOD[:, ::-1].copy()])
    handle = live(engine, TEXT, TEXT, items=items, quality_guard=True, guard_look_ahead=math.inf, max_new_tokens=400)
    engine.complete(handle)
    engine.finish()
    assert np.array_equal(handle.codes, np.concatenate((GOOD, GOOD[:, ::-1]), axis=1))
    assert whole([i for i in items if i]).guard.retries == 2


def test_a_request_that_is_cancelled_between_takes_ends(engine):
    items = []
    engine.forced.play([loop(25)])
    handle = engine.submit(REQUEST, items.append)
    while not engine._scheduler.waiting or handle.queued_seconds is None:
        engine.turn()
    handle.cancel()
    engine.finish()
    engine.turn()
    assert ends(items) == [None]
    assert handle.finish_reason == "cancelled"
    assert not [i for i in items if i]


def test_the_engines_own_setting_decides_where_the_request_does_not(golden):
    with ByHand(golden, slots=1, quality_guard=True) as engine:
        engine.forced = Forced(engine)
        open_request = replace(REQUEST, quality_guard=None)
        assert np.array_equal(spoken(engine, open_request, loop(25), GOOD)[1].codes, GOOD)
        assert spoken(engine, replace(REQUEST, quality_guard=False), FAULTY["too_short"])[1].codes.shape[1] < NEED.least
        reference = replace(open_request, compat="reference", max_new_tokens=30)
        assert whole(spoken(engine, reference)[0]).guard is None


def test_a_look_ahead_is_not_negative():
    for wrong in (-0.1, math.nan):
        with pytest.raises(RequestError, match="guard_look_ahead"):
            replace(REQUEST, guard_look_ahead=wrong)


def test_sound_that_is_empty_is_spoken_anew(engine, monkeypatch):
    decode = engine._vocoder.decode_due

    def first_take_muted(*due):
        (job,) = engine._scheduler.sounding()
        for stream, samples in decode(*due):
            yield stream, samples * bool(job.guard.attempt)

    monkeypatch.setattr(engine._vocoder, "decode_due", first_take_muted)
    chunks, _ = spoken(engine, REQUEST, GOOD, GOOD)
    assert whole(chunks).samples.any()
    assert set(whole(chunks).guard.faults) <= {"silence", "empty"}
    assert whole(chunks).guard.retries == 1
