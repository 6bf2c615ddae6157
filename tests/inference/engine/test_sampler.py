import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.sampler import HEAD, NOISE_FRAMES, NONE, Controls, Noise, penalise, rank, sample, seen_ids
from tests.conftest import golden_json, golden_tensors

CASES = golden_json("sampling_cases.json")
TENSORS = golden_tensors("sampling_cases.safetensors")


def controls(temperature=1.0, top_p=1.0, penalty=1.0, rows=1):
    return Controls.of([(temperature, top_p, penalty)] * rows, torch.device("cpu"))


def probabilities(logits, history, chosen):
    """What `sample` draws from, in the order of the ids."""
    scores, ids = rank(logits, seen_ids(history, logits.shape[1]), chosen)
    return torch.zeros_like(logits).scatter(1, ids, scores.softmax(-1))


def run(case):
    i = case["case"]
    history = TENSORS[f"{i}.previous"].long() if case["has_previous"] else torch.tensor([NONE])
    chosen = controls(case["temperature"], case["top_p"], case["repetition_penalty"])
    return probabilities(TENSORS[f"{i}.logits"][None], history[None], chosen)[0]


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c["case"]))
def test_probabilities_equal_the_reference(case):
    # Where the sum of probabilities all but equals top_p, rounding decides which tail tokens stay: only mass can be compared.
    tolerance = 1e-6 if case["distance_of_top_p_from_nearest_cumsum"] > 1e-5 else 1e-3
    torch.testing.assert_close(run(case), TENSORS[f"{case['case']}.probs"], atol=tolerance, rtol=0)


logits = st.lists(st.integers(-64, 64), min_size=2, max_size=30, unique=True).map(lambda x: torch.tensor(x) / 8)  # equal ones have no order


@given(logits, st.lists(st.integers(0, 1), max_size=4), st.floats(0.1, 1.9))
def test_a_repeated_id_is_penalised_once(x, ids, penalty):
    def penalised(*history):
        return penalise(x[None], seen_ids(torch.tensor([history]), len(x)), torch.tensor([[penalty]]))[0]

    once = penalised(*set(ids), NONE)
    assert torch.equal(penalised(*ids, *ids, NONE), once)
    untouched = [i for i in range(len(x)) if i not in ids]
    assert torch.equal(once[untouched], x[untouched])


@given(logits, st.floats(0, 1), st.floats(0.05, 2))
def test_probabilities_are_a_distribution_with_the_likeliest_in(x, top_p, temperature):
    p = probabilities(x[None], torch.tensor([[NONE]]), controls(temperature, top_p))[0]
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert x[p.argmax()] == x.max()


def gumbel(shape, seed):
    return -torch.empty(shape).exponential_(generator=torch.Generator().manual_seed(seed)).log()


def draw(logits, seen, chosen, noise):
    """`sample` where the noise is enough."""
    return sample(logits, seen, chosen, noise, pytest.fail)


@given(logits, st.integers(0, 9))
def test_rows_do_not_touch_each_other(x, seed):
    batch = torch.stack((x, x.flip(0), x * 2))
    noise = gumbel(batch.shape, seed)
    seen = seen_ids(torch.tensor([[0, 1], [NONE, NONE], [1, 1]]), len(x))
    rows = [(0.0, 0.5, 1.2), (0.7, 0.9, 1.0), (1.5, 1.0, 0.8)]
    together = draw(batch, seen, Controls.of(rows, torch.device("cpu")), noise)
    for i in range(3):
        assert together[i] == draw(batch[i : i + 1], seen[i : i + 1], controls(*rows[i]), noise[i : i + 1])[0]


@given(logits, st.integers(0, 9))
def test_temperature_zero_takes_the_likeliest_whatever_the_noise(x, seed):
    unseen = torch.zeros(1, len(x), dtype=torch.bool)
    assert x[draw(x[None], unseen, controls(0.0), gumbel((1, len(x)), seed))[0]] == x.max()


def test_temperature_zero_comes_after_the_penalty():
    x, noise = torch.tensor([[1.0, 3.0, 2.9]]), torch.zeros(1, 3)
    assert draw(x, seen_ids(torch.tensor([[NONE]]), 3), controls(0.0, 1.0, 1.2), noise).item() == 1
    assert draw(x, seen_ids(torch.tensor([[1]]), 3), controls(0.0, 1.0, 1.2), noise).item() == 2


def test_draws_follow_the_probabilities():
    x = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(40_000, 4)
    drawn = draw(x, torch.zeros_like(x, dtype=torch.bool), controls(0.8, rows=40_000), gumbel(x.shape, 0))
    expected = (x[0] / 0.8).softmax(-1)
    torch.testing.assert_close(drawn.bincount(minlength=4) / 40_000, expected, atol=0.01, rtol=0)


def test_a_certain_id_leaves_no_other_in():
    x = torch.full((1, 1000), -40.0)
    x[0, 500:600] = -21.0
    x[0, 7] = 0.0  # so likely that in FP32 the next ones do not add to it
    for top_p in (0.0, 0.7):
        scores, ids = rank(x, None, controls(2.0, top_p))
        assert scores.isfinite().sum() == 1
        assert ids[0, scores.argmax()] == 7


def test_draws_of_many_ids_follow_the_probabilities_too():
    noises = [Noise(torch.Generator().manual_seed(seed), 1) for seed in range(10)]
    x = torch.zeros(len(noises), 4 * HEAD)  # all alike
    drawn = []
    for _ in range(2000):
        gumbel = torch.stack([n.frame()[0] for n in noises])
        drawn.append(sample(x, None, controls(rows=len(x)), gumbel, lambda count: torch.stack([n.rest(0, count) for n in noises])))
    counts = torch.cat(drawn).bincount(minlength=4 * HEAD)
    assert abs(counts[:HEAD].sum() / counts.sum() - 0.25) < 0.02  # the noise of the first ranks and of the others is of one kind
    assert counts.min() > 0


def test_noise_comes_back_with_its_seed_and_differs_from_draw_to_draw():
    one, again, other = (Noise(torch.Generator().manual_seed(seed), 2) for seed in (1, 1, 2))
    seen = set()
    for _ in range(NOISE_FRAMES + 2):
        a, b, c = one.frame(), again.frame(), other.frame()
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        for i in range(2):
            rest = one.rest(i, 40)
            assert torch.equal(rest, one.rest(i, 40))  # and `again`, never asked, goes on alike
            seen |= {tuple(rest.tolist()), tuple(a[i].tolist())}
    assert len(seen) == 4 * (NOISE_FRAMES + 2)
