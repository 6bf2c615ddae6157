"""Each kernel in Triton's interpreter against the plain PyTorch it replaces, then a whole frame of them."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="Triton is for Linux alone")

from inference.engine import kernels, prefill_kernels
from inference.engine.attention_kernels import Attention
from inference.engine.cuda_decode_step import FusedStep
from inference.engine.cuda_prefill import FusedPrefill
from inference.engine.decode_step import Head, Step
from inference.engine.graphs import Graphs
from inference.engine.prefill import BLOCK, PREFILL, Piece, PrefillGraphs
from inference.engine.runner import WINDOW, Runner
from inference.engine.sampler import NONE, Controls, gumbel, sample, seen_ids
from inference.model.config import DualARConfig
from inference.model.dual_ar import DualAR, RMSNorm, Span, apply_rope, rope_table
from tests.conftest import golden_tensors
from tests.inference.engine.eager_step import PlainStep
from tests.inference.engine.kernel_cases import TYPES, close, in_8_bits, normed, random
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, where a test has values that are no numbers
SHAPE = {
    "dim": 16, "n_layer": 2, "n_head": 2, "n_local_heads": 1, "intermediate_size": 12, "n_fast_layer": 1, "vocab_size": 1100,
    "codebook_size": 16, "num_codebooks": 3, "max_seq_len": 96, "rope_base": 1e6, "tie_word_embeddings": False,
}  # fmt: skip
BEGIN = 60
"""The first semantic token of that model."""


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@TYPES
@pytest.mark.parametrize(("rows", "k", "n"), [(1, 32, 8), (3, 24, 10), (11, 16, 4)], ids=str)
def test_a_product_is_of_normalised_inputs_plus_bias_or_what_was_there(dtype, rows, k, n):
    x, w, bias = random(rows, k, dtype=dtype), random(n, k, dtype=dtype) / 8, random(n, dtype=dtype)
    (norm, weights), out, sums = normed(k, dtype), random(rows, n, dtype=dtype), random(rows, n, dtype=dtype)
    expected = F.linear(x, w) + sums
    kernels.linear(x, w, out, bias=bias, norm=weights)
    kernels.linear(x, w, sums, add=sums)
    close(out, F.linear(norm(x), w, bias))
    close(sums, expected)


@TYPES
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_gate_and_up_are_one_product(dtype, rows):
    x, w, out = random(rows, 24, dtype=dtype), random(2 * 10, 24, dtype=dtype) / 5, random(rows, 10, dtype=dtype)
    kernels.linear(x, w, out, gated=True)
    gate, up = F.linear(x, w).chunk(2, dim=-1)
    close(out, F.silu(gate) * up)
    kernels.gate(F.linear(x, w), out)
    close(out, F.silu(gate) * up)


@TYPES
@pytest.mark.parametrize(("rows", "k", "n"), [(1, 32, 8), (1, 24, 10), (3, 24, 10), (9, 40, 33)], ids=str)
def test_a_weight_of_8_bits_is_multiplied_by_its_scale_after_the_sum(dtype, rows, k, n):
    x, bias, (norm, weights) = random(rows, k, dtype=dtype), random(n, dtype=dtype), normed(k, dtype)
    out, sums, gated = (random(rows, n, dtype=dtype) for _ in range(3))
    w, scale, whole = in_8_bits(random(2 * n, k, dtype=dtype) / 8 * torch.logspace(-1, 0, 2 * n, dtype=dtype)[:, None])
    gate, up = F.linear(norm(x), whole).chunk(2, dim=-1)
    expected = F.linear(x, whole[:n]) + sums
    kernels.linear(x, w[:n], out, scale=scale[:n], bias=bias, norm=weights)
    kernels.linear(x, w[:n], sums, scale=scale[:n], add=sums)
    kernels.linear(x, w, gated, scale=scale, norm=weights, gated=True)
    close(out, F.linear(norm(x), whole[:n], bias))
    close(sums, expected)
    close(gated, F.silu(gate) * up)


@TYPES
def test_every_other_row_may_be_multiplied(dtype):
    x, w, out = random(6, 16, dtype=dtype), random(4, 16, dtype=dtype), torch.empty(3, 4)
    kernels.linear(x[1::2], w, out)
    close(out, F.linear(x[1::2].float(), w.float()))


@TYPES
def test_a_norm_alone(dtype):
    x, out, (norm, weights) = random(3, 24, dtype=dtype), random(3, 24, dtype=dtype), normed(24, dtype)
    kernels.norm(x, *weights, out)
    close(out, norm(x))


def attended(qkv, cache, turns, lengths, time, heads, kv, size):
    """What the model's own attention gives for the next `time` positions of each row; keys and values are written."""
    out = []
    for row, length in enumerate(lengths):
        q, k, v = qkv.view(len(lengths), time, -1, size)[row].split((heads, kv, kv), dim=1)
        place = slice(length, length + time)
        q, k = (apply_rope(t[None], turns[place])[0] for t in (q, k))
        cache[0, row, :, place], cache[1, row, :, place] = k.transpose(0, 1), v.transpose(0, 1)
        keys, values = (c[row, :, : length + time].repeat_interleave(heads // kv, dim=0) for c in cache)
        seen = torch.arange(length + time) <= torch.arange(length, length + time)[:, None]
        out.append(F.scaled_dot_product_attention(q.transpose(0, 1), keys, values, attn_mask=seen).transpose(0, 1).flatten(1))
    return torch.cat(out)


@TYPES
@pytest.mark.parametrize(
    ("heads", "kv", "size", "lengths"), [(4, 2, 8, [0]), (4, 2, 8, [700]), (3, 3, 16, [63, 0, 64]), (4, 1, 12, [70, 5])], ids=str
)
def test_attention_writes_a_position_and_reads_what_is_written(dtype, heads, kv, size, lengths):
    rows = len(lengths)
    attention = Attention(rows + 1, heads, kv, size, torch.device("cpu"))
    qkv, turns = random(rows + 1, (heads + 2 * kv) * size, dtype=dtype), rope_table(768, size, 1e4)
    cache = random(2, rows + 1, kv, 768, size, dtype=dtype)
    for row, length in enumerate(lengths):
        cache[:, row, :, length:] = torch.nan  # what is not written may be anything
    expected_cache = cache.clone()
    expected = attended(qkv[:rows], expected_cache, turns, lengths, 1, heads, kv, size)
    numbers, out = torch.tensor([[0, length] for length in (*lengths, 1)]), torch.full((rows + 1, heads * size), 7, dtype=dtype)
    for _ in range(2):  # again, as it leaves its counters as they were
        attention(qkv, cache, turns, out, numbers, 1, torch.tensor([rows], dtype=torch.int32))
        close(out[:rows], expected)
        close(cache.nan_to_num(), expected_cache.nan_to_num())
    assert torch.equal(out[rows:], torch.full_like(out[rows:], 7))  # a row that does not count


@TYPES
@pytest.mark.parametrize(("time", "position"), [(2, 0), (1, 2), (1, 7)])
def test_attention_at_a_codebooks_position(dtype, time, position):
    heads, kv, size, rows = 4, 2, 8, 3
    attention = Attention(rows, heads, kv, size, torch.device("cpu"))
    qkv, turns = random(rows * time, (heads + 2 * kv) * size, dtype=dtype), rope_table(8, size, 1e4)
    cache = random(2, rows, kv, 8, size, dtype=dtype)
    expected_cache = cache.clone()
    expected = attended(qkv, expected_cache, turns, [position] * rows, time, heads, kv, size)
    out, unused = torch.empty(rows * time, heads * size, dtype=dtype), torch.zeros(1, dtype=torch.int32)
    attention(qkv, cache, turns, out, torch.zeros(rows, 2, dtype=torch.int64), 1, unused, time=time, position=position)
    close(out, expected)
    close(cache, expected_cache)


@TYPES
@pytest.mark.parametrize("rounded", [False, True], ids=["whole", "8 bits"])
@pytest.mark.parametrize(("heads", "kv", "size", "position"), [(4, 2, 8, 0), (6, 2, 12, 2), (3, 1, 16, 7)], ids=str)
def test_attention_and_what_is_made_of_it_are_one_kernel(dtype, heads, kv, size, position, rounded):
    attention = Attention(1, heads, kv, size, torch.device("cpu"))
    qkv, turns, cache = random(1, (heads + 2 * kv) * size, dtype=dtype), rope_table(8, size, 1e4), random(2, 1, kv, 8, size, dtype=dtype)
    cache[:, :, :, position:] = torch.nan
    whole, x, expected_cache = random(10, heads * size, dtype=dtype) / 8, random(1, 10, dtype=dtype), cache.clone()
    weight, scale, whole = in_8_bits(whole) if rounded else (whole, None, whole)
    y = attended(qkv, expected_cache, turns, [position], 1, heads, kv, size)
    expected = F.linear(y, whole) + x
    attention.add(qkv, cache, turns, position, weight, x, scale)
    close(x, expected)
    close(cache.nan_to_num(), expected_cache.nan_to_num())


def test_blocks_of_prompts_have_one_size():
    assert prefill_kernels.BLOCK_COLUMNS == BLOCK


@TYPES
@pytest.mark.parametrize(("heads", "kv", "size"), [(4, 2, 8), (3, 3, 16), (12, 2, 12)], ids=str)
def test_prompts_in_one_pass_attend_each_to_its_own_row(dtype, heads, kv, size):
    pieces = [(2, 5, [16, 4]), (0, 0, [16]), (1, 70, [3]), (0, 0, [0])]  # the row, the first position, and the columns of each block
    blocks = [(row, first + 16 * n, count) for row, first, counts in pieces for n, count in enumerate(counts)]
    qkv, turns = random(16 * len(blocks), (heads + 2 * kv) * size, dtype=dtype), rope_table(96, size, 1e4)
    cache = random(2, 3, kv, 96, size, dtype=dtype)
    for row, first, _ in pieces[:3]:
        cache[:, row, :, first:] = torch.nan
    expected_cache, expected, at = cache.clone(), torch.full((len(qkv), heads * size), 7, dtype=dtype), 0
    for row, first, counts in pieces:
        if n := sum(counts):
            own = expected_cache[:, row : row + 1]
            expected[at : at + n] = attended(qkv[at : at + n], own, turns, [first], n, heads, kv, size)
        at += 16 * len(counts)
    out = torch.full_like(expected, 7)
    prefill_kernels.attend_prompts(qkv, cache, turns, torch.tensor(blocks), out, n_head=heads, kv_heads=kv)
    close(out, expected)
    close(cache.nan_to_num(), expected_cache.nan_to_num())


@TYPES
def test_a_pass_over_prompts_is_the_plain_steps(dtype, monkeypatch):
    monkeypatch.setattr("inference.engine.prefill.SIZES", (32,))
    monkeypatch.setattr("inference.engine.prefill.WRONG", 1e-5 if dtype == torch.float32 else 0.01)
    lm = model(dtype, n_local_heads=2, attention_qkv_bias=True)
    step = Step(lm, 1)
    PrefillGraphs(FusedPrefill(step, PREFILL), lm.new_cache(2, 96), lm.config.num_codebooks, lm.embeddings.weight).check(step)


def test_a_golden_prompts_states_are_the_references(golden):
    runner, prompt = Runner(golden, slots=1), golden_tensors("lm_tiny/prompts.safetensors")["plain"].long()
    step = FusedPrefill(runner._step, PREFILL)
    graphs = PrefillGraphs(step, runner._cache, runner._codebooks, golden.lm.embeddings.weight)
    (states,) = graphs.launch([Piece(prompt, 1, 0)])
    expected = golden_tensors("lm_tiny/prefill.safetensors")
    torch.testing.assert_close(golden.lm.token_logits(states[-1]), expected["plain.logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(golden.lm.fast_project_in(states[-1]), expected["plain.hidden"], atol=1e-4, rtol=0)


CODEBOOKS, IDS = 3, 37


def numbers_of(rows):
    """Rows as `Graphs` keeps them: column, length, seed, frame, and what each draw's penalty sees."""
    history = torch.randint(NONE, IDS, (rows, CODEBOOKS, WINDOW))
    facts = torch.tensor([[5, 2**62 - row, row and 3 * row + 14] for row in range(rows)])  # the first row's frame is its first
    return torch.cat((torch.randint(0, 30, (rows, 1 + CODEBOOKS)), facts, history.flatten(1)), dim=1)


@pytest.mark.parametrize("draw", [0, 1])
@pytest.mark.parametrize("sharp", [0.3, 8], ids=["flat", "peaked"])
def test_a_draw_is_the_samplers(draw, sharp):
    settings = torch.tensor([[0.7, 0.7, 1.2], [0, 0.9, 1.5], [1.5, 1.0, 1.0], [1e-3, 0.3, 0.8], [2, 0.05, 1.9]])
    rows = len(settings)
    logits, numbers = sharp * random(rows + 1, IDS), numbers_of(rows + 1)
    ids, embeddings, hidden = torch.arange(IDS) + BEGIN - 1, random(IDS, 8), random(rows + 1, 8)
    frames, x = torch.full((rows + 1, CODEBOOKS + 3), 1), torch.zeros((2 if draw == 0 else 1) * (rows + 1), 8)
    before = numbers.clone()
    kernels.draw(
        draw, logits, numbers, settings.repeat(2, 1)[: rows + 1], hidden, frames, ids, embeddings, x, torch.tensor([rows], dtype=torch.int32),
        codebooks=CODEBOOKS, window=WINDOW, semantic_begin=BEGIN, code_size=30,
    )  # fmt: skip
    history = numbers[:rows, CODEBOOKS + 4 :].view(rows, CODEBOOKS, WINDOW)[:, draw]
    seed, number = numbers[:rows, CODEBOOKS + 2], numbers[:rows, CODEBOOKS + 3]
    scores = logits[:rows].clone()
    scores[(number == 0) & (draw == 0), 0] = -torch.inf
    noise = gumbel(seed, number, torch.tensor([draw]), 0, IDS)[:, 0]
    choices = sample(scores, seen_ids(history, IDS), Controls.of(settings, penalised=True), noise)
    assert torch.equal(numbers, before)
    assert frames[rows].tolist() == [1] * (CODEBOOKS + 3)
    if draw == 0:
        codes = (ids[choices] - BEGIN).clamp(0, 29)
        assert torch.equal(
            frames[:rows], torch.stack((ids[choices], codes, frames[:rows, 2], frames[:rows, 3], choices, choices * 0 + 1), dim=1)
        )
        assert torch.equal(x[: 2 * rows : 2], hidden[:rows])
        assert torch.equal(x[1 : 2 * rows : 2], embeddings[codes])
    else:
        assert torch.equal(frames[:rows, 2], choices)
        assert torch.equal(x[:rows], embeddings[choices])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("draw", [0, 1])
def test_a_draw_from_what_is_no_number_says_so_and_stays_within_bounds(value, draw):
    logits = random(2, IDS)
    logits[0, 9] = value
    frames, x = torch.ones(2, CODEBOOKS + 3, dtype=torch.int64), torch.zeros(4, 8)
    kernels.draw(
        draw, logits, numbers_of(2), torch.ones(2, 3), random(2, 8), frames, torch.arange(IDS), random(IDS, 8), x,
        torch.tensor([2], dtype=torch.int32), codebooks=CODEBOOKS, window=WINDOW, semantic_begin=0, code_size=IDS,
    )  # fmt: skip
    assert frames[:, -1].tolist() == [0, 1]
    assert 0 <= frames.min() <= frames.max() < IDS


def model(dtype=torch.float32, **changes):
    lm = DualAR(DualARConfig.from_dict(SHAPE | changes), semantic_begin=BEGIN).requires_grad_(False)
    for weight in lm.parameters():
        weight.data = weight.data.to(dtype)
    for norm in (m for m in lm.modules() if isinstance(m, RMSNorm)):
        norm.weight.uniform_(0.5, 1.5)
    return lm


def head_of(step):
    lm, output = step.model, step.heads.rows_of
    codes = lm.config.codebook_size
    ids = torch.cat((torch.tensor([BEGIN - 3]), torch.arange(BEGIN, BEGIN + codes)))
    return Head(ids, output(lm.output_weight[ids]), codes, output(lm.fast_output.weight[:codes]))


def running(lm, kind, rows, active, weights="native"):
    """Graphs whose first rows hold pasts of different lengths and are about to make their frames with numbers 0, 1, 2 ..."""
    step, codebooks = Step(lm, rows, weights), lm.config.num_codebooks
    head = head_of(step)
    cache = lm.new_cache(rows, 96)
    frame_step = FusedStep(step, head, rows, WINDOW) if kind is FusedStep else kind(step, head)
    graphs = Graphs(frame_step, cache, rows, codebooks, WINDOW)
    for row in range(active):
        columns = torch.arange(1, 1 + 9 * (1 + codebooks)).view(1 + codebooks, 9) * (row + 3) % lm.config.codebook_size
        columns[0] += BEGIN
        length = 3 + row % 5
        lm.slow(columns[None, :, :length], cache, Span.prompt(row, 0, length, torch.device("cpu")))
        history = (
            torch.full((codebooks, WINDOW), NONE) if row == 0 else torch.randint(0, 9, (codebooks, WINDOW), generator=torch.Generator())
        )
        graphs.place(
            row, columns[:, length], length, 2**60 + row, row, history, [(0.8, 0.9, 1.3), (0.0, 1.0, 1.0), (1.0, 1.0, 0.7)][row % 3]
        )
    return graphs, cache


CHANGES = [
    {},
    {"n_local_heads": 2, "attention_qkv_bias": True, "tie_word_embeddings": True},
    {"fast_dim": 8, "share_codebook_embeddings": False},
]


@pytest.mark.parametrize(
    ("changes", "rows", "active"),
    [(CHANGES[0], 4, 3), (CHANGES[1], 2, 2), pytest.param(CHANGES[1], 9, 2, marks=pytest.mark.drill), (CHANGES[2], 1, 1)],
    ids=str,
)
def test_a_frame_is_the_plain_steps(changes, rows, active):
    """Two frames one after the other: also what the second depends on moved on as it should."""
    lm = model(**changes)
    (ours, our_cache), (theirs, their_cache) = (running(lm, kind, rows, active) for kind in (FusedStep, PlainStep))
    for _ in range(2):
        assert torch.equal(ours.launch(active).wait(), theirs.launch(active).wait())
    assert torch.equal(ours._numbers[:active], theirs._numbers[:active])
    close(our_cache.both[:, :, :active], their_cache.both[:, :, :active])


@pytest.mark.parametrize(
    ("changes", "rows", "active"),
    [(CHANGES[1], 2, 2), pytest.param(CHANGES[1], 9, 9, marks=pytest.mark.drill), (CHANGES[2], 1, 1)],
    ids=str,
)
def test_a_frame_with_8_bit_weights_is_the_plain_steps_with_the_same(changes, rows, active, monkeypatch):
    """In FP32, so that no draw is close: the layout is that of CUDA."""
    monkeypatch.setattr("inference.engine.weight_layouts._fp32_on_cpu", lambda *_: False)
    lm = model(**changes)
    (ours, our_cache), (theirs, their_cache) = (running(lm, kind, rows, active, "int8") for kind in (FusedStep, PlainStep))
    for _ in range(2):
        assert torch.equal(ours.launch(active).wait(), theirs.launch(active).wait())
    close(our_cache.both[:, :, :active], their_cache.both[:, :, :active])
    assert {layer.w13.ours.dtype for layer in (*ours._step._slow, *ours._step._fast)} == {torch.int8}


@pytest.mark.parametrize("weights", ["native", "int8"])
def test_a_frame_in_half_precision_is_found_right_where_the_engine_starts(weights):
    lm = model(torch.float16)
    graphs, _ = running(lm, FusedStep, 1, 1, weights)
    step = Step(lm, 1, weights)
    graphs.check(step, head_of(step))


def test_a_row_of_nan_says_so_and_its_neighbours_frame_stays():
    lm = model()
    (well, _), (sick, cache) = (running(lm, kind, 2, 2) for kind in (PlainStep, FusedStep))
    cache.v[1, 0, :, 1] = torch.nan
    for _ in range(2):  # a surplus frame of a row that is lost harms nobody either
        a, b = well.launch(2).wait(), sick.launch(2).wait()
        assert torch.equal(a[1], b[1])
        assert (a[0, -1], b[0, -1]) == (1, 0)


@pytest.mark.parametrize(
    ("of", "architectures", "weights"),
    [
        ("1,prompts", "sm_90", "native"),
        pytest.param("1,16,prompts,vocoder", "sm_80,sm_89,sm_90,sm_100", "native,int8", marks=pytest.mark.drill),
    ],
)
def test_every_kernel_compiles_for_a_gpu(pytestconfig, tmp_path, of, architectures, weights):
    """By the compiler that will be used there, several at a time, and without registers that lie in memory. Only running it needs a GPU.

    The vocoder's take as long as all others together, and wait for the drill.
    """
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path)}
    out = tmp_path / "kernels.json"
    command = [
        sys.executable,
        "-m",
        "bench.kernels",
        "--of",
        of,
        "--architectures",
        architectures,
        "--weights",
        weights,
        "-o",
        str(out),
    ]
    done = subprocess.run(
        command, env=environment, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    runs = json.loads(out.read_text())["runs"]
    kernels = {"embed", "linear", "dot", "norm", "gate", "attend", "attend_and_add", "draw", "write", "attend_prompts"}
    kernels |= {"fast_layers"} if "native" in weights else set()
    assert {run["kernel"] for run in runs} == kernels | ({"convolve", "keep_input", "sound"} if "vocoder" in of else set())
    assert [run["title"] for run in runs if run["spilled"]] == []
    assert {run["launches"] for run in runs if run["rows"] == 1 and run["kernel"] == "attend_and_add"} == {6 * 4}  # positions, fast layers
    eight_bits = "int8" in weights
    assert {run["rows"] for run in runs if "int8" in run["title"]} == ({1} if eight_bits else set())
    assert ("attention and output, fast layer int8" in done.stdout) is eight_bits
