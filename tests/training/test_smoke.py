"""The whole recipe, very small: text, teacher, encoder, codes, head, Dual-AR, export; what comes out loads and speaks."""

import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from inference.model import checkpoint
from tests.training.fake_device import ELSEWHERE, second_device
from training import disguise, evaluate, pulsed_head, widening
from training.__main__ import main, run_stage
from training.codes import encode
from training.dual_ar import DualARTraining, own_words
from training.encoder import EncoderTraining, load_encoder, score
from training.export import export
from training.head import SAMPLES, HeadTraining, mel_error
from training.machine import Machine
from training.pack import pack
from training.pulsed_head import (
    HELD,
    PulsedHeadTraining,
    aligned_shards,
    codec_of,
    export_pulsed_head,
    is_heard,
    prepare,
    train_pulsed_head,
)
from training.pulsed_head import main as train_pulsed
from training.recipe import Recipe, TextRecipe
from training.samples import Frames, collate
from training.shards import coded, held_out, held_out_codes, other_speakers, save, utterances
from training.text import corpus, ordinal
from training.unpack import unpack

TRAINED = ("encoder_training.pt", "encoder.pt", "head.pt", "dual_ar.pt")
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


@pytest.fixture(scope="session")
def wordnet(tmp_path_factory):
    """Each twentieth line of WordNet: all of it takes half a minute to write out as words."""
    folder = tmp_path_factory.mktemp("wordnet")
    for file in TextRecipe().wordnet.glob("data.*"):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        (folder / file.name).write_text("".join(lines[::20]), encoding="utf-8")
    return folder


@needs_wordnet
def test_held_out_sentences_are_not_trained_on(wordnet):
    drawn = corpus(TextRecipe(wordnet=wordnet, generated=500, joined=50))
    held = {s.lower().rstrip(".!?") for s in (*(t.text for t in drawn.test), *drawn.validation)}
    assert len(drawn.test) == 60
    assert not held & {s.lower().rstrip(".!?") for s in drawn.train}


def progress(folder):
    """Files of the stages, with how many steps were trained where that is kept."""
    shards = {path.name: None for path in folder.glob("*_*.pt")}
    trained = {path.name: torch.load(path, weights_only=True) for path in folder.glob("*.pt") if path.name in TRAINED}
    return shards | {name: state.get("steps", state.get("step")) for name, state in trained.items()}


STAGES = ("speech", "encoder", "codes", "head", "dual-ar")


def smoke(folder, wordnet):
    recipe = Recipe.smoke(folder)
    return replace(recipe, text=replace(recipe.text, wordnet=wordnet))


def aside():
    """A process of its own: the teacher's memory goes with it."""
    return ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (1,))


@pytest.fixture(scope="module")
def made(tmp_path_factory, wordnet):
    """The smoke recipe after its run, the last stages by command."""
    recipe = smoke(tmp_path_factory.mktemp("minnow"), wordnet)
    with aside() as other:
        for stage in STAGES[:-1]:
            other.submit(run_stage, stage, recipe, recipe.folder / "checkpoint", Machine(step_seconds=recipe.step_seconds)).result()
        other.submit(main, ["dual-ar", "export", "card", "--recipe", "smoke", "--work", str(recipe.folder)]).result()
    return recipe


@needs_wordnet
def test_recipe_runs_from_text_to_a_checkpoint_that_loads(made, tmp_path):
    recipe = made
    head = torch.load(recipe.folder / "head.pt", weights_only=True)
    assert head["steps"] > head["against_steps"] > 0
    target = recipe.folder / "checkpoint"
    model = checkpoint.load(target, torch.device("cpu"), copies=tmp_path / "copies")
    wave = model.codec.decode(torch.randint(0, 1000, (1, 8, 3)))
    assert wave.shape == (1, 3 * 2048)
    last = "head.conv_post.conv.bias"
    assert model.codec.state_dict()[last] == head["average"][last].half() != head["codec"][last].half()
    assert (target / "README.md").read_text().split("\n")[6] == "# minnow"


@needs_wordnet
def test_evaluate_speaks_as_many_held_out_sentences_as_the_recipe_says(made, monkeypatch):
    monkeypatch.setattr(evaluate, "needs", lambda *_: None)
    monkeypatch.setattr(evaluate, "distill_mos", lambda waves: float(len(waves)))  # its package is installed by hand
    scores = evaluate.evaluate(replace(made, evaluated=1), made.folder / "checkpoint")
    assert (scores.sentences, scores.distill_mos) == (1, 1)
    assert [path.name for path in (made.folder / "heard").iterdir()] == ["00.wav"]
    assert Recipe.smoke(made.folder).evaluated < 5, "a model that has learned nothing speaks each for 47 s"
    assert Recipe(made.folder).evaluated == len(corpus(made.text).test)


@needs_wordnet
def test_every_stage_leaves_what_it_made(made):
    done = progress(made.folder)
    assert "encoder_training.pt" not in done
    assert done.keys() >= {"speech_0000.pt", "speech_0001.pt", "codes_0000.pt", "codes_0001.pt"}
    assert min(done[name] for name in ("encoder.pt", "head.pt", "dual_ar.pt")) > 1


@needs_wordnet
@pytest.mark.drill
def test_a_stage_whose_time_is_up_saves_one_step_or_shard_and_goes_on(tmp_path, wordnet):
    recipe, stopped = smoke(tmp_path, wordnet), {}
    with aside() as other:
        for stage in STAGES:
            before = progress(recipe.folder)
            for machine in (Machine(until=0.0, step_seconds=recipe.step_seconds), Machine(step_seconds=recipe.step_seconds)):
                other.submit(run_stage, stage, recipe, tmp_path / "checkpoint", machine).result()
                stopped.setdefault(stage, {name: steps for name, steps in progress(recipe.folder).items() if name not in before})
    assert stopped == {
        "speech": {"held_test.pt": None},
        "encoder": {"encoder_training.pt": 1},
        "codes": {"held_test_codes.pt": None},
        "head": {"head.pt": 1},
        "dual-ar": {"dual_ar.pt": 1},
    }
    assert min(progress(recipe.folder)[name] for name in ("encoder.pt", "head.pt", "dual_ar.pt")) > 1


@needs_wordnet
def test_stages_after_the_one_that_ran_out_of_minutes_wait(made, tmp_path, capsys):
    main(["codes", "export", "--recipe", "smoke", "--work", str(made.folder), "--to", str(tmp_path / "to"), "--minutes", "0"])
    assert "0 minutes are up in stage codes" in capsys.readouterr().out
    assert not (tmp_path / "to").exists()


@needs_wordnet
def test_a_packed_checkpoint_is_small_and_trains_further(made, tmp_path):
    recipe = made
    for path in (*recipe.folder.glob("*.pt"), recipe.folder / "tokenizer.tiktoken"):
        shutil.copy(path, tmp_path)
    pack(recipe.folder, tmp_path)
    for name in ("head.pt", "dual_ar.pt"):
        assert (tmp_path / name).stat().st_size < (recipe.folder / name).stat().st_size / 3
    before = progress(tmp_path)
    seconds = {name: torch.load(tmp_path / f"{name}.pt", weights_only=True)["seconds"] for name in ("head", "dual_ar")}
    further = replace(
        recipe,
        folder=tmp_path,
        head=replace(recipe.head, adversarial_seconds=seconds["head"] - recipe.head.seconds + 0.5),
        dual_ar=replace(recipe.dual_ar, seconds=seconds["dual_ar"] + 0.5),
    )
    run_stage("head", further, tmp_path, Machine(step_seconds=recipe.step_seconds))
    run_stage("dual-ar", further, tmp_path, Machine(step_seconds=recipe.step_seconds))
    after = progress(tmp_path)
    assert after["head.pt"] > before["head.pt"]
    assert after["dual_ar.pt"] > before["dual_ar.pt"]


@needs_wordnet
def test_a_checkpoint_that_was_exported_can_be_trained_further_and_exported_again(made, tmp_path):
    recipe = replace(made, folder=tmp_path)
    unpack(made.folder / "checkpoint", recipe)
    export(recipe, tmp_path / "checkpoint")
    for path in (made.folder / "checkpoint").glob("*.safetensors"):
        again = load_file(tmp_path / "checkpoint" / path.name)
        for name, tensor in load_file(path).items():
            torch.testing.assert_close(again[name], tensor, msg=name)
    held = held_out_codes(made, "validation")
    model = load_encoder(recipe)
    for true, code in zip(coded(held), encode(model, utterances(held_out(made, "validation"))), strict=True):
        assert (true.codes == code.codes).float().mean() > 0.95  # the exported encoder is rounded to FP16
    for path in (*made.folder.glob("codes_*.pt"), held):
        shutil.copy(path, tmp_path)
    run_stage("dual-ar", recipe, tmp_path, Machine(step_seconds=recipe.step_seconds))
    assert progress(tmp_path)["dual_ar.pt"] > 1


def train_alone_and_meet(recipe):
    """Two processes' training, one after the other -> how far the first is from the mean of both once it has met the second."""
    first, second = (PulsedHeadTraining(recipe, Machine(processes=2, step_seconds=0.1), process) for process in range(2))
    second.run()
    assert torch.load(recipe.folder / "pulsed_head.pt", weights_only=True)["steps"] == 0  # the first alone writes it
    first.run()
    second._meet()
    pairs = [(a.detach().clone(), b) for a, b in zip(first.codec.parameters(), second.codec.parameters(), strict=True)]
    assert any((a != b).any() for a, b in pairs)
    first._meet()
    met = zip(first.codec.parameters(), pairs, strict=True)
    return max(float((now - (a + b) / 2).abs().max()) for now, (a, b) in met)


def test_a_pulsed_head_needs_speech_and_codes(tmp_path, capsys):
    with pytest.raises(SystemExit, match="has 0 shards of speech and codes of 0: make them with"):
        train_pulsed(["--work", str(tmp_path / "nowhere")])
    for option in ("--begin", "--hold"):
        with pytest.raises(SystemExit):
            train_pulsed(["--work", str(tmp_path), option, str(tmp_path / "none.safetensors")])
        assert f"{option}: there is no file" in capsys.readouterr().err


@needs_wordnet
def test_a_head_trains_on_the_teacher_with_its_own_pulses_and_goes_on(made, tmp_path):
    recipe = replace(made, folder=tmp_path)
    for pattern in ("speech_*.pt", "codes_*.pt", "held_*.pt", "encoder.pt", "teacher.onnx"):
        for path in made.folder.glob(pattern):
            shutil.copy(path, tmp_path)
    recipe = replace(recipe, head=replace(recipe.head, seconds=0.3))
    begun = next((made.folder / "checkpoint").glob("*generator.safetensors"))
    with aside() as other:
        other.submit(prepare, recipe, begun, 1, 3).result()
        assert other.submit(train_alone_and_meet, recipe).result() == pytest.approx(0, abs=1e-6)
        steps = torch.load(tmp_path / "pulsed_head.pt", weights_only=True)["steps"]
        other.submit(train_pulsed_head, recipe, Machine(step_seconds=0.1), 0).result()
    assert 0 < steps < torch.load(tmp_path / "pulsed_head.pt", weights_only=True)["steps"]
    assert load_file(export_pulsed_head(recipe)).keys() == load_file(begun).keys()
    (shard,) = aligned_shards(recipe)
    spoken = torch.load(shard, weights_only=True)
    assert spoken
    for one in spoken:
        assert len(one["wave"]) == SAMPLES * len(one["codes"]) == SAMPLES * len(one["counts"])
        assert one["wave"].float().std() > 100


def widen(recipe, begun):
    """Two shards of three other speakers, two steps of each kind, codes, and a codec -> digits kept as they were."""
    machine = Machine(step_seconds=0.1)
    with patch.object(disguise, "PER_SHARD", 3):
        disguise.speak_disguised(recipe, machine, 0, shards=2)
    with patch.object(widening, "HELD", 4):
        wider = widening.Widening(recipe, machine)
        model = wider.run(0.2, 0.2)
    widening.code_others(recipe, model)
    widening.write(recipe, model, begun)
    return wider.kept(wider.held["teacher"])


def steps_behind_clips(recipe):
    """The language model's training -> of each step, whether all of it is behind clips."""
    training, behind = DualARTraining(recipe, Machine(step_seconds=recipe.step_seconds)), []
    step = training._step

    def noted(batch, elapsed):
        behind.append(bool((batch.reference > 0).all()))
        step(batch, elapsed)

    training._step = noted
    training.run()
    return behind


def head_steps(recipe, begun):
    """A few steps of a head that goes on from the widened codec -> how far they moved the readouts of others' phases."""
    prepare(recipe, begun, 1, 3, 0.2)
    training = PulsedHeadTraining(replace(recipe, head=replace(recipe.head, seconds=0.3)), Machine(step_seconds=0.1), 0)
    before = [p.detach().clone() for p in training.readouts.parameters()]
    codes, _ = training.speech[0].drawn(2, training.r.crop, training.r)
    kept = training._held_sound(codes)
    assert training._as_held(codes, kept) < training._as_held(codes, -kept)
    assert all(
        torch.equal(weight, training._held.state_dict()[name]) for name, weight in load_file(recipe.folder / HELD).items() if "bias" in name
    )
    training.run()
    assert not any(p.requires_grad for p in training._held.parameters())
    return max(float((a - b).abs().max()) for a, b in zip(before, training.readouts.parameters(), strict=True))


@needs_wordnet
def test_a_codec_is_widened_and_a_language_model_follows_clips(made, tmp_path):
    recipe = replace(made, folder=tmp_path, dual_ar=replace(made.dual_ar, clip_share=1.0, columns=1200))
    for pattern in ("speech_*.pt", "codes_*.pt", "held_*.pt", "encoder.pt", "teacher.onnx", "tokenizer.tiktoken"):
        for path in made.folder.glob(pattern):
            shutil.copy(path, tmp_path)
    begun = next((made.folder / "checkpoint").glob("*generator.safetensors"))
    with aside() as other:
        assert 0 < other.submit(widen, recipe, begun).result() < 1
        with pytest.raises(SystemExit, match="has another encoder than"):  # so a second run with the same codec begins nothing
            codec_of(recipe, begun)
        others = other_speakers(recipe)
        assert len(others) == 6
        assert all(torch.equal(somebody.readout, disguise.speaker(n).readout) for n, somebody in enumerate(others))
        assert {len(somebody.says) for somebody in others} <= {disguise.EACH - 1, disguise.EACH}
        assert all([len(clip) for clip in somebody.clips] == 2 * [len(somebody.says)] for somebody in others)
        behind = other.submit(steps_behind_clips, recipe).result()
        assert len(behind) > 1
        assert all(behind)
        wider, was = load_file(next(tmp_path.glob("*generator.safetensors"))), load_file(begun)
        changed = {name for name in was if not torch.equal(was[name], wider[name])}
        assert changed
        assert not any(is_heard(name) for name in changed)
        codec = next(tmp_path.glob("*generator.safetensors"))
        save(tmp_path / "pulsed_head.pt", {"average": was})
        with pytest.raises(SystemExit, match=r"pulsed_head\.pt has another encoder than"):
            prepare(recipe, codec, 1, 3)
        (tmp_path / "pulsed_head.pt").unlink()
        assert other.submit(head_steps, recipe, codec).result() > 0
        codes = [disguise.codes_beside(shard).read_bytes() for shard in disguise.other_speech(recipe)]
        with patch.object(widening, "Recipe", lambda _: recipe):
            widening.main(["--work", str(tmp_path), "--begin", str(codec), "--shards", "2", "--seconds", "0"])
        assert [disguise.codes_beside(shard).read_bytes() for shard in disguise.other_speech(recipe)] == codes
        pack(tmp_path, tmp_path)
        heard = disguise.other_speech(recipe)[: pulsed_head.OTHER_SHARDS]
        aligned = [disguise.aligned_beside(shard) for shard in heard]
        for path in aligned:
            path.unlink()  # as in another folder, where the packed head goes on
        assert other.submit(head_steps, recipe, codec).result() > 0
    for shard, path in zip(heard, aligned, strict=True):
        said, codes = (torch.load(file, weights_only=True) for file in (path, disguise.codes_beside(shard)))
        assert [len(one["codes"]) for one in said] == [len(one["codes"]) for one in codes]
        assert all(one["wave"].float().std() > 100 for one in said)


def test_widening_says_what_it_lacks(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"has no encoder\.pt: run"):
        widening.main(["--work", str(tmp_path)])
    for words in ("--shards 0", "--seconds -1", "--seconds nan", "--processes 0"):
        with pytest.raises(SystemExit):
            widening.main(words.split())
        assert "must be" in capsys.readouterr().err


@needs_wordnet
def test_all_that_is_trained_and_measured_stays_on_the_device(made, tmp_path):
    recipe = replace(made, folder=tmp_path, dual_ar=replace(made.dual_ar, own_share=0.0))
    for path in made.folder.glob("*.pt"):
        if path.name not in ("head.pt", "dual_ar.pt"):
            shutil.copy(path, tmp_path)
    machine = Machine(ELSEWHERE)
    spoken, codes = utterances(held_out(recipe, "validation"))[:2], coded(held_out_codes(recipe, "validation"))[:4]
    with second_device():
        encoder = EncoderTraining(recipe, machine)
        encoder._step(0.0)
        score(encoder.model, spoken)
        assert len(encode(load_encoder(recipe).to(ELSEWHERE), spoken)) == 2
        head = HeadTraining(recipe, machine)
        head._spectral_step(0.0)
        head._adversarial_step()
        mel_error(head.codec, head.fsq, recipe)
        lm = DualARTraining(recipe, machine)
        lm.frames = Frames(torch.cat([u.codes for u in codes]).to(ELSEWHERE))
        batch = collate([lm.builder.build([u], system=True) for u in codes])
        lm._step(batch, 0.0)
        own_words(lm.student, batch.to(ELSEWHERE), torch.ones(4, device=ELSEWHERE), lm.frames, lm.builder, lm.r)
        lm.gauge()
        for module in (encoder.model, head.codec, head.average, head.adversary, lm.student):
            assert {p.device for p in module.parameters()} == {ELSEWHERE}
