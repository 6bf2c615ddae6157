"""Prompts of several sequences in one pass, with a plain step in the kernels' place: the same as one after the other."""

from types import SimpleNamespace

import pytest
import torch

from inference import SpeechRequest
from inference.engine import metrics
from inference.engine.prefill import BLOCK, PREFILL, Piece, PrefillGraphs, capture_prefill
from inference.engine.runner import Runner, Sequence
from inference.model.config import GenerationDefaults
from tests.conftest import golden_tensors
from tests.inference.engine.eager_step import PlainPrefill, with_graphs

PROMPTS = golden_tensors("lm_tiny/prompts.safetensors")
NAMES = ("plain", "one_ref", "two_refs", "long_single")


def sequence(name, fixed=0, limit=9):
    request = SpeechRequest("x", temperature=0).resolved(GenerationDefaults())
    return Sequence(request, PROMPTS[name].long(), limit, 0, fixed)


@pytest.fixture
def runner(golden):
    """A runner with graphs that counts its passes."""
    made = with_graphs(Runner(golden, slots=4))
    launch, made.passes = made._prefill_graphs.launch, []

    def counted(pieces):
        made.passes.append([(piece.row, piece.start, piece.columns.shape[1]) for piece in pieces])
        return launch(pieces)

    made._prefill_graphs.launch = counted
    return made


def staged(runner, *sequences):
    for s in sequences:
        assert runner.free
        runner.stage(s)
    return sequences


def finished(runner, *sequences):
    """Compute what is staged, then all frames of these."""
    while runner._staged:
        runner.prefill()
    while any(s.finish is None for s in sequences):
        runner.step()
    return [[frame.tolist() for frame in s.frames[: s.limit]] for s in sequences]  # one that ended first went on beside the others


@pytest.fixture(scope="module")
def alone(golden):
    """The frames of each prompt where it is computed alone and without graphs."""

    def frames(name):
        runner, s = Runner(golden, slots=1), sequence(name)
        runner.stage(s)
        return finished(runner, s)[0]

    return {name: frames(name) for name in NAMES}


def columns_of(*names):
    return [PROMPTS[name].shape[1] - 1 for name in names]


def test_prompts_share_a_pass_and_stay_where_they_are_computed(runner, alone):
    names = ("plain", "one_ref")
    first, second = staged(runner, *map(sequence, names))
    counts = columns_of(*names)
    assert sum(-(-n // BLOCK) * BLOCK for n in counts) <= runner.prefill() <= PREFILL
    assert (first.slot, second.slot) == (0, 1)
    assert runner.passes == [[(0, 0, counts[0]), (1, 0, counts[1])]]
    assert finished(runner, first, second) == [alone[name] for name in names]


def test_what_is_too_long_for_a_pass_goes_on_in_the_next(runner, alone, monkeypatch):
    monkeypatch.setattr("inference.engine.runner.PREFILL", 64)
    s = staged(runner, *map(sequence, ("plain", "two_refs")))
    assert not runner.free  # the next pass is full
    assert finished(runner, *s) == [alone["plain"], alone["two_refs"]]
    assert all(sum(-(-n // BLOCK) * BLOCK for _, _, n in one) <= 64 for one in runner.passes)
    assert len(runner.passes) > 2


def test_a_voice_is_computed_once_for_a_burst(runner, alone):
    fixed = 20
    (first,) = staged(runner, sequence("plain", fixed))
    assert not runner.free  # the others may begin with the same voice
    runner.prefill()
    assert first.length == fixed
    others = staged(runner, *(sequence("plain", fixed) for _ in range(3)))
    assert [s.length for s in others] == [fixed] * 3
    assert finished(runner, first, *others) == [alone["plain"]] * 4
    (rest,) = columns_of("plain")
    assert runner.passes[1] == [(row, fixed, rest - fixed) for row in range(4)]


def test_rows_that_become_free_are_taken_in_order(runner, alone):
    """Two leave while two more are computed: these move in front, also where one is in the other's way."""
    gone = staged(runner, *map(sequence, ("plain", "plain")))
    finished(runner)
    late, later = staged(runner, *map(sequence, ("one_ref", "plain")))
    assert [*runner._staged.values()] == [2, 3]
    for s in gone:
        runner.remove(s)
    (last,) = staged(runner, sequence("plain"))
    assert runner._staged[last] == 0
    assert finished(runner, late, later, last) == [alone["one_ref"], alone["plain"], alone["plain"]]
    assert [s.slot for s in (late, later, last)] == [0, 1, 2]
    assert not runner._cache.both[:, :, 3:].any()


def test_a_paused_sequence_comes_back_to_where_a_prompt_was_computed(runner, alone):
    first, paused = staged(runner, *map(sequence, ("plain", "one_ref")))
    finished(runner)
    for _ in range(3):
        runner.step()
    assert runner.pause(paused)
    (prompt,) = staged(runner, sequence("two_refs"))
    assert runner._staged[prompt] == 1
    runner.resume(paused)
    assert (paused.slot, runner._staged[prompt]) == (1, 2)
    assert finished(runner, first, paused, prompt) == [alone[name] for name in ("plain", "one_ref", "two_refs")]


def test_a_prompt_that_is_no_number_faults_alone_and_leaves_nothing(runner, alone):
    sick, well = staged(runner, *map(sequence, ("two_refs", "plain")))
    runner._cache.v[:, runner._staged[sick], :, 3] = torch.nan
    sick.length = 5  # what is there already cannot be trusted
    runner.remove(sick)
    assert runner._cache.v.isfinite().all()
    (again,) = staged(runner, sequence("two_refs"))
    assert finished(runner, well, again) == [alone["plain"], alone["two_refs"]]


def test_states_are_those_of_the_step(golden):
    runner = with_graphs(Runner(golden, slots=2))
    prompts = [PROMPTS[name].long() for name in ("two_refs", "plain")]
    states = runner._prefill_graphs.launch([Piece(prompt, row, 0) for row, prompt in enumerate(prompts)])
    keys = runner._cache.k.clone()
    for row, (prompt, ours) in enumerate(zip(prompts, states, strict=True)):
        theirs = runner._step.prompt(prompt[None], runner._cache, row, 0)[0]
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(keys, runner._cache.k)


def test_passes_that_are_wrong_are_found_out_at_the_start(golden):
    runner = with_graphs(Runner(golden, slots=2))
    runner._prefill_graphs.check(runner._step)
    assert not runner._cache.both.any()

    class Wrong(PlainPrefill):
        def run(self, columns, blocks, cache, hidden):
            super().run(columns, blocks, cache, hidden)
            hidden[: len(hidden) // 2] *= 1.2

    wrong = PrefillGraphs(Wrong(runner._step), runner._cache, runner._codebooks, runner._lm.embeddings.weight)
    with pytest.raises(RuntimeError, match="graph of 32 prompt columns: other states than the eager step's"):
        wrong.check(runner._step)


@pytest.mark.parametrize(("frames", "reason"), [(True, "graphs failed: "), (False, "graphs failed: RuntimeError: frames have no graphs")])
def test_where_graphs_cannot_be_had_prompts_run_one_after_the_other(golden, caplog, frames, reason):
    runner, zeroed = Runner(golden, slots=1), []
    cache = SimpleNamespace(both=SimpleNamespace(device=torch.device("cuda"), zero_=lambda: zeroed.append(1)))
    captured = capture_prefill(runner._step, cache, frames)
    assert (captured.graphs, zeroed) == (None, [1])
    assert captured.how.startswith(f"eager; {reason}")
    assert "prefill: CUDA graphs are not used, so that prompts are computed one after the other, and slower" in caplog.text
    assert metrics.GRAPHS.labels("prefill")._value.get() == 0
    assert runner.prefill_how == "eager: graphs are for CUDA"


def test_without_graphs_of_prompts_frames_still_have_theirs(golden, alone):
    """As on a GPU that refuses only these: one prompt at a time, in the row behind the slots."""
    runner = with_graphs(Runner(golden, slots=2))
    runner._prefill_graphs = None
    (s,) = staged(runner, sequence("two_refs"))
    assert not runner.free
    assert runner._staged[s] == 2
    assert finished(runner, s) == [alone["two_refs"]]
