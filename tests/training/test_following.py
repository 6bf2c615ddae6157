"""A language model that learns to follow clips and is held to what it was."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from tests.training.small_run import begin, utterance, write_codes
from training.dual_ar import load_weights, predictions
from training.export import write_language_model
from training.following import HOLD, FollowingTraining, HeldTo, agreed, divergence, guided, main, train_following
from training.machine import Machine, in_processes
from training.samples import SPEAKER, collate, without_text


@pytest.fixture
def training(tmp_path):
    """A run from a random model, held to that model."""
    recipe, student = begin(tmp_path)
    write_language_model(student, tmp_path)
    return FollowingTraining(recipe, Machine(step_seconds=0.1), HeldTo([tmp_path]))


def test_a_divergence_is_zero_for_the_same_and_else_what_the_formula_says():
    same = torch.randn(3, 5)
    assert divergence(same, same + 7).abs().max() < 1e-6
    wanted, found = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    assert divergence(wanted.log(), found.log()) == pytest.approx(0.25 * torch.tensor(2.0).log().item())
    assert (divergence(torch.randn(20, 9), torch.randn(20, 9)) > 0).all()


def test_what_two_agree_on_is_likelier_than_what_one_says():
    one, other = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])  # the means are the roots of 0.45 and of 0.05
    assert agreed([one.log() + 3, other.log()]).softmax(-1).tolist() == pytest.approx([0.75, 0.25])
    assert agreed([other.log()]).softmax(-1).tolist() == pytest.approx([0.9, 0.1])


def test_guidance_makes_likelier_what_the_text_makes_likelier():
    conditional, unconditional = torch.tensor([0.5, 0.4, 0.1]), torch.tensor([0.25, 0.5, 0.25])
    squares = torch.tensor([0.5 * 2, 0.4 * 0.8, 0.1 * 0.4])  # p(x | text) * p(x | text) / p(x)
    assert guided(conditional.log() + 3, unconditional.log() - 1, 1).softmax(-1).tolist() == pytest.approx(
        (squares / squares.sum()).tolist()
    )
    assert guided(conditional.log(), unconditional.log(), 0).softmax(-1).tolist() == pytest.approx([0.5, 0.4, 0.1])


def test_it_is_not_held_to_another_kind_of_model(training, tmp_path):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "other").mkdir()
    save_file({"embeddings.weight": torch.zeros(2, 2)}, tmp_path / "other" / "model.safetensors")
    for folder in ("torn", "other"):
        with pytest.raises(SystemExit, match="is not of this recipe's model"):
            FollowingTraining(training.recipe, Machine(step_seconds=0.1), HeldTo([tmp_path, tmp_path / folder]))


def test_without_a_clip_it_is_held_to_what_it_was(training):
    alone = collate([training.builder.build([utterance("Hello there.", 20)], system=True)])
    kept = training._losses(alone)
    assert kept.token < 1e-2  # the file is FP16
    assert kept.codes < 1e-2
    assert kept.guide > 0.1
    with torch.no_grad():
        for p in training.student.parameters():
            p.add_(0.1 * torch.randn_like(p))
    moved = training._losses(alone)
    assert moved.token > 10 * kept.token
    assert moved.codes > 10 * kept.codes
    optimiser = torch.optim.Adam(training.student.parameters(), 3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        (losses := training._losses(alone)).total(training.r).backward()
        optimiser.step()
    assert losses.token < moved.token / 2
    assert losses.codes < moved.codes / 2
    assert all(p.grad is None for p in training.alone[0].parameters())


def test_behind_a_clip_it_learns_what_was_said(training):
    clip, said = utterance("One.", 9), utterance("Two, three.", 12)
    followed = training._losses(collate([training.builder.follow("One.", clip.codes, [said], torch.ones(SPEAKER))]))
    assert followed.token > 3  # hardly better than chance: 7.1 nats
    assert followed.codes > 3


def test_behind_a_clip_it_is_held_to_other_models_where_there_are_some(training, tmp_path):
    clip, said = utterance("One.", 9), utterance("Two, three.", 12)
    behind, alone = (
        collate([built])
        for built in (
            training.builder.follow("One.", clip.codes, [said], torch.ones(SPEAKER)),
            training.builder.build([utterance("Hello there.", 20)], system=True),
        )
    )
    (tmp_path / "later").mkdir()
    with torch.no_grad():
        for p in training.student.parameters():
            p.add_(0.1 * torch.randn_like(p))
    write_language_model(training.student, tmp_path / "later")
    held = FollowingTraining(training.recipe, Machine(step_seconds=0.1), HeldTo([tmp_path], [tmp_path / "later"]))
    load_weights(held.student, training.student.state_dict(), tmp_path)
    assert held._losses(behind).token < 1e-2  # the file is FP16
    assert held._losses(behind).codes < 1e-2
    assert held._losses(alone).token > 0.1


def test_guidance_compares_with_a_model_that_does_not_see_the_text(training, tmp_path):
    batch = collate([training.builder.build([utterance("Hello there.", 20)], system=True)])
    r = replace(training.r, fast_share=1.0)
    found, blind = predictions(training.student, batch, r), predictions(training.student, without_text(batch), r)
    wanted = guided(found.tokens, blind.tokens, 2.0)
    led = FollowingTraining(
        replace(training.recipe, dual_ar=r), Machine(step_seconds=0.1), HeldTo([tmp_path], [tmp_path], tmp_path, (2.0, 0.0))
    )
    load_weights(led.student, training.student.state_dict(), tmp_path)
    assert led._losses(batch).token.item() == pytest.approx(HOLD * divergence(wanted, found.tokens).mean().item(), rel=0.1)
    assert led._losses(batch).token > 10 * training._losses(batch).token
    assert led._losses(batch).codes > 10 * training._losses(batch).codes
    clip, said = utterance("One.", 9), utterance("Two, three.", 12)
    behind = led._losses(collate([training.builder.follow("One.", clip.codes, [said], torch.ones(SPEAKER))]))
    assert behind.token < 1e-2  # there its guidance is 0


@pytest.mark.parametrize("processes", [1, 2])
def test_it_trains_and_writes_a_model(training, tmp_path, processes):
    recipe = replace(training.recipe, dual_ar=replace(training.r, seconds=2, columns=200))
    write_codes(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    held = partial(train_following, held_to=HeldTo([tmp_path], [tmp_path], tmp_path))
    in_processes(held, recipe, Machine(processes=processes, step_seconds=0.1))
    assert torch.load(tmp_path / "dual_ar.pt", weights_only=True)["step"] > 3
    assert (tmp_path / "model.safetensors").read_bytes() != before


def test_it_says_what_it_lacks(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"has no dual_ar\.pt: make them with `python -m training\.unpack`"):
        main(["--work", str(tmp_path)])
    (tmp_path / "dual_ar.pt").touch()
    (tmp_path / "codes_0000.pt").touch()
    with pytest.raises(SystemExit, match=r"has no codes of other speakers: make them with `python -m training\.widening`"):
        main(["--work", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["--seconds", "nan"])
    assert "--seconds is nan; it must be more than 0" in capsys.readouterr().err
    for words, said in (
        (["--processes", "0"], "--processes is 0"),
        (["--clip-share", "1.5"], "--clip-share is 1.5; it must be from 0 to 1"),
        (["--guidance", "0.5", "-1"], "--guidance is 0.5 -1; both must be at least 0"),
        (["--behind", str(tmp_path)], "--behind: "),
        (["--unconditional", str(tmp_path)], "has no model.safetensors"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert said in capsys.readouterr().err
