"""That a model learns to prefer the takes that were understood."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from inference.model.dual_ar import DualAR
from training.dual_ar import Student, dual_ar_config
from training.export import write_language_model
from training.preferences import (
    BETA,
    MAX_FRAMES,
    MIN_DIFFERENCE,
    PreferenceTraining,
    Takes,
    better,
    likelihood,
    main,
    preference_loss,
    texts,
)
from training.recipe import Recipe
from training.samples import SequenceBuilder, byte_tokenizer, collate
from training.shards import CodedUtterance, save, write

TEXTS = "Hello there, you.", "It is late, go home.", "Where are the keys?"


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
    write(tmp_path / "takes_0000.pt", [Takes(t.encode(), [codes(100 + i), codes(200 + i, 11)], [-0.5, -2.0]) for i, t in enumerate(TEXTS)])
    return made


def test_a_take_that_found_no_end_or_no_beginning_is_not_learned():
    takes = Takes(b"", [codes(0), codes(1), codes(2, MAX_FRAMES + 1), codes(3, 2)], [-1.0, -2.0, -9.0, -math.inf]).usable()
    assert takes.heard == [-1.0, -2.0]
    assert takes.differ
    assert not Takes(b"", [codes(2, MAX_FRAMES + 1)], [-1.0]).usable().differ


def test_a_take_is_better_than_those_of_its_text_that_are_heard_worse():
    heard = torch.tensor([-1.0, -0.2, -1.0 - MIN_DIFFERENCE / 2, -9.0, -0.1])
    found = better(torch.tensor([0, 0, 0, 1, 1]), heard).nonzero().tolist()
    assert found == [[1, 0], [1, 2], [4, 3]]
    assert not Takes(b"", [codes(0), codes(1)], heard[[0, 2]].tolist()).differ


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
        found = likelihood(student, collate(conversations), replace(r, bfloat16=False), tokenizer.im_end)
        for value, u, c in zip(found, spoken, conversations, strict=True):
            columns = c.columns[None]
            token, code = model(columns[:, :, :-1], columns[:, 1:, 1:])
            first = c.columns.shape[1] - len(u.codes) - 2  # the column before the first frame
            wanted = token[0, first:].log_softmax(-1).gather(1, columns[0, 0, first + 1 :, None]).sum()
            frames = code[0, first : first + len(u.codes), 1:].log_softmax(-1)
            wanted += frames.gather(2, u.codes.long()[:, 1:, None]).sum()
            assert value.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_loss_is_log_2_at_first_and_falls_as_better_takes_gain_on_others():
    reference, pairs = torch.tensor([-100.0, -90.0, -120.0]), torch.zeros(3, 3, dtype=torch.bool)
    pairs[0, 1] = pairs[2, 0] = True
    assert preference_loss(reference, reference, pairs).item() == pytest.approx(math.log(2))
    gains = torch.tensor([3.0, -2.0, 1.0])
    wanted = (math.log1p(math.exp(-BETA * (3 + 2))) + math.log1p(math.exp(-BETA * (1 - 3)))) / 2
    assert preference_loss(reference + gains, reference, pairs).item() == pytest.approx(wanted)


def test_it_learns_to_prefer_what_was_understood(recipe, capsys):
    training = PreferenceTraining(recipe)
    (takes,) = training.takes()
    assert len(takes.reference) == 2 * len(TEXTS)
    training.run(epochs=60)
    with torch.no_grad():
        gain = likelihood(training.student.eval(), takes.batch, training.r, training.tokenizer.im_end) - takes.reference
    assert ((gain[:, None] - gain)[takes.better] > 1).all()
    last = capsys.readouterr().out.splitlines()[-1]
    assert '"step": 60, "of": 60' in last
    written = load_file(write_language_model(training.student, recipe.folder))
    assert all(torch.equal(written[name], tensor.half()) for name, tensor in training.student.plain_state().items())


def test_it_needs_speech(tmp_path):
    with pytest.raises(SystemExit, match=r"has no shards of codes: make them with"):
        main(["--work", str(tmp_path)])
