"""What the Dual-AR is taught, and that what is exported is what was trained."""

import math
import random

import pytest
import torch

from inference.model.dual_ar import DualAR
from inference.model.prompt import PromptBuilder
from training.dual_ar import DualARTraining, Student, dual_ar_config, load_weights, losses, own_words
from training.machine import Machine
from training.recipe import DualARRecipe, Recipe
from training.samples import IGNORE, SPEAKER, Frames, SequenceBuilder, byte_tokenizer, collate, following, plan_epoch
from training.shards import CodedUtterance, OtherSpeaker

R = DualARRecipe(
    dim=32,
    layers=3,
    heads=4,
    kv_heads=2,
    hidden=64,
    guided=((1, (0, 2)),),
    phoneme_layer=2,
    fast_share=1.0,
    bfloat16=False,
    max_seq_len=256,
)
RECORDED = torch.arange(8).short()
"""Codes that no utterance here has."""


@pytest.fixture
def tokenizer(tmp_path):
    return byte_tokenizer(tmp_path / "tokenizer.tiktoken")


@pytest.fixture
def builder(tokenizer):
    return SequenceBuilder(tokenizer)


def utterance(text="Hello there.", frames=9):
    generator = torch.Generator().manual_seed(frames)
    codes = torch.randint(0, 1000, (frames, 8), generator=generator).short()
    return CodedUtterance(
        text.encode(),
        codes,
        torch.linspace(0, len(text) - 1, frames).half(),
        torch.randint(20, 170, (frames, 4), generator=generator).byte(),
    )


def test_the_voice_token_predicts_the_first_frame_and_the_last_frame_the_end(builder, tokenizer):
    u = utterance()
    batch = collate([builder.build([u], system=True)])
    spoken = (batch.target[0, 0] != IGNORE).nonzero()[:, 0]
    assert len(spoken) == len(u.codes) + 1
    assert batch.columns[0, 0, spoken[0]] == tokenizer.special("voice")
    assert batch.target[0, 0, spoken[0]] == tokenizer.semantic_begin + u.codes[0, 0]
    assert torch.equal(batch.target[0, 1:, spoken[0]], u.codes[0].long())
    assert batch.target[0, 0, spoken[-1]] == tokenizer.im_end


def test_guides_point_at_the_bytes_being_spoken(builder):
    u = utterance("abcdefghi", 9)
    batch = collate([builder.build([utterance(), u], system=False)])
    places = batch.place[0][batch.place[0] >= 0][-9:]
    columns = (places + 0.5).long()
    assert bytes(batch.columns[0, 0, columns].tolist()) == b"abcdefghi"


def test_noise_leaves_text_and_targets_alone(builder, tokenizer):
    batch = collate([builder.build([utterance(frames=30)], system=True)])
    noisy = builder.noisy(batch, torch.tensor([1.0]))
    text = batch.columns[:, 0] < tokenizer.semantic_begin
    assert torch.equal(noisy.columns[:, 0][text], batch.columns[:, 0][text])
    assert torch.equal(noisy.target, batch.target)
    assert not torch.equal(noisy.columns, batch.columns)


def test_its_own_words_are_whole_frames_of_speech(builder, tokenizer):
    torch.manual_seed(0)
    u, others = utterance(frames=30), torch.randint(0, 1000, (5000, 8)).short()
    student = Student(R, tokenizer.semantic_begin, tokenizer.n_vocab)
    batch = collate([builder.build([u], system=True)])
    said = own_words(student, batch, torch.tensor([0.7]), Frames(others), builder, R)
    assert torch.equal(said.target, batch.target)
    changed = (said.columns != batch.columns).any(1)[0].nonzero()[:, 0]
    assert 10 < len(changed) < 28
    assert (batch.columns[0, 0, changed] >= tokenizer.semantic_begin).all()
    real = {tuple(frame) for frame in others.tolist()}
    for frame in said.columns[0, :, changed].T.tolist():
        assert frame[0] == tokenizer.semantic_begin + frame[1]
        assert tuple(frame[1:]) in real


def test_a_clip_is_written_as_the_engine_writes_it_and_only_what_follows_it_is_learned(builder, tokenizer):
    clip, said, who = utterance(frames=15).codes, utterance("abcdefghi", 9), torch.arange(SPEAKER) / 4
    batch = collate([builder.follow("One. Two.", clip, [said], who), builder.build([said], system=True)])
    prompts = PromptBuilder(tokenizer, 8)
    before = torch.cat((prompts.system(), prompts.reference("One. Two.", clip.T.numpy()), prompts.segment("abcdefghi")), 1)
    assert torch.equal(batch.columns[0, :, : before.shape[1]], before)
    learned = batch.target[0, 0] != IGNORE
    assert learned.sum() == len(said.codes) + 1
    assert learned.nonzero()[0] == before.shape[1] - 1
    places = batch.place[0][batch.place[0] >= 0]
    assert bytes(batch.columns[0, 0, (places + 0.5).long()].tolist()) == b"abcdefghi"
    assert batch.speaker.tolist() == [who.tolist(), [0] * SPEAKER]
    assert batch.reference.tolist() == [before.shape[1] - prompts.segment("abcdefghi").shape[1], 0]


def test_a_clip_is_heard_as_it_is(builder, tokenizer):
    torch.manual_seed(0)
    batch = collate([builder.follow("Hello", utterance(frames=30).codes, [utterance(frames=40)], torch.zeros(SPEAKER))])
    student, frames = Student(R, tokenizer.semantic_begin, tokenizer.n_vocab), Frames(torch.randint(0, 1000, (5000, 8)).short())
    everything = torch.tensor([1.0])
    for altered in (builder.noisy(batch, everything), own_words(student, batch, everything, frames, builder, R)):
        changed = (altered.columns != batch.columns).any(1)[0]
        assert changed.sum() > 20
        assert not changed[: batch.reference[0]].any()


def test_who_speaks_is_told_by_the_columns_that_have_heard_the_clip_alone(builder, tokenizer):
    """The text's and the first of the speech; whatever others tell costs nothing."""
    student, who = Student(R, tokenizer.semantic_begin, tokenizer.n_vocab), torch.ones(SPEAKER)
    batch = collate([builder.follow("Hello", utterance(frames=30).codes, [utterance("abc", 40)], who)])
    told = torch.zeros(*batch.columns[:, 0].shape, SPEAKER)
    start, first = int(batch.reference[0]), int((batch.target[0, 0] != IGNORE).nonzero()[0])
    told[0, start : first + 4] = 1
    student.told_speakers = lambda: told
    assert losses(student, batch, R, tokenizer.im_end).speaker == 0
    for column in (start + 8, first, first + 3):
        told[0, column] = 0
        assert losses(student, batch, R, tokenizer.im_end).speaker > 0
        told[0, column] = 1


def test_clips_are_of_who_speaks_behind_them(builder):
    """Speaker n says n and a letter, another one each time; recorded, frames have other codes."""
    spoken = []
    for n in range(1, 8):
        says = [utterance(f"{n} {letter}", 8 + n + k) for k, letter in enumerate("WXYZ")]
        spoken.append(
            OtherSpeaker(
                torch.full((SPEAKER,), float(n)),
                says,
                [[(u.text, u.codes) for u in says], [(u.text, RECORDED.expand(len(u.codes), -1)) for u in says]],
            )
        )
    batches = following(spoken, builder, 400, random.Random(0))
    rows, clips = 0, set()
    while rows < 2 * len(spoken):
        batch = next(batches)
        assert len(batch.columns) == 1 or batch.columns.shape[0] * batch.columns.shape[2] <= 400
        for columns, who in zip(batch.columns, batch.speaker, strict=True):
            written = [chr(t) for t in columns[0].tolist() if t < 128]
            assert {c for c in written if "1" <= c <= "9"} == {str(int(who[0]))}
            letters = [c for c in written if c in "WXYZ"]
            assert 2 <= len(letters) == len(set(letters))
            rows += 1
        in_clip = builder.semantic(batch.columns[:, 0]) & ~batch.is_own
        clips |= {
            bool((found == RECORDED[:, None]).all()) for found in (c[1:, clip] for c, clip in zip(batch.columns, in_clip, strict=True))
        }
        assert not (batch.columns[:, 1:].transpose(1, 2)[batch.is_own] == RECORDED).all(1).any()  # nobody speaks as clips sound
    assert clips == {True, False}


def meet(process, folder):
    """What one of two processes has after they met: weights 0 and 1, 10 s and 30 s of processor time, and the first has no time left."""
    torch.distributed.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=process, world_size=2)
    training = DualARTraining(Recipe.smoke(folder), Machine(processes=2, until=(0, math.inf)[process], step_seconds=0.0), process)
    for p in training.student.parameters():
        p.data.fill_(process)
    elapsed = training._elapsed(-(10, 30)[process])
    assert {float(p.unique()) for p in training.student.parameters()} == {0.5}
    assert elapsed == 40
    assert training.is_over
    torch.distributed.destroy_process_group()


def test_processes_go_on_from_the_mean_of_their_weights_and_stop_together(tmp_path):
    byte_tokenizer(tmp_path / "tokenizer.tiktoken")
    torch.multiprocessing.spawn(meet, (tmp_path,), nprocs=2)


def test_every_batch_holds_sequences_of_one_padded_length():
    sizes = [20 + i % 70 for i in range(500)]
    batches = plan_epoch(sizes, 37, R, random.Random(0))
    used = [i for batch in batches for group, _ in batch for i in group]
    assert len(used) == len(set(used))
    assert len(used) > 350
    for batch in batches:
        lengths = {-(-(sum(sizes[i] for i in group) + 37 * system - 1) // 32) for group, system in batch}
        assert len(lengths) == 1


def test_exported_weights_are_the_trained_model(builder, tokenizer):
    torch.manual_seed(0)
    student = Student(R, tokenizer.semantic_begin, tokenizer.n_vocab).eval()
    plain = DualAR(dual_ar_config(R, tokenizer.n_vocab), tokenizer.semantic_begin).eval()
    plain.load_state_dict(student.plain_state())
    batch = collate([builder.build([utterance()], system=True)])
    next_codes = batch.target[:, 1:].clamp(min=0)
    with torch.no_grad():
        tokens, codes = plain(batch.columns, next_codes)
        hidden = student.model.slow(batch.columns)
        assert torch.allclose(student.model.token_logits(hidden), tokens, atol=1e-5)
        mine = student.code_logits(hidden[0], next_codes[0].T)
    assert torch.allclose(mine, codes[0], atol=1e-5)


def test_a_few_steps_learn_one_utterance(builder, tokenizer):
    torch.manual_seed(0)
    student = Student(R, tokenizer.semantic_begin, tokenizer.n_vocab).train()
    optimiser = torch.optim.AdamW(student.parameters(), lr=5e-3)
    batch = collate([builder.build([utterance()], system=False)])
    first = losses(student, batch, R, tokenizer.im_end)
    for _ in range(40):
        optimiser.zero_grad()
        losses(student, batch, R, tokenizer.im_end).total(R).backward()
        optimiser.step()
    last = losses(student, batch, R, tokenizer.im_end)
    assert last.token < first.token / 2
    assert last.codes < first.codes / 2
    assert last.guide < first.guide


def test_a_file_of_another_model_is_named(tokenizer, tmp_path):
    student = Student(R, tokenizer.semantic_begin, tokenizer.n_vocab)
    other = {name: tensor for name, tensor in student.state_dict().items() if not name.startswith("phoneme.")}
    with pytest.raises(SystemExit, match=r"dual_ar\.pt is not of this recipe's model: .*phoneme"):
        load_weights(student, other, tmp_path / "dual_ar.pt")


def test_a_file_from_before_there_was_a_readout_of_who_speaks_trains_further(tmp_path):
    recipe = Recipe.smoke(tmp_path)
    before = DualARTraining(recipe, Machine(step_seconds=0.1))
    with torch.no_grad():
        for p in before.student.parameters():
            p.add_(0.5)
    older = [
        {n: t for n, t in weights.items() if not n.startswith("speaker.")} for weights in (before.average, before.student.state_dict())
    ]
    state = {"average": older[0], "student": older[1], "optimisers": [], "seconds": 3.0, "step": 7, "heard": 1.0, "fresh": 0}
    torch.save(state, tmp_path / "dual_ar.pt")
    after = DualARTraining(recipe, Machine(step_seconds=0.1))
    assert (after.step, after.fresh) == (7, 7)
    assert after.average.keys() == before.average.keys()
    for name, p in after.student.named_parameters():
        assert torch.equal(p, after.average[name])
        assert torch.equal(p, before.average[name])
