"""State machines of the scheduler: whatever is asked, in any order, every request ends once and as it would alone."""

import contextlib
import math

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from inference import Audio, Overloaded, SpeechRequest, Voice
from inference.engine import voicing
from inference.engine.graphs import PendingFrames
from inference.engine.guard import Paces
from inference.engine.job import JobStatus
from inference.engine.vocoder import MAX_FLYING
from inference.model import checkpoint as checkpoints
from inference.model.config import SAMPLES_PER_FRAME
from tests.inference.engine.by_hand import ByHand, ends, live, voice
from tests.inference.engine.eager_step import LateSound, PlainPrefill, with_graphs, with_late_sound

TEXTS = ("Hello there.", "One. Two two. Three three three.", "A rather longer sentence, which takes a little more of the context.")


class Scheduling(RuleBasedStateMachine):
    """Submit, cancel, fail and forget in any order: every request ends once, alone or with its neighbours' help."""

    checkpoint = None
    graphs = False
    alone: dict = {}  # noqa: RUF012 - shared by all runs

    @initialize(slots=st.integers(1, 3), queue=st.integers(1, 4))
    def start(self, slots, queue):
        self.engine = ByHand(self.checkpoint, slots=slots, queue=queue)
        if self.graphs:
            with_graphs(self.engine._runner)
            with_late_sound(self.engine._vocoder)
        self.engine._runner._prefixes._budget //= 20  # so that voices are forgotten
        self.requests = []

    def expected_live(self, texts, seed):
        key = (*texts, seed)
        if key not in self.alone:
            engine = ByHand(self.checkpoint, slots=1)
            ticket = live(engine, *texts, seed=seed, max_new_tokens=9, chunk_length=30)
            engine.complete(ticket)
            engine.finish()
            self.alone[key] = ticket.codes
        return self.alone[key]

    def expected(self, request):
        key = (
            request.text,
            request.seed,
            request.max_new_tokens,
            len(request.voice.references),
            request.voice.name,
            request.compat,
            request.quality_guard,
        )
        if key not in self.alone:
            engine = ByHand(self.checkpoint, slots=1)
            ticket = engine.submit(request, lambda _: None)
            engine.finish()
            self.alone[key] = ticket.codes
        return self.alone[key]

    @rule(
        text=st.sampled_from(TEXTS),
        seed=st.integers(0, 2),
        frames=st.sampled_from((1, 9, 40)),
        speaker=st.integers(0, 4),
        compat=st.sampled_from((None, None, None, "reference")),
        guard=st.booleans(),
    )
    def submit(self, text, seed, frames, speaker, compat, guard):
        spoken = voice(40 * speaker, speaker) if speaker else Voice()
        request = SpeechRequest(
            text, Voice(spoken.references, str(speaker)), seed=seed, max_new_tokens=frames, chunk_length=30, compat=compat,
            quality_guard=guard, guard_look_ahead=math.inf,
        )  # fmt: skip
        items = []
        scheduler = self.engine._scheduler
        there = [*scheduler.running, *scheduler.voicing, *(job for job in scheduler.waiting if not job.handle.is_behind())]
        full = len(there) >= self.engine._slots + scheduler._queue
        entry = {"request": request, "items": items, "spoilt": False, "unread": 0}
        try:
            entry["ticket"] = self.engine.submit(request, items.append, unread=lambda: entry["unread"])
        except Overloaded:
            assert full
        else:
            assert not full
            self.requests.append(entry)

    @rule(data=st.data(), unread=st.sampled_from((0, 99)))
    def stop_reading_or_read_on(self, data, unread):
        if chosen := self._drawn(data, lambda r: "unread" in r):
            chosen["unread"] = unread
            chosen["ticket"].was_read()

    @rule(text=st.sampled_from(TEXTS), seed=st.integers(0, 2))
    def submit_live(self, text, seed):
        items = []
        with contextlib.suppress(Overloaded):
            ticket = live(self.engine, text, items=items, seed=seed, max_new_tokens=9, chunk_length=30)
            self.requests.append({"texts": [text], "seed": seed, "items": items, "ticket": ticket, "spoilt": False, "open": True})

    @rule(data=st.data(), text=st.sampled_from(TEXTS))
    def extend(self, data, text):
        if chosen := self._drawn(data, lambda r: r.get("open") and r["ticket"].finish_reason is None):
            self.engine.extend(chosen["ticket"], text)
            chosen["texts"].append(text)

    @rule(data=st.data())
    def complete(self, data):
        if chosen := self._drawn(data, lambda r: r.get("open")):
            self.engine.complete(chosen["ticket"])
            chosen["open"] = False

    def _drawn(self, data, which):
        found = [r for r in self.requests if which(r)]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(data=st.data())
    def cancel(self, data):
        if self.requests:
            chosen = data.draw(st.sampled_from(self.requests))
            chosen["spoilt"] |= chosen["ticket"].finish_reason is None
            chosen["ticket"].cancel()

    @rule(data=st.data())
    def poison(self, data):
        running = [j for j in self.engine._scheduler.running if j.sequence and j.sequence.slot >= 0]
        if running:
            job = data.draw(st.sampled_from(running))
            self.engine._runner._cache.v[:, job.sequence.slot, :, 1] = torch.nan
            next(r for r in self.requests if r["ticket"] is job.handle)["spoilt"] = True

    @rule()
    def lose_the_device_for_a_round(self):
        def fail(*_):
            raise RuntimeError("out of memory")

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(self.engine._runner._step, "token_logits", fail)
            for r in self.requests:
                r["spoilt"] |= r["ticket"].finish_reason is None
            self.engine.turn()

    @rule(rounds=st.integers(1, 30))
    def go_on(self, rounds):
        for _ in range(rounds):
            self.engine.turn()

    @invariant()
    def slots_are_in_order_and_within_budget(self):
        if not hasattr(self, "engine"):
            return
        runner = self.engine._runner
        assert [s.slot for s in runner.sequences] == list(range(len(runner.sequences)))
        assert len(runner.sequences) <= self.engine._slots
        assert runner._prefixes.bytes <= runner._prefixes._budget
        assert all(len(ends(r["items"])) == (r["ticket"].finish_reason is not None) for r in self.requests)

    def teardown(self):
        if not hasattr(self, "engine"):
            return
        for r in self.requests:
            self.engine.complete(r["ticket"])
            r["unread"] = 0
        self.engine.finish()
        self.engine.turn()
        assert self.engine._scheduler._live == {}
        assert self.engine._runner.sequences == []
        assert self.engine._runner.free
        for r in self.requests:
            assert len(ends(r["items"])) == 1
            if not r["spoilt"]:
                expected = self.expected(r["request"]) if "request" in r else self.expected_live(r["texts"], r["seed"])
                assert np.array_equal(r["ticket"].codes, expected)
        self.engine.close()


@pytest.fixture(scope="module")
def small(golden_directory):
    Scheduling.checkpoint = checkpoints.load(golden_directory, torch.device("cpu"))
    with pytest.MonkeyPatch.context() as often:
        often.setattr(voicing, "AHEAD_SECONDS", -1e9)  # whoever has heard anything may be paused
        often.setattr(Paces, "learn", lambda *_: None)  # else the guard judges by what it heard before
        yield


EXAMPLES = pytest.mark.parametrize("examples", [3, pytest.param(300, marks=pytest.mark.drill)])


@EXAMPLES
def test_every_request_ends_once_and_unharmed_by_others(small, examples):  # noqa: ARG001 - sets the machine's checkpoint
    run_state_machine_as_test(Scheduling, settings=settings(max_examples=examples, stateful_step_count=30))


class SchedulingAhead(Scheduling):
    """The same where frames and sound are on their way while anything happens, as on CUDA; alone is still without."""

    graphs = True

    @rule()
    def lose_the_device_under_way(self):
        def fail(_):
            raise RuntimeError("an illegal memory access was encountered")

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(PendingFrames, "wait", fail)
            for r in self.requests:
                r["spoilt"] |= r["ticket"].finish_reason is None
            self.engine.turn()

    @rule()
    def lose_the_sound_under_way(self):
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(LateSound, "lost", True)
            for r in self.requests:
                r["spoilt"] |= r["ticket"].finish_reason is None
            self.engine.turn()

    @rule()
    def lose_the_prompts_under_way(self):
        """Whose prompts are computed, or would be now, may be lost; nobody else."""

        def fail(*_):
            raise RuntimeError("out of memory")

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(PlainPrefill, "run", fail)
            begun = {job.handle for job in self.engine._scheduler.running if job.status is JobStatus.DECODING}
            for r in self.requests:
                r["spoilt"] |= r["ticket"].finish_reason is None and r["ticket"] not in begun
            self.engine.turn()

    @invariant()
    def no_prompt_is_computed_where_another_sequence_is(self):
        if hasattr(self, "engine"):
            runner = self.engine._runner
            rows = [*range(len(runner.sequences)), *runner._staged.values()]
            assert len(rows) == len(set(rows)) <= self.engine._slots
            assert max(rows, default=0) < runner._cache.rows

    @invariant()
    def few_passes_are_on_their_way_and_none_for_nobody(self):
        if hasattr(self, "engine"):
            flying = [stream for one in self.engine._vocoder.flying for stream in one.streams]
            assert len(flying) == len(set(flying))
            assert all(stream.flying for stream in flying)
            assert len(self.engine._vocoder.flying) < 2 * MAX_FLYING + 4

    def teardown(self):
        super().teardown()
        for r in self.requests:
            if not r["spoilt"]:
                samples = sum(len(item.samples) for item in r["items"] if isinstance(item, Audio))
                assert samples >= SAMPLES_PER_FRAME * r["ticket"].codes.shape[1]


@EXAMPLES
def test_frames_on_their_way_are_nobody_elses(small, examples):  # noqa: ARG001 - sets the machine's checkpoint
    run_state_machine_as_test(SchedulingAhead, settings=settings(max_examples=examples, stateful_step_count=30))
