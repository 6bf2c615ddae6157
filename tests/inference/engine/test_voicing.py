"""Whose frames become sound first: the rules alone, on jobs that speak nothing."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from inference.engine.voicing import AHEAD_SECONDS, SOON_SECONDS, choose, is_ahead, runs_out

NOW, ENOUGH = 1000.0, 128


class Frames:
    def __init__(self, number):
        self.number = number

    def next_frames(self, most):
        return min(self.number, most)


class Job(SimpleNamespace):
    __hash__ = object.__hash__


def job(*, heard=True, ahead=0.0, frames=4, due=True, short=True, submitted=NOW):
    unheard = not heard
    return Job(
        unheard=unheard,
        urgent=unheard and short,
        short=short,
        audible_until=NOW + ahead,
        sound_due=due,
        vocoder=Frames(frames),
        submitted=submitted,
    )


def test_who_has_heard_nothing_comes_first_and_then_whose_sound_runs_out():
    last, later, long = job(ahead=0.1), job(ahead=0.05), job(heard=False, short=False)
    second, first = job(heard=False), job(heard=False, submitted=NOW - 1)
    assert list(choose([last, long, second, later, first], NOW, ENOUGH, ENOUGH, False)) == [first, second, long, later, last]


def test_who_is_ahead_waits_while_somebody_has_heard_nothing():
    ahead, begins, long = job(ahead=AHEAD_SECONDS + 1), job(heard=False, due=False), job(heard=False, due=False, short=False)
    assert choose([ahead], NOW, ENOUGH, ENOUGH, False) == choose([ahead, long], NOW, ENOUGH, ENOUGH, False) == {ahead: 4}
    assert choose([ahead, begins], NOW, ENOUGH, ENOUGH, False) == {}


def test_where_passes_run_beside_the_frames_nobody_waits():
    ahead, begins, runs_out = job(ahead=AHEAD_SECONDS + 1, frames=32), job(heard=False), job(frames=32)
    assert list(choose([ahead, runs_out, begins], NOW, ENOUGH, None, True).items()) == [(begins, 4), (runs_out, 32), (ahead, 32)]


def test_silence_before_the_first_word_holds_up_nothing():
    first = job(heard=False, ahead=9)
    assert choose([first], NOW, ENOUGH, ENOUGH, False) == {first: 4}


def test_beside_a_first_sound_the_others_have_few_frames():
    first, runs_out, next_one = job(heard=False, frames=4), job(frames=32), job(ahead=0.01, frames=32)
    assert choose([next_one, runs_out, first], NOW, 32, 8, True) == {first: 4, runs_out: 8}
    assert choose([next_one, runs_out], NOW, 64, 8, True) == {runs_out: 32, next_one: 32}


def test_in_a_round_held_for_a_first_sound_a_long_text_that_nobody_hears_waits():
    first, silent, unheard = job(heard=False), job(ahead=-1, short=False), job(heard=False, short=False)
    runs_out_soon, later, short = job(ahead=0.04, short=False), job(ahead=0.1, short=False), job(ahead=-1)
    there = [unheard, silent, later, runs_out_soon, short, first]
    assert list(choose(there, NOW, ENOUGH, ENOUGH, True)) == [first, short, runs_out_soon]
    assert list(choose(there, NOW, ENOUGH, ENOUGH, False)) == [first, unheard, silent, short, runs_out_soon, later]


jobs = st.builds(
    job, heard=st.booleans(), ahead=st.floats(-5, 5), frames=st.sampled_from((4, 8, 16, 32)), due=st.booleans(), short=st.booleans()
)


@given(st.lists(jobs, max_size=12), st.sampled_from((8, 32, 128)), st.sampled_from((8, 128)), st.booleans())
def test_a_round_takes_no_more_than_it_may_and_never_nothing(there, frames, beside, held):
    passes = choose(there, NOW, frames, beside, held)
    assert all(j.sound_due for j in passes)
    assert len(passes) == 1 or sum(passes.values()) <= frames
    urgent = [j for j in there if j.urgent]
    soon = [j for j in there if (runs_out(j, NOW) and j.audible_until <= NOW + SOON_SECONDS if held else not is_ahead(j, NOW))]
    wanted = [j for j in there if j.sound_due and (j in urgent or j in soon)]
    assert bool(passes) >= bool(wanted)
    assert all(j in urgent for j in passes) or all(j in passes for j in urgent if j.sound_due)
    if urgent:
        assert max(passes.values(), default=0) <= beside
