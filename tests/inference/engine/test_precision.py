"""The types that CUDA uses, run on a CPU: FP16 weights for language model and decoder, FP32 where it counts."""

import numpy as np
import pytest
import soundfile
import torch

from inference import Reference, SpeechEngine, SpeechRequest, Voice
from inference.model import checkpoint as checkpoints
from tests.conftest import GOLDEN


@pytest.fixture(scope="module")
def half(golden_directory):
    with pytest.MonkeyPatch.context() as cuda:
        cuda.setattr(checkpoints, "precision", lambda _: torch.float16)
        loaded = checkpoints.load(golden_directory, torch.device("cpu"))
        checkpoints.verify_precision(loaded.lm, loaded.codec, torch.device("cpu"))
        with SpeechEngine(loaded, slots=3) as engine:
            yield engine


def test_the_whole_path_runs_and_stays_close(half, engine):
    clip = soundfile.read(GOLDEN / "codec_tiny/wave1_noise.wav", dtype="float32")[0]
    codes = half.encode(clip)
    assert np.array_equal(codes, engine.encode(clip))  # the encoder stays FP32
    np.testing.assert_allclose(half.decode(codes).samples, engine.decode(codes).samples, atol=5e-3)
    voice = Voice((Reference(codes, "what is said"),))
    streams = [half.stream(SpeechRequest("Hello there.", voice, seed=s, max_new_tokens=20)) for s in range(3)]
    assert all(sum(len(c.samples) for c in s) == 2048 * s.codes.shape[1] > 0 for s in streams)


def test_logits_stay_close(half, engine, prompts):
    """The yardstick is the official BF16 run, which is 0.05 (root mean square) from FP32."""
    checkpoint = half.checkpoint
    builder = half._prompting.builder(SpeechRequest("x"))
    columns = torch.cat((builder.system(), builder.segment(prompts["plain"]["text"])), dim=1)[None]
    logits = [c.lm.token_logits(c.lm.slow(columns))[0, -1] for c in (checkpoint, engine.checkpoint)]
    assert logits[0].dtype == torch.float32
    assert (logits[0] - logits[1]).square().mean().sqrt() < 0.02


def test_norms_and_rotation_compute_in_fp32(half):
    """A residual beyond FP16's square root must not become infinite inside a norm."""
    norm = half.checkpoint.lm.norm
    x = torch.full((1, 64), 1000.0, dtype=torch.float16)
    assert norm(x).isfinite().all()
    assert half._runner._step.slow_blocks[0].attention_norm.norm.weight.dtype == torch.float16


def test_weights_beyond_fp16_are_refused(golden_directory, tmp_path):
    for file in golden_directory.iterdir():
        (tmp_path / file.name).symlink_to(file)
    tensors = torch.load(tmp_path / "model.pth", weights_only=True)
    tensors["norm.weight"][2] = 1e6
    (tmp_path / "model.pth").unlink()
    torch.save(tensors, tmp_path / "model.pth")
    with pytest.MonkeyPatch.context() as cuda:
        cuda.setattr(checkpoints, "precision", lambda _: torch.float16)
        with pytest.raises(checkpoints.CheckpointError, match=r"norm\.weight reaches 9.* beyond FP16's 65504"):
            checkpoints.load(tmp_path, torch.device("cpu"), tmp_path / "copies")
