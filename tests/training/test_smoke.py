"""The whole recipe, very small: text, teacher, encoder, codes, head, Dual-AR, export; what comes out loads and speaks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inference.model import checkpoint
from training.__main__ import run_stage
from training.recipe import Recipe, TextRecipe
from training.text import corpus, ordinal

needs_wordnet = pytest.mark.system(TextRecipe().wordnet, "wordnet-base")


def test_ordinals():
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 101)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "12th",
        "13th",
        "21st",
        "22nd",
        "101st",
    ]


@needs_wordnet
def test_held_out_sentences_are_not_trained_on():
    drawn = corpus(TextRecipe(generated=500, joined=50))
    held = {s.lower().rstrip(".!?") for s in (*(t.text for t in drawn.test), *drawn.validation)}
    assert len(drawn.test) == 60
    assert not held & {s.lower().rstrip(".!?") for s in drawn.train}


@needs_wordnet
@pytest.mark.timeout(300)
def test_recipe_runs_from_text_to_a_checkpoint_that_loads(tmp_path):
    recipe, target = Recipe.smoke(tmp_path / "work"), tmp_path / "checkpoint"
    for stage in ("speech", "encoder", "codes", "head", "dual-ar", "export", "card"):
        run_stage(stage, recipe, target, processes=2 if stage == "dual-ar" else 1)
    head = torch.load(recipe.folder / "head.pt", weights_only=True)
    assert head["steps"] > head["against_steps"] > 0
    trained = torch.load(recipe.folder / "dual_ar.pt", weights_only=True)
    assert trained["step"] > 0
    run_stage("dual-ar", replace(recipe, dual_ar=replace(recipe.dual_ar, seconds=trained["seconds"] + 1)), target, processes=1)
    assert torch.load(recipe.folder / "dual_ar.pt", weights_only=True)["step"] > trained["step"]
    model = checkpoint.load(target, torch.device("cpu"), copies=Path(tmp_path) / "copies")
    wave = model.codec.decode(torch.randint(0, 1000, (1, 8, 3)))
    assert wave.shape == (1, 3 * 2048)
    assert (target / "README.md").read_text().split("\n")[6] == "# minnow"
