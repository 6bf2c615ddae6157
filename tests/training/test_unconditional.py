"""A language model that does not see the text."""

from dataclasses import replace

import pytest
import torch

from tests.training.small_run import begin, utterance, write_codes
from training.machine import Machine, in_processes
from training.samples import SPEAKER, SequenceBuilder, byte_tokenizer, collate, without_text
from training.unconditional import UnconditionalTraining, main, train_unconditional


@pytest.fixture
def training(tmp_path):
    """A run from a random model."""
    recipe, _ = begin(tmp_path)
    return UnconditionalTraining(recipe, Machine(step_seconds=0.1))


def test_of_what_is_said_nothing_but_its_length_is_left(tmp_path):
    builder = SequenceBuilder(byte_tokenizer(tmp_path / "tokenizer.tiktoken"))
    said = utterance("One, two.", 7)
    one, other, longer = (
        collate([builder.build([replace(said, text=text)], system=True)])
        for text in (b"One, two.", b"Nine\xc3\xa9 ab", b"One, two. Three.")
    )
    assert torch.equal(without_text(one).columns, without_text(other).columns)
    assert not torch.equal(one.columns, other.columns)
    assert not torch.equal(without_text(one).columns, without_text(longer).columns)
    spoken = one.columns[:, 0] >= builder._tokenizer.semantic_begin
    assert torch.equal(without_text(one).columns[:, 0][spoken], one.columns[:, 0][spoken])
    assert torch.equal(without_text(one).target, one.target)


def test_the_clip_stays_with_its_text(tmp_path):
    builder = SequenceBuilder(byte_tokenizer(tmp_path / "tokenizer.tiktoken"))
    clip, said = utterance("A clip.", 9), utterance("Two, three.", 12)
    batch = collate([builder.follow("A clip.", clip.codes, [said], torch.ones(SPEAKER))])
    blind, size = without_text(batch).columns, int(batch.reference)
    assert torch.equal(blind[..., :size], batch.columns[..., :size])
    own = blind[0, 0, size:]
    assert set(own[own < 256].tolist()) == {ord(" ")}


def test_it_has_nothing_to_look_at_or_to_tell(training):
    batch = collate([training.builder.build([utterance("Hello there.", 20)], system=True)])
    found = training._losses(batch)
    assert found.total(training.r) == found.token + found.codes
    assert found.token > 3


@pytest.mark.parametrize("processes", [1, 2])
def test_it_trains_and_writes_a_model(training, tmp_path, processes):
    recipe = replace(training.recipe, dual_ar=replace(training.r, seconds=2, columns=200))
    write_codes(tmp_path)
    in_processes(train_unconditional, recipe, Machine(processes=processes, step_seconds=0.1))
    assert torch.load(tmp_path / "dual_ar.pt", weights_only=True)["step"] > 3
    assert (tmp_path / "model.safetensors").exists()


def test_it_says_what_it_lacks(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"has no dual_ar\.pt: make them with `python -m training\.unpack`"):
        main(["--work", str(tmp_path)])
    for words, said in ((["--processes", "0"], "--processes is 0"), (["--seconds", "0"], "--seconds is 0; it must be more than 0")):
        with pytest.raises(SystemExit):
            main(["--work", str(tmp_path), *words])
        assert said in capsys.readouterr().err
