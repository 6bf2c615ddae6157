"""All fast layers in one kernel: its programs run beside each other in Triton's interpreter, in any order, against plain PyTorch."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is for Linux alone")

from inference.engine import fast_layers_kernels
from inference.engine.cuda_decode_step import FusedStep, Layer
from inference.engine.decode_step import Step
from inference.engine.device import allowed_fast_layers
from inference.engine.fast_layers_kernels import FastLayers
from inference.engine.launching import compiling_for, resident
from inference.engine.runner import WINDOW, Runner
from inference.errors import RequestError
from tests.inference.engine.eager_step import PlainStep
from tests.inference.engine.interleaved import interleaved
from tests.inference.engine.kernel_cases import TYPES, close, random
from tests.inference.engine.test_kernels import CHANGES, head_of, model, running

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
LAYERS, BARRIERS = 2, 8
SHAPES = [{}, {"n_local_heads": 2, "attention_qkv_bias": True}, {"dim": 24, "n_head": 6, "n_local_heads": 2, "intermediate_size": 20}]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Case:
    """The fast layers of a small model behind `position` positions: as one kernel, and as its own step computes them."""

    def __init__(self, dtype=torch.float32, position=2, **changes):
        self.lm = model(dtype, n_fast_layer=LAYERS, num_codebooks=4, **changes)
        self.step, self.position = Step(self.lm, 1), position
        self.head = head_of(self.step)
        past = random(*self.step._fast_cache.both.shape, dtype=dtype)
        past[:, :, :, :, position:] = torch.nan  # what is not written may be anything
        self.expected_cache = self.step._fast_cache
        self.expected_cache.both.copy_(past)
        self.past, self.code = past, torch.tensor([5])
        state = self.step.fast(self.code, position)
        self.expected = self.step.code_logits(state, self.head.scores)

    def run(self, programs, launches=1):
        """The logits of so many launches, of which each begins as the first did, and the cache."""
        lm, cache = self.lm, self.past.clone()
        head = lm.fast_output.weight[: self.head.codes].contiguous()
        layers = FastLayers(
            Layer.fast(self.step), (lm.fast_norm.weight, lm.fast_norm.eps), head, cache, lm.fast_rope, lm.config.fast_n_head, programs
        )
        found = []
        for _ in range(launches):
            logits = torch.full((1, self.head.codes), torch.nan)
            layers(lm.fast_embeddings.weight[self.code].clone(), self.position, logits)
            found.append(logits)
        return found, cache


@TYPES
@pytest.mark.parametrize("changes", SHAPES, ids=str)
@pytest.mark.parametrize("position", [2, 3])
def test_one_program_computes_what_the_plain_step_does(dtype, changes, position):
    case = Case(dtype, position, **changes)
    found, cache = case.run(programs=1, launches=2)
    for logits in found:
        close(logits.to(dtype), case.expected.to(dtype))
    close(cache.nan_to_num(), case.expected_cache.both.nan_to_num())


@pytest.mark.parametrize("changes", SHAPES, ids=str)
@pytest.mark.parametrize("programs", [2, 3, 7])
def test_many_programs_compute_the_same_whichever_comes_first(programs, changes):
    """Also where some have nothing to do, and in a second launch, as a graph replays it."""
    case = Case(**changes)
    (alone,), cache = case.run(programs=1)
    for seed in range(2):
        with interleaved("_fast_layers", seed) as counts:
            found, their_cache = case.run(programs, launches=2)
        assert counts == [programs] * 2
        assert all(torch.equal(logits, alone) for logits in found)
        assert torch.equal(their_cache.nan_to_num(), cache.nan_to_num())


@pytest.mark.parametrize("without", range(BARRIERS))
def test_without_a_barrier_the_order_matters(without, monkeypatch):
    """So the test before would find it missing."""
    real, programs = fast_layers_kernels._wait_for, 3

    def wait_for(counter, arrivals):
        if int(arrivals.handle.data[0]) != (without + 1) * programs:
            real(counter, arrivals)

    case = Case()
    (alone,), _ = case.run(programs=1)
    monkeypatch.setattr(fast_layers_kernels, "_wait_for", wait_for)

    def differs(seed):
        with interleaved("_fast_layers", seed):
            (logits,), _ = case.run(programs)
        return not torch.equal(logits, alone)

    assert any(map(differs, range(9)))


@pytest.mark.parametrize(("capability", "overlaps"), [((8, 0), False), ((9, 0), True)])
def test_a_gpu_begins_all_programs_at_once_and_after_the_kernel_before(capability, overlaps):
    """Else one that waits may take the place of one that it waits for; only the next kernel may begin early."""
    with compiling_for(capability):
        assert resident(torch.zeros(1, 8), 8) == {"PDL": overlaps, "num_warps": 8, "launch_cooperative_grid": True}


def in_one(programs):
    """A frame's step whose fast layers are one kernel of so many programs."""

    def make(step, head):
        made = FusedStep(step, head, 2, WINDOW, "persistent")
        made._in_one._programs = programs
        return made

    return make


@pytest.mark.parametrize("changes", [CHANGES[0], *(pytest.param(other, marks=pytest.mark.drill) for other in CHANGES[1:])], ids=str)
def test_a_frame_is_the_plain_steps(changes):
    """Two frames one after the other; two rows take the separate kernels."""
    lm = model(**changes)
    for rows in (1, 2):
        (ours, our_cache), (theirs, their_cache) = (running(lm, kind, rows, rows) for kind in (in_one(3), PlainStep))
        with interleaved("_fast_layers", 0) as counts:
            for _ in range(2):
                assert torch.equal(ours.launch(rows).wait(), theirs.launch(rows).wait())
        assert counts == ([3] * 2 if rows == 1 else [])
        close(our_cache.both[:, :, :rows], their_cache.both[:, :, :rows])


def test_a_frame_in_half_precision_is_found_right_where_the_engine_starts():
    lm = model(torch.float16)
    graphs, _ = running(lm, in_one(1), 1, 1)
    step = Step(lm, 1)
    graphs.check(step, head_of(step))


@pytest.mark.parametrize(("device", "weights"), [("cpu", "native"), ("cuda", "int8")])
def test_elsewhere_it_is_refused_in_one_sentence(device, weights):
    assert allowed_fast_layers("persistent", "native", torch.device("cuda")) == "persistent"
    assert allowed_fast_layers("separate", weights, torch.device(device)) == "separate"
    with pytest.raises(RequestError, match=f"needs CUDA and native weights, not {device} and {weights}: unset FISHSERVE_FAST_LAYERS$"):
        allowed_fast_layers("persistent", weights, torch.device(device))
    with pytest.raises(RequestError, match="fast_layers 'one' is not one of separate, persistent"):
        allowed_fast_layers("one", weights, torch.device(device))


def test_an_engine_on_a_cpu_refuses_it_too(golden):
    with pytest.raises(RequestError, match="not cpu and native"):
        Runner(golden, 1, fast_layers="persistent")
