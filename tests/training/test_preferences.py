"""That a model learns to prefer the takes whose words were understood."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from inference.model.dual_ar import DualAR
from inference.model.prompt import PromptBuilder
from training import preferences
from training.dual_ar import Student, dual_ar_config
from training.export import write_language_model
from training.preferences import (
    BETA,
    MAX_FRAMES,
    MIN_DIFFERENCE,
    OCTAVE_COST,
    PreferenceTraining,
    Takes,
    better,
    column_likelihood,
    main,
    pitch_cost,
    preference_loss,
    texts,
    word_of_byte,
    word_shares,
)
from training.recipe import DualARRecipe, Recipe
from training.samples import SequenceBuilder, byte_tokenizer, collate
from training.shards import CodedUtterance, save, write

TEXTS = "Hello there, you.", "It is late, go home.", "Where are the keys?"
HEARD = (
    [[-0.5, -0.1, -0.2], [-2.0, -0.1, -0.2]],
    [[-0.1, -0.1, -3.0, -0.2, -0.2], [-0.1, -0.4, -0.1, -0.2, -0.3]],
    [[-0.1, -0.2, -0.1, -5.0], [-0.2, -0.1, -0.1, -0.1]],
)
"""Of two takes of each text: how each word is heard."""


def codes(seed, frames=9):
    return torch.randint(0, 1000, (frames, 8), generator=torch.Generator().manual_seed(seed)).short()


def utterance(text, seed, frames=9):
    return CodedUtterance(text.encode(), codes(seed, frames), torch.linspace(0, 5, frames).half(), torch.full((frames, 4), 30).byte())


@pytest.fixture
def recipe(tmp_path):
    """A folder with a random language model, a shard of the teacher's speech, and one of takes."""
    made = Recipe.smoke(tmp_path)
    tokenizer = byte_tokenizer(tmp_path / "tokenizer.tiktoken")
    torch.manual_seed(0)
    save(tmp_path / "dual_ar.pt", {"average": Student(made.dual_ar, tokenizer.semantic_begin, tokenizer.n_vocab).state_dict()})
    write(tmp_path / "codes_0000.pt", [utterance(text, seed) for seed, text in enumerate(TEXTS * 20)])
    write(tmp_path / "takes_0000.pt", [Takes(t.encode(), [codes(100 + i), codes(200 + i, 11)], HEARD[i]) for i, t in enumerate(TEXTS)])
    return made


def test_a_take_that_found_no_end_or_no_beginning_is_not_learned():
    takes = Takes(b"word", [codes(0), codes(1), codes(2, MAX_FRAMES + 1), codes(3, 2)], [[-1.0], [-2.0], [-9.0], [-20.0]]).usable()
    assert takes.heard == [[-1.0], [-2.0]]
    assert takes.differ
    assert not Takes(b"word", [codes(2, MAX_FRAMES + 1)], [[-1.0]]).usable().differ


def test_a_word_is_better_than_in_those_takes_of_its_text_that_are_heard_worse():
    near = -1.0 - MIN_DIFFERENCE / 2
    heard = torch.tensor([[-1.0, -0.1], [0.0, -3.0], [near, -0.2], [-9.0, math.nan], [-0.1, math.nan]])
    found = better(torch.tensor([0, 0, 0, 1, 1]), heard).nonzero().tolist()
    assert found == [[0, 1, 1], [1, 0, 0], [1, 2, 0], [2, 1, 1], [4, 3, 0]]
    assert not Takes(b"two words", [codes(0), codes(1)], heard[[0, 2]].tolist()).differ


@given(st.lists(st.text("aé’.", min_size=1, max_size=4), min_size=1, max_size=5), st.sampled_from([" ", "  "]))
def test_every_byte_belongs_to_the_word_that_it_is_in(words, space):
    text = space.join(words).encode()
    found = word_of_byte(text)
    assert len(found) == len(text)
    assert [bytes(b for b, n in zip(text, found, strict=True) if n == k).decode().rstrip() for k in range(len(words))] == words


def test_a_columns_share_of_a_word_is_the_attention_that_its_bytes_get():
    """One layer, whose first head looks at the spoken byte and whose second further on; the texts begin in columns 2 and 3."""
    r = replace(DualARRecipe(), guided=((0, (0, 2)),))
    attention = torch.rand(2, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    shares = word_shares([attention], [b"ab cd efg", b"a b"], [2, 3], r)
    assert shares.shape == (2, 12, 3)
    assert torch.allclose(shares.sum(2), torch.ones(2, 12))
    looked = attention[0, 0, 5, 2:11]
    assert torch.allclose(shares[0, 5], torch.stack([looked[:3].sum(), looked[3:6].sum(), looked[6:].sum()]) / looked.sum())
    assert not shares[1, :, 2].any()


def test_texts_are_what_the_engine_says_in_one_go(recipe):
    write(recipe.folder / "codes_0001.pt", [utterance("Two words", 0), utterance("and on " * 30, 1)])
    assert sorted(texts(recipe)) == sorted(TEXTS * 20)


def test_likelihood_is_the_models_own_whatever_is_beside_it(recipe):
    """Against the model's plain pass over one sequence: tokens, and codes from the second on, without the end column's."""
    tokenizer = byte_tokenizer(recipe.folder / "tokenizer.tiktoken")
    builder, r = SequenceBuilder(tokenizer), Recipe.smoke(recipe.folder).dual_ar
    torch.manual_seed(1)
    student = Student(r, tokenizer.semantic_begin, tokenizer.n_vocab).eval()
    model = DualAR(dual_ar_config(r, tokenizer.n_vocab), tokenizer.semantic_begin)
    model.load_state_dict(student.plain_state())
    spoken = [utterance(TEXTS[0], 5, 9), utterance(TEXTS[1], 6, 40)]
    conversations = [builder.build([u], system=True) for u in spoken]
    with torch.no_grad():
        found, attention = column_likelihood(student, collate(conversations), replace(r, bfloat16=False), tokenizer.im_end)
        assert not attention  # it is noted in training alone
        for row, u, c in zip(found, spoken, conversations, strict=True):
            columns = c.columns[None]
            token, code = model(columns[:, :, :-1], columns[:, 1:, 1:])
            first = c.columns.shape[1] - len(u.codes) - 2  # the column before the first frame
            wanted = token[0, first:].log_softmax(-1).gather(1, columns[0, 0, first + 1 :, None])[:, 0]
            frames = code[0, first : first + len(u.codes), 1:].log_softmax(-1)
            wanted[:-1] += frames.gather(2, u.codes.long()[:, 1:, None]).sum((1, 2))
            said = slice(first, first + len(wanted))
            torch.testing.assert_close(row[said], wanted, rtol=1e-4, atol=1e-4)
            assert not row[: said.start].any()
            assert not row[said.stop :].any()


def test_loss_is_log_2_at_first_and_falls_as_better_words_gain_on_others():
    reference, pairs = torch.tensor([[-100.0, -9.0], [-90.0, -8.0], [-120.0, -7.0]]), torch.zeros(3, 3, 2, dtype=torch.bool)
    pairs[0, 1, 0] = pairs[2, 0, 1] = True
    assert preference_loss(reference, reference, pairs).item() == pytest.approx(math.log(2))
    gains = torch.tensor([[3.0, 1.0], [-2.0, 0.0], [9.0, -1.0]])
    wanted = (math.log1p(math.exp(-BETA * (3 + 2))) + math.log1p(math.exp(-BETA * (-1 - 1)))) / 2
    assert preference_loss(reference + gains, reference, pairs).item() == pytest.approx(wanted)


def test_it_learns_to_prefer_words_that_were_understood(recipe, capsys):
    training = PreferenceTraining(recipe)
    (takes,) = training.takes()
    assert takes.reference.shape == (2 * len(TEXTS), max(len(text.split()) for text in TEXTS))
    assert takes.better.sum() == len(TEXTS)
    training.run(epochs=60)
    with torch.no_grad():
        gain = training.likelihood(training.student, takes) - takes.reference
    assert ((gain[:, None] - gain)[takes.better] > 1).all()
    last = capsys.readouterr().out.splitlines()[-1]
    assert '"step": 60, "of": 60' in last
    written = load_file(write_language_model(training.student, recipe.folder))
    assert all(torch.equal(written[name], tensor.half()) for name, tensor in training.student.plain_state().items())


@given(st.floats(60, 400), st.floats(60, 400), st.floats(0.3, 3))
def test_a_pitch_costs_what_it_is_away_from_the_clips(found, wanted, times):
    cost = pitch_cost(found, wanted)
    assert 0 <= cost <= OCTAVE_COST
    assert cost == pytest.approx(pitch_cost(wanted, found))
    assert cost == pytest.approx(pitch_cost(found * times, wanted * times), abs=1e-6)
    assert pitch_cost(wanted, wanted) == 0
    assert pitch_cost(0, wanted) == pitch_cost(found, 0) == pitch_cost(1.99 * wanted, 0.9 * wanted) == OCTAVE_COST


def test_it_needs_speech(tmp_path):
    with pytest.raises(SystemExit, match=r"has no shards of codes: make them with"):
        main(["--work", str(tmp_path)])


def test_it_needs_enough_texts(recipe, capsys):
    with pytest.raises(SystemExit):
        main(["--work", str(recipe.folder), "--first", "1", "--shards", "1"])
    assert "ask for shards up to 1; there are texts for 1" in capsys.readouterr().err


def test_takes_behind_a_clip_are_learned_behind_it(recipe, monkeypatch):
    spoken = Takes(TEXTS[0].encode(), [codes(100), codes(200, 11)], HEARD[0], "Someone else.", codes(5, 30))
    write(recipe.folder / "takes_0000.pt", [spoken, Takes(TEXTS[1].encode(), [codes(101), codes(201, 11)], HEARD[1])])
    began = {}

    def noted(attention, said, starts, r):
        began.update(zip(said, starts, strict=True))
        return word_shares(attention, said, starts, r)

    monkeypatch.setattr(preferences, "word_shares", noted)
    batches = PreferenceTraining(recipe).takes()
    tokenizer = byte_tokenizer(recipe.folder / "tokenizer.tiktoken")
    before = PromptBuilder(tokenizer, 8).reference("Someone else.", codes(5, 30).T.numpy())
    rows = [(row, size) for b in batches for row, size in zip(b.batch.columns, b.batch.reference.tolist(), strict=True)]
    for text, wanted in ((TEXTS[0], SequenceBuilder(tokenizer).system_size + before.shape[1]), (TEXTS[1], 0)):
        start = began[text.encode()]
        those = [size for row, size in rows if bytes(row[0, start : start + len(text)].clamp(0, 255).tolist()) == text.encode()]
        assert those == [wanted, wanted]
    behind = [row[:, size - before.shape[1] : size] for row, size in rows if size]
    assert len(behind) == 2
    assert all(torch.equal(clip, before) for clip in behind)
