"""Who runs when: the engine's rounds, driven by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY

from inference import Audio, FinishReason, Overloaded, RequestError, SpeechEngine, SpeechRequest
from inference.engine import runner as runner_module
from inference.engine import scheduler as scheduler_module
from inference.engine import stream as stream_module
from inference.engine import voicing
from inference.engine.device import affordable_slots
from inference.engine.job import JobStatus, Urgency
from inference.engine.kv_cache import KVPrefix, PrefixCache
from tests.conftest import golden_tensors
from tests.inference.engine.by_hand import ByHand, endless, ends, live, voice
from tests.inference.engine.eager_step import with_graphs
from tests.waiting import wait


def lookups(result):
    return REGISTRY.get_sample_value("fishserve_prefix_lookups_total", {"result": result}) or 0


def test_a_voice_is_computed_once_and_changes_nothing(golden):
    request = SpeechRequest("Hello.", voice(60), seed=1, max_new_tokens=20)
    engine, results = ByHand(golden, slots=1), []
    hits = lookups("hit")
    for _ in range(3):
        ticket = engine.submit(request, lambda _: None)
        engine.finish()
        results.append(ticket.codes)
    assert lookups("hit") - hits == 2
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_counters_are_there_before_the_first_request(golden):
    """Prometheus sees a counter grow from 0, and not one that begins at 1."""
    ByHand(golden, slots=1)
    assert all(REGISTRY.get_sample_value("fishserve_requests_total", {"reason": reason}) is not None for reason in FinishReason)
    assert all(REGISTRY.get_sample_value("fishserve_prefix_lookups_total", {"result": result}) is not None for result in ("hit", "miss"))


def test_a_long_prompt_does_not_keep_running_streams_waiting(golden, monkeypatch):
    """Beside a prompt of many pieces a running request whose listener has little to hear gets a frame for each piece."""
    monkeypatch.setattr(voicing, "AHEAD_SECONDS", 1e9)
    engine = ByHand(golden, slots=2)
    running = engine.submit(SpeechRequest("Hello.", temperature=0, max_new_tokens=1000), lambda _: None)
    engine.turn()
    (job,) = engine._scheduler.running
    engine.submit(SpeechRequest("Hello.", voice(1200), max_new_tokens=5), lambda _: None)
    rounds = 0
    while not any(j is not job and j.sequence and j.sequence.slot >= 0 for j in engine._scheduler.running):
        before = len(job.sequence.frames)
        engine.turn()
        rounds += 1
        if running.finish_reason:
            break
        assert len(job.sequence.frames) == before + 1
    assert rounds > 1200 // runner_module.PREFILL


@pytest.mark.parametrize("begun", [True, False])
def test_a_full_queue_refuses_with_the_time_to_come_back(golden, begun):
    """As many may wait when all come at once, while every row is free still."""
    engine = ByHand(golden, slots=2, queue=2)
    items = []
    for number in range(4):
        engine.submit(SpeechRequest("Hello.", max_new_tokens=3), items.append)
        if begun and number == 1:
            engine.turn()
    with pytest.raises(Overloaded, match=r"2 requests are waiting already; try again in about \d+ s") as error:
        engine.submit(SpeechRequest("Hello.", max_new_tokens=3), items.append)
    assert error.value.retry_after > 0
    engine.finish()
    assert ends(items) == [None] * 4


def test_a_long_text_lets_short_ones_go_first_between_segments(golden):
    engine = ByHand(golden, slots=1)
    long = engine.submit(SpeechRequest("One sentence. " * 30, seed=1, chunk_length=20, max_new_tokens=5), lambda _: None)
    engine.turn()
    short = engine.submit(SpeechRequest("Short.", seed=2, max_new_tokens=5), lambda _: None)
    while short.finish_reason is None:
        engine.turn()
    assert long.finish_reason is None
    engine.finish()
    assert long.codes.shape[1] > 30


@pytest.mark.parametrize("graphs", [False, True])
def test_a_short_request_gets_the_slot_of_one_whose_listener_has_plenty_to_hear(golden, monkeypatch, graphs):
    """Within a round; the other continues later, and its codes are the same as alone."""
    monkeypatch.setattr(voicing, "AHEAD_SECONDS", -1e9)
    request = SpeechRequest("Hello there.", seed=1, max_new_tokens=60)
    alone = ByHand(golden, slots=1).generate(request)
    engine = ByHand(golden, slots=1)
    if graphs:
        with_graphs(engine._runner)
    items = []
    long = engine.submit(request, items.append)
    while not items:
        engine.turn()
    short = engine.submit(SpeechRequest("Short.", seed=2, max_new_tokens=5), lambda _: None)
    engine.turn()
    assert [job.handle for job in engine._scheduler.running] == [short]
    while short.finish_reason is None:
        engine.turn()
    assert long.finish_reason is None
    engine.finish()
    assert np.array_equal(long.codes, alone)


@pytest.mark.parametrize("ahead", [True, False], ids=["plenty to hear", "little to hear"])
def test_until_a_short_text_is_heard_those_with_plenty_to_hear_get_a_frame_every_few_rounds(golden, monkeypatch, ahead):
    monkeypatch.setattr(voicing, "AHEAD_SECONDS", -1e9 if ahead else 1e9)
    request = SpeechRequest("Hello there.", seed=1, max_new_tokens=60)
    alone = ByHand(golden, slots=1).generate(request)
    engine, heard, first = ByHand(golden, slots=2), [], []
    beside = engine.submit(request, heard.append)
    while not heard:
        engine.turn()
    (job,) = engine._scheduler.running
    engine.submit(SpeechRequest("Short.", seed=2, max_new_tokens=30), first.append)
    engine.turn()
    before, rounds = len(job.sequence.frames), 0
    while not first:
        engine.turn()
        rounds += 1
    got = len(job.sequence.frames) - before
    assert rounds // scheduler_module.HELD_ROUNDS <= got <= -(-rounds // scheduler_module.HELD_ROUNDS) if ahead else got == rounds
    engine.finish()
    assert np.array_equal(beside.codes, alone)


def test_short_texts_that_follow_each_other_leave_the_others_every_few_rounds(golden, monkeypatch):
    monkeypatch.setattr(voicing, "AHEAD_SECONDS", -1e9)
    engine, heard = ByHand(golden, slots=2), []
    engine.submit(SpeechRequest("Hello there.", seed=1, max_new_tokens=60), heard.append)
    while not heard:
        engine.turn()
    (job,) = engine._scheduler.running
    before, rounds, first = len(job.sequence.frames), 0, [None]
    while rounds < 6 * scheduler_module.HELD_ROUNDS:
        if first:  # the one before has been heard: it leaves, and the next one comes
            first = []
            short = engine.submit(SpeechRequest("Short.", seed=2, max_new_tokens=30), first.append)
        engine.turn()
        rounds += 1
        if first:
            short.cancel()
    assert 6 <= len(job.sequence.frames) - before <= 7
    engine.finish()


@pytest.mark.parametrize(("text", "paused"), [("One sentence. " * 60, True), ("[pause:9s] Hello there. And more.", False)])
def test_of_texts_that_nobody_has_heard_only_a_long_one_is_paused(golden, text, paused):
    """Two short ones would pause each other for ever, as silence before the words counts as something to hear."""
    engine = ByHand(golden, slots=1)
    first = engine.submit(SpeechRequest(text, seed=1, max_new_tokens=9, chunk_length=20), lambda _: None)
    engine.turn()
    short = engine.submit(SpeechRequest("[pause:9s] Short.", seed=2, max_new_tokens=9), lambda _: None)
    engine.turn()
    assert [job.handle for job in engine._scheduler.running] == [short if paused else first]
    engine.finish()


@pytest.mark.parametrize("why", ["its listener would hear a gap", "there is no memory for its keys and values"])
def test_a_segment_is_not_paused_when(golden, monkeypatch, why):
    engine = ByHand(golden, slots=1)
    monkeypatch.setattr(voicing, "AHEAD_SECONDS", 1e9 if "gap" in why else -1e9)
    if "memory" in why:
        engine._runner.kv_prefix_budget = 0
    items = []
    engine.submit(SpeechRequest("Hello there.", seed=1, max_new_tokens=60), items.append)
    while not items:
        engine.turn()
    (before,) = engine._scheduler.running
    engine.submit(SpeechRequest("Short.", seed=2, max_new_tokens=5), lambda _: None)
    engine.turn()
    assert engine._scheduler.running == [before]
    engine.finish()


def test_a_long_text_whose_listener_hears_nothing_makes_room_and_gets_on(golden, monkeypatch):
    """While short ones come all the time, it has some frames done in each slot that it is given."""
    monkeypatch.setattr(voicing, "AHEAD_SECONDS", 1e9)  # nobody is well ahead
    engine, heard = ByHand(golden, slots=1), []
    request = dataclasses.replace(endless(golden, monkeypatch), text="One sentence. " * 60)
    ticket = engine.submit(request, heard.append)
    while not heard:
        engine.turn()
    (long,) = engine._scheduler.running
    at_pauses = []
    for _ in range(3):
        while long.status is not JobStatus.WAITING:
            long.audible_until = 0.0
            short = engine.submit(SpeechRequest("Short.", seed=2, max_new_tokens=2), lambda _: None)
            engine.turn()
        at_pauses.append(len(long.sequence.frames))
        while long.status is JobStatus.WAITING:
            engine.turn()
    assert np.diff(at_pauses).tolist() == [scheduler_module.FRAMES_BETWEEN_PAUSES] * 2
    ticket.cancel()
    engine.finish()
    assert short.finish_reason


def test_long_texts_leave_places_in_the_queue_for_short_ones(golden):
    engine = ByHand(golden, slots=1, queue=4)
    long, short = SpeechRequest("One sentence. " * 30, chunk_length=20, max_new_tokens=3), SpeechRequest("Short.", max_new_tokens=3)
    for _ in range(1 + 3):
        engine.submit(long, lambda _: None)
    with pytest.raises(Overloaded):
        engine.check_open(long=True)
    with pytest.raises(Overloaded, match="3 requests are waiting already"):
        engine.submit(long, lambda _: None)
    engine.submit(short, lambda _: None)
    with pytest.raises(Overloaded, match="4 requests are waiting already"):
        engine.submit(short, lambda _: None)


def test_a_short_text_is_short_though_it_has_several_segments(golden):
    engine = ByHand(golden, slots=1)
    for text in ("One sentence. " * 60, "One sentence. Another. A third."):
        engine.submit(SpeechRequest(text, chunk_length=20), lambda _: None)
    assert [job.urgency for job in engine._scheduler.waiting] == [Urgency.FIRST, Urgency.SHORT]


def test_a_later_segment_computes_only_what_is_new(golden, monkeypatch):
    engine, columns = ByHand(golden, slots=1), []
    slow = golden.lm.slow
    monkeypatch.setattr(golden.lm, "slow", lambda c, *rest: columns.append(c.shape[2]) or slow(c, *rest))
    ticket = engine.submit(
        SpeechRequest("One sentence here. Another one there.", voice(300), seed=1, chunk_length=20, max_new_tokens=30), lambda _: None
    )
    engine.finish()
    prompt = sum(columns)
    assert ticket.codes.shape[1] > 0
    assert prompt < 300 + 37 + 40 + 2 * 60  # system, voice, and two segments; not the voice twice


def test_text_that_comes_late_is_spoken_as_if_it_had_been_there(golden):
    engine = ByHand(golden, slots=1)
    early = live(engine, "One sentence.", "Another one.", "And a last.")
    engine.complete(early)
    whole = engine.submit(
        SpeechRequest("One sentence. Another one. And a last.", seed=1, max_new_tokens=20, chunk_length=14), lambda _: None
    )
    engine.finish()
    late = live(engine, "One sentence.")
    engine.finish()  # it waits, and takes no row
    assert (late.finish_reason, engine._runner.sequences, engine._runner.free) == (None, [], True)
    engine.extend(late, "Another one.")
    engine.turn()
    engine.extend(late, "And a last.")
    engine.complete(late)
    engine.finish()
    assert early.finish_reason == late.finish_reason == whole.finish_reason
    assert np.array_equal(early.codes, whole.codes)
    assert np.array_equal(late.codes, whole.codes)


@pytest.mark.parametrize(("how", "reason"), [("complete", "length"), ("cancel", "cancelled"), ("close", "error")])
def test_a_request_that_waits_for_text_ends_when_it_should(golden, how, reason):
    engine, items = ByHand(golden, slots=1), []
    ticket = live(engine, "One sentence.", items=items, max_new_tokens=3)
    engine.finish()
    assert ends(items) == []
    if how == "close":
        engine.close()
        SpeechEngine._loop(engine)
    else:
        {"cancel": ticket.cancel, "complete": lambda: engine.complete(ticket)}[how]()
        engine.turn()
    assert ticket.finish_reason == reason
    assert len(ends(items)) == 1
    engine.extend(ticket, "Too late.")
    engine.complete(ticket)
    assert engine.idle


def test_more_text_than_one_request_may_have_is_refused(golden, monkeypatch):
    monkeypatch.setattr(scheduler_module, "MAX_LIVE_SEGMENTS", 2)
    engine = ByHand(golden, slots=1)
    ticket = live(engine, "One.", "Two.")
    with pytest.raises(RequestError, match="more than 2 pieces of text"):
        engine.extend(ticket, "Three.")
    with pytest.raises(RequestError, match="nothing to speak"):
        engine.extend(ticket, "...")


def test_a_live_request_says_when_all_its_text_is_spoken(golden):
    """A chunk without samples, once for each time that it waits for text."""
    engine, items = ByHand(golden, slots=1), []
    ticket = live(engine, "One sentence.", "Another one.", items=items, max_new_tokens=3)
    engine.finish()
    assert [len(i.samples) == 0 for i in items] == [*[False] * (len(items) - 1), True]
    engine.extend(ticket, "And a last.")
    engine.finish()
    assert sum(len(i.samples) == 0 for i in items) == 2
    engine.complete(ticket)
    engine.turn()
    assert ends(items) == [None]
    assert sum(isinstance(i, Audio) and len(i.samples) == 0 for i in items) == 2


def test_whoever_hears_a_pause_hears_the_next_words_soon(golden):
    """After a wait for text the chunks begin small again."""
    engine, items = ByHand(golden, slots=1), []
    ticket = live(engine, "One sentence.", items=items, max_new_tokens=60)
    engine.finish()
    heard = len(items)
    engine.extend(ticket, "Another one.")
    engine.complete(ticket)
    engine.finish()
    assert len(items[heard].samples) == len(items[0].samples)


def test_a_consumer_that_stops_reading_is_waited_for_and_stops_nobody(golden):
    """No more is made for it than one segment past the limit, and once it reads, it hears the same as one that always did."""
    engine = ByHand(golden, slots=1)
    request = SpeechRequest("Hello. " * 12, seed=1, chunk_length=10, max_new_tokens=8)
    whole = engine.generate(request)
    stream = engine.stream(request)
    for _ in range(100):
        engine.turn()
    waiting = stream._items.qsize()
    assert stream_module.MAX_UNREAD < waiting <= stream_module.MAX_UNREAD + 2  # a segment of eight frames is two chunks
    assert engine._runner.free
    other = engine.submit(SpeechRequest("Hello.", seed=1, max_new_tokens=8), lambda _: None)
    while other.finish_reason is None:
        engine.turn()
    assert other.codes.shape[1] > 0
    assert stream.finish_reason is None
    read = 0
    while True:
        if not stream._items.qsize():
            engine.turn()
        elif next(stream, None):
            read += 1
        else:
            break
    assert read > waiting
    assert np.array_equal(stream.codes, whole)


def test_who_does_not_read_takes_no_place_in_the_queue(golden, monkeypatch):
    monkeypatch.setattr(scheduler_module, "MAX_BEHIND", 2)
    engine = ByHand(golden, slots=1, queue=1)
    for _ in range(2):
        engine.submit(SpeechRequest("Hello. " * 9, seed=1, chunk_length=10, max_new_tokens=8), lambda _: None, unread=lambda: 99)
        for _ in range(30):
            engine.turn()
    assert [job.handle.is_behind() for job in engine._scheduler.waiting] == [True, True]
    with pytest.raises(Overloaded, match="requests are waiting already"):  # there are too many of them
        engine.submit(SpeechRequest("Hello."), lambda _: None)
    monkeypatch.setattr(scheduler_module, "MAX_BEHIND", 3)
    for _ in range(2):
        engine.submit(SpeechRequest("Hello.", max_new_tokens=3), lambda _: None)
    asked = []
    monkeypatch.setattr(engine._scheduler._retry_times, "next", lambda jobs: asked.extend(jobs) or 1.0)
    with pytest.raises(Overloaded, match="requests are waiting already"):  # one has the slot, one the place
        engine.submit(SpeechRequest("Hello."), lambda _: None)
    assert [job.request.max_new_tokens for job in asked] == [3, 3]  # nobody knows when the others end


def test_a_reader_who_comes_back_wakes_the_engine(golden):
    """The engine's thread sleeps while it waits for a reader alone."""
    with SpeechEngine(golden, slots=1) as engine:
        stream = engine.stream(SpeechRequest("Hello. " * 12, seed=1, chunk_length=10, max_new_tokens=8))
        wait(lambda: stream._items.qsize() > stream_module.MAX_UNREAD and not engine._scheduler.running)
        assert sum(1 for _ in stream) > 12
        assert stream.finish_reason is not None


def test_two_slots_that_fault_together_leave_nothing_behind(golden):
    engine = ByHand(golden, slots=2)
    for _ in range(2):
        engine.submit(SpeechRequest("Hello there.", voice(50), temperature=0, max_new_tokens=500), lambda _: None)
        engine.turn()
    assert len(engine._runner.sequences) == 2
    engine._runner._cache.v[:, :2, :, 40] = torch.nan
    engine.turn()
    assert engine.idle
    assert not engine._runner._cache.v.isnan().any()


@pytest.mark.parametrize("budget", [0, 10**9])
def test_a_long_text_is_the_same_whether_its_prefix_was_kept(golden, budget):
    engine = ByHand(golden, slots=1)
    engine._runner.kv_prefix_budget = budget
    request = SpeechRequest("One here. Another there. A third one.", voice(40), temperature=0, chunk_length=15, max_new_tokens=8)
    ticket = engine.submit(request, lambda _: None)
    engine.finish()
    assert ticket.codes.tolist() == ByHand(golden, slots=1).generate(request).tolist()


def test_all_bits_of_a_seed_count(golden):
    engine = ByHand(golden, slots=1)
    codes = [engine.generate(SpeechRequest("Hello.", seed=s, max_new_tokens=20)).tolist() for s in (5, 5 + 2**32, 5)]
    assert codes[0] == codes[2]
    assert codes[0] != codes[1]


def test_the_slots_keep_to_a_budget_of_memory(golden):
    c = golden.config
    row = 2 * c.n_layer * c.n_local_heads * c.max_seq_len * c.head_dim * 4
    engine = ByHand(golden, slots=9, kv_bytes=6 * row)
    cache = engine._runner._cache
    # Three requests and the row where prompts are computed; a quarter as much for voices, and a quarter for those that wait.
    assert cache.k.nbytes + cache.v.nbytes == 4 * row
    assert engine._runner.kv_prefix_budget == row
    with pytest.raises(RequestError, match="GiB for keys and values is too little"):
        ByHand(golden, kv_bytes=row)


@pytest.mark.parametrize(("device", "slots"), [("cpu", 8), ("cuda", 64)])
def test_a_device_has_its_usual_number_of_slots(golden, device, slots):
    there = dataclasses.replace(golden, device=torch.device(device))
    assert affordable_slots(there, None, 2**40) == slots
    assert affordable_slots(there, 3, 2**40) == 3


def test_prefixes_are_shared_as_far_as_columns_agree(golden):
    prompt = golden_tensors("lm_tiny/prompts.safetensors")["plain"].long()
    prefix = KVPrefix.of(golden.lm.new_cache(1, 64), 0, prompt)
    assert prefix.shared(prompt) == prompt.shape[1]
    assert prefix.shared(torch.cat((prompt, prompt), dim=1)) == prompt.shape[1]
    changed = prompt.clone()
    changed[3, 7] += 1
    assert prefix.shared(changed) == 7


def test_voices_are_forgotten_least_recently_used_first(golden):
    def prefix(n):
        return KVPrefix.of(golden.lm.new_cache(1, 64), 0, torch.full((9, 10), n))

    a, b, c = map(prefix, range(3))
    cache = PrefixCache(2 * a.bytes)
    cache.put(a)
    cache.put(b)
    assert cache.get(a.columns) is a
    cache.put(c)
    assert cache.get(b.columns) is None
    assert cache.get(a.columns) is a
    assert cache.bytes <= 2 * a.bytes
    PrefixCache(a.bytes - 1).put(a)  # too large for all of it: not kept, and no error
