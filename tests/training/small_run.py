"""What a very small run of the language model's training begins with: a model, and utterances of random codes."""

import torch

from training.dual_ar import Student
from training.recipe import Recipe
from training.samples import SPEAKER, byte_tokenizer
from training.shards import CodedUtterance, save


def utterance(text, frames):
    codes = torch.randint(0, 1000, (frames, 8)).short()
    return CodedUtterance(text.encode(), codes, torch.linspace(0, len(text) - 1, frames).half(), torch.randint(20, 170, (frames, 4)).byte())


def begin(folder):
    """A recipe in `folder`, whose `dual_ar.pt` has the model that is returned, too."""
    torch.manual_seed(0)
    recipe = Recipe.smoke(folder)
    tokenizer = byte_tokenizer(folder / "tokenizer.tiktoken")
    student = Student(recipe.dual_ar, tokenizer.semantic_begin, tokenizer.n_vocab)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.1 * torch.randn_like(p))  # a new one finds everything equally likely
    torch.save({"average": student.state_dict(), "seconds": 0.0, "step": 0, "heard": 0.0}, folder / "dual_ar.pt")
    return recipe, student


def write_codes(folder):
    """Shards of the teacher's utterances, unseen ones among them, and of other speakers'."""
    for name in ("codes_0000", "held_validation_codes"):
        save(folder / f"{name}.pt", [vars(utterance(f"Sentence {n}.", 20)) for n in range(60)])
    others = {"readout": torch.ones(SPEAKER), "recorded": torch.zeros(20, 8).short()}
    save(folder / "other_codes_0000.pt", [others | {"speaker": n // 3} | vars(utterance(f"Other {n}.", 20)) for n in range(60)])
