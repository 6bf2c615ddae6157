"""Whose frames become sound first: the rules alone, on jobs that speak nothing."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from inference.engine.job import JobStatus
from inference.engine.voicing import AHEAD_SECONDS, choose

NOW = 1000.0


def job(*, heard=True, ahead=0.0, frames=4, due=True, status=JobStatus.DECODING):
    return SimpleNamespace(
        unheard=not heard, audible_until=NOW + ahead, sound_due=due, status=status, vocoder=SimpleNamespace(next_frames=frames)
    )


def test_who_has_heard_nothing_comes_first_and_then_whose_sound_runs_out():
    last, later, first = job(ahead=0.4), job(ahead=0.1), job(heard=False)
    assert choose([last, later, first], NOW, 100) == [first, later, last]


def test_who_is_well_ahead_waits_while_somebody_has_heard_nothing():
    ahead, begins = job(ahead=AHEAD_SECONDS + 1), job(heard=False, due=False)
    assert choose([ahead], NOW, 100) == [ahead]
    assert choose([ahead, begins], NOW, 100) == []
    ended = job(ahead=AHEAD_SECONDS + 1, status=JobStatus.VOICING)
    assert choose([ahead, ended, begins], NOW, 100) == [ended]


jobs = st.builds(
    job, heard=st.booleans(), ahead=st.floats(-5, 5), frames=st.sampled_from((4, 8, 16, 32)), due=st.booleans(),
    status=st.sampled_from((JobStatus.DECODING, JobStatus.VOICING)),
)  # fmt: skip


@given(st.lists(jobs, max_size=12), st.sampled_from((8, 32, 128)))
def test_a_round_takes_no_more_than_it_may_and_never_nothing(there, frames):
    chosen = choose(there, NOW, frames)
    assert all(j.sound_due for j in chosen)
    assert len(chosen) == 1 or sum(j.vocoder.next_frames for j in chosen) <= frames
    wanted = [j for j in there if j.sound_due and (j.unheard or j.audible_until <= NOW + AHEAD_SECONDS)]
    assert bool(chosen) >= bool(wanted)
    if chosen:
        assert not any(j.unheard and j not in chosen for j in there if j.sound_due) or all(j.unheard for j in chosen)
