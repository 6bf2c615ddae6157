import pytest
import torch
from torch import nn

from inference import RequestError, SpeechEngine, SpeechRequest
from inference.engine.device import allowed_weights
from inference.engine.weight_layouts import Dense, Half, Int8, Int8Gpu, Int8Small, Layouts, OneDNN, RowByRow, agreeing_rows

ROWS = frozenset(range(1, 17))


def linears(bias, inputs=48, outputs=(32, 64)):
    torch.manual_seed(0)
    maps = [nn.Linear(inputs, n, bias=bias).requires_grad_(False) for n in outputs]
    for m in maps:
        m.weight.data = m.weight.data.bfloat16().float()
    return maps


def a_row_alone_is_the_same_in_each_number_of_rows(matrix, layouts, width):
    """Rows of very different sizes, each alone and then among others, padded as a pass pads them."""

    def product(x):
        padded = torch.cat((x, x.new_zeros(layouts.padded(len(x)) - len(x), width)))
        return matrix.times(padded)[: len(x)]

    x = torch.randn(16, width) * torch.tensor([1.0, 100.0, 0.01, 0.0]).repeat(4)[:, None]
    alone = [product(row) for row in x.split(1)]
    for n in range(1, 17):
        assert torch.equal(product(x[:n]), torch.cat(alone[:n])), f"{n} rows"
        assert torch.equal(product(x[-n:]), torch.cat(alone[-n:])), f"the last {n} rows"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kind", "error"), [(Dense, 1e-6), (OneDNN, 1e-6), (Half, 1e-6), (Int8, 0.02), (Int8Small, 0.02)])
def test_matrices_side_by_side_are_their_linear_maps(kind, error, bias):
    maps, x = linears(bias), torch.randn(5, 48)
    expected = torch.cat([m(x) for m in maps], dim=1)
    for matrix in (kind.of(*maps), RowByRow(kind.of(*maps))):
        assert (matrix.times(x) - expected).norm() <= error * expected.norm()
        if not bias:
            to = torch.randn(5, 96)
            torch.testing.assert_close(matrix.added(to, x), to + matrix.times(x))
    torch.testing.assert_close(torch.cat([m(x) for m in maps], dim=1), expected)  # the maps go on working


@pytest.mark.parametrize("weights", ["native", "int8"])
@pytest.mark.parametrize("exact", [True, False], ids=["in FP16", "not in FP16"])
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 96), (192, 1001), (1024, 1024), (1024, 2049)], ids=str)
def test_a_row_is_the_same_alone_and_among_others(inputs, outputs, exact, weights):
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs, bias=False).requires_grad_(False)
    if exact:
        linear.weight.data = linear.weight.data.bfloat16().float()
    layouts = Layouts(weights, 16)
    a_row_alone_is_the_same_in_each_number_of_rows(layouts.lay_out(linear), layouts, inputs)


def test_matrices_of_one_model_are_padded_to_rows_at_which_all_of_them_agree():
    torch.manual_seed(0)
    layouts = Layouts("native", 16)
    matrices = [(layouts.lay_out(nn.Linear(n, m, bias=False).requires_grad_(False)), n) for n, m in ((48, 96), (96, 48), (640, 1024))]
    for matrix, width in matrices:
        a_row_alone_is_the_same_in_each_number_of_rows(matrix, layouts, width)


def test_a_layout_that_neighbours_change_is_not_used(monkeypatch):
    """Where a kernel's result depends on the number of rows at every number, the next layout is taken; in the end each row is multiplied alone."""
    linear = nn.Linear(48, 96, bias=False).requires_grad_(False)

    def by_place(_, x):
        return torch.arange(len(x) * 96.0).view(len(x), 96)

    for kind in (Half, OneDNN, Dense):
        monkeypatch.setattr(kind, "times", by_place)
    layouts = Layouts("native", 16)
    assert isinstance(layouts.lay_out(linear), RowByRow)
    assert layouts.padded(7) == 7


def test_a_number_of_rows_at_which_another_kernel_is_taken_is_padded(monkeypatch):
    plain = Dense.times
    monkeypatch.setattr(Dense, "times", lambda self, x: plain(self, x) + (len(x) in (1, 2, 7)))
    monkeypatch.setattr(Half, "works", lambda *_: False)
    monkeypatch.setattr(OneDNN, "works", lambda *_: False)
    layouts = Layouts("native", 16)
    layouts.lay_out(nn.Linear(48, 96, bias=False).requires_grad_(False))
    assert {layouts.padded(n) for n in (1, 2, 7)}.isdisjoint({1, 2, 7})
    assert layouts.cost(1) > 0
    assert layouts.names() == {Dense.name: 1}


@pytest.mark.parametrize("rows", [1, 8, 17, 20, 33, 64])
def test_up_to_twice_as_many_rows_can_be_padded(rows):
    layouts = Layouts("native", 2 * rows)
    layouts.lay_out(*linears(False))
    assert all(layouts.padded(n) >= n for n in range(1, 2 * rows + 1))


@pytest.mark.parametrize("kind", [Int8, Int8Small])
def test_8_bit_rows_agree_in_any_number(kind):
    assert agreeing_rows(kind.of(*linears(False)), 48, ROWS) == ROWS


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
        assert (Layouts("int8", 2).lay_out(linear).times(x) - linear(x)).norm() <= 0.03 * linear(x).norm()


def test_what_fp16_holds_is_kept_so_and_other_weights_in_fp32():
    as_written, rounded = (nn.Linear(1024, 1024, bias=False).requires_grad_(False) for _ in range(2))
    rounded.weight.data = (rounded.weight.data / 100).bfloat16().float()
    assert not Half.works(as_written)
    assert isinstance(Layouts("native", 16).lay_out(rounded), Half)
    assert isinstance(Layouts("int8", 16).lay_out(rounded), Int8)
    assert isinstance(Layouts("int8", 16).lay_out(nn.Linear(64, 64)), Int8Small)
    rounded.weight.data[0, 0] = 1e6  # FP16 ends at 65504
    assert not Half.works(rounded)
    assert not isinstance(Layouts("native", 16).lay_out(rounded), Half)


def test_an_engine_with_8_bit_weights_speaks(golden):
    with SpeechEngine(golden, slots=2, weights="int8") as engine:
        request = SpeechRequest("Hello there.", seed=1, max_new_tokens=30)
        assert (engine.generate_codes(request) == engine.generate_codes(request)).all()


@pytest.mark.parametrize("bias", [False, True])
def test_for_a_gpu_8_bits_and_the_models_own_weights_are_the_same_values(bias):
    maps = [m.half() for m in linears(bias)]
    before = torch.cat([m.weight for m in maps])
    matrix = Layouts("int8", 2).lay_out(*maps)
    assert isinstance(matrix, Int8Gpu)
    assert matrix.scale.dtype == torch.float32
    after, x = torch.cat([m.weight for m in maps]), torch.randn(5, 48).half()
    assert ((after.float() - before.float()).abs() <= 0.56 * matrix.scale[:, None]).all()  # of a step, and what FP16 rounds
    assert torch.equal(after, (matrix.rounded * matrix.scale[:, None]).half())
    torch.testing.assert_close(matrix.times(x), torch.cat([m(x) for m in maps], dim=1), atol=4e-3, rtol=4e-3)
    again = Layouts("int8", 2).lay_out(*maps)  # an engine that begins after another with the same checkpoint
    assert torch.equal(again.rounded, matrix.rounded)
    assert isinstance(Layouts("native", 2).lay_out(*maps), Dense)
    assert not isinstance(Layouts("native", 2).lay_out(*maps), Int8Gpu)


def test_unknown_weights_are_refused():
    assert [allowed_weights(weights) for weights in ("native", "int8")] == ["native", "int8"]
    with pytest.raises(RequestError, match="weights 'fp8' are not one of native, int8"):
        allowed_weights("fp8")
