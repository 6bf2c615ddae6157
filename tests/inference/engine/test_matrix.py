import pytest
import torch
from torch import nn

from inference import RequestError, SpeechEngine, SpeechRequest
from inference.engine.device import allowed_weights
from inference.engine.matrix import Dense, Half, Int8, Int8Small, Split, lay_out


def linears(bias):
    torch.manual_seed(0)
    maps = [nn.Linear(48, n, bias=bias).requires_grad_(False) for n in (32, 64)]
    for m in maps:
        m.weight.data = m.weight.data.bfloat16().float()
    return maps


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kind", "error"), [(Dense, 1e-6), (Split, 1e-6), (Half, 1e-6), (Int8, 0.02), (Int8Small, 0.02)])
def test_matrices_side_by_side_are_their_linear_maps(kind, error, bias, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    maps, x = linears(bias), torch.randn(5, 48)
    expected = torch.cat([m(x) for m in maps], dim=1)
    matrix = kind.of(*maps)
    assert (matrix.times(x) - expected).norm() <= error * expected.norm()
    torch.testing.assert_close(torch.cat([m(x) for m in maps], dim=1), expected)  # the maps go on working
    if not bias:
        to = torch.randn(5, 96)
        torch.testing.assert_close(matrix.added(to, x), to + matrix.times(x))


@pytest.mark.parametrize("kind", [Int8, Int8Small])
def test_a_row_is_rounded_as_if_it_were_alone(kind):
    matrix = kind.of(*linears(False))
    x = torch.randn(20, 48) * torch.tensor([1.0, 100.0, 0.01, 0.0]).repeat(5)[:, None]
    together = matrix.times(x)
    assert together.isfinite().all()
    for i in range(20):
        assert torch.equal(together[i], matrix.times(x[i : i + 1])[0])


def test_8_bit_products_do_not_overflow():
    """All inputs and weights at their largest: where pairs of products are added in 16 bits, they are cut off."""
    linear, x = nn.Linear(1024, 64, bias=False), torch.ones(1, 1024)
    linear.weight.data.fill_(0.5)
    assert torch.allclose(Int8.of(linear).times(x), linear(x), rtol=0.01)


def test_8_bit_weights_of_any_width_are_multiplied():
    for width in (33, 36, 40, 344):
        linear, x = nn.Linear(width, 64, bias=False), torch.randn(2, width)
        assert (lay_out("int8", linear).times(x) - linear(x)).norm() <= 0.03 * linear(x).norm()


def test_large_matrices_are_split_among_threads(monkeypatch):
    small, large = nn.Linear(64, 64), nn.Linear(1024, 1024)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert isinstance(lay_out("native", small), Dense)
    assert isinstance(lay_out("native", large), Split)
    assert isinstance(lay_out("int8", large), Int8)
    assert isinstance(lay_out("int8", small), Int8Small)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert isinstance(lay_out("native", large), Dense)


def test_large_matrices_that_fp16_holds_are_kept_so():
    as_written, rounded = (nn.Linear(1024, 1024, bias=False) for _ in range(2))
    rounded.weight.data = (rounded.weight.data / 100).bfloat16().float()
    assert not Half.pays(as_written)
    assert isinstance(lay_out("native", rounded), Half)
    assert not Half.pays(nn.Linear(64, 64))
    rounded.weight.data[0, 0] = 1e6  # FP16 ends at 65504
    assert not Half.pays(rounded)


@pytest.mark.parametrize("rows", [2, 7, 16])
def test_a_row_is_the_same_alone_and_among_others(rows):
    matrix, x = Half.of(*linears(False)), torch.randn(rows, 48)
    together = matrix.times(x)
    for i in range(rows):
        assert torch.equal(together[i], matrix.times(x[i : i + 1])[0])


def test_an_engine_with_8_bit_weights_speaks(golden):
    with SpeechEngine(golden, rows=2, weights="int8") as engine:
        request = SpeechRequest("Hello there.", seed=1, max_new_tokens=30)
        assert (engine.generate_codes(request) == engine.generate_codes(request)).all()


def test_8_bit_weights_are_for_cpus():
    with pytest.raises(RequestError, match="on cuda:0 weights are FP16"):
        allowed_weights("int8", torch.device("cuda:0"))
