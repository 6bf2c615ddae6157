"""Measures how far rounded weights lead away from FP32's: FP16's, and 8-bit ones as the kernels of a GPU and as a CPU multiply them.

All of it runs on a CPU: there the GPU's arithmetic is that of the eager step in FP16, with which an engine on CUDA checks its kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from bench.prompts import prompts
from bench.record import Record
from bench.serving import Step as Shown
from inference import SpeechRequest
from inference.engine.decode_step import Head, Step
from inference.engine.prompting import Prompting
from inference.engine.runner import Runner, Sequence
from inference.model.checkpoint import Checkpoint
from inference.model.dual_ar import DualAR, KVCache, Span

FP32 = "FP32"


@torch.inference_mode()
def measure(checkpoint: Checkpoint, texts: int, most: int, record: Record, step: Shown) -> None:
    """Let each kind of weights follow the first `most` frames of each text's speech, which FP32's weights drew, and then speak greedily.

    A run holds, for each frame: the difference of the hidden state from FP32's, as a part of it; the same of the frame's logits, less their
    means; and at how many draws the likeliest id is the same. `greedy` is the share of equal frames of the greedy speech.
    """
    lm = checkpoint.lm
    runner = Runner(checkpoint, 1)
    kinds = {
        FP32: runner._step, "FP16": Step(_half(lm), 1), "int8 on a GPU": Step(_half(lm), 1, "int8"), "int8 on a CPU": Step(lm, 1, "int8"),
    }  # fmt: skip
    heads = {kind: _head(kind_step, runner._speakable) for kind, kind_step in kinds.items()}
    record.body["draws"] = lm.config.num_codebooks
    prompting = Prompting(checkpoint)
    for spoken in islice(prompts(("medium",)), texts):
        with step(f"text {spoken.number}", None):
            prompt, frames = _speech(checkpoint, prompting, runner, SpeechRequest(spoken.text, seed=spoken.number), most)
            expected = list(_followed(kinds[FP32], heads[FP32], prompt, frames))
            expected_greedy = _greedy(kinds[FP32], heads[FP32], prompt, len(frames))
            for kind, kind_step in list(kinds.items())[1:]:
                found = zip(_followed(kind_step, heads[kind], prompt, frames), expected, strict=True)
                errors = [(_far(a, b), _far(_centred(ours), _centred(theirs)), _same(ours, theirs)) for (a, ours), (b, theirs) in found]
                hidden, logits, same = zip(*errors, strict=True)
                greedy = _greedy(kind_step, heads[kind], prompt, len(frames)) == expected_greedy
                record.runs.append(
                    {"weights": kind, "text": spoken.number, "hidden_error": hidden, "logits_error": logits, "same": same,
                     "greedy": float(greedy.all(dim=1).float().mean())}
                )  # fmt: skip
        record.write()
    prompting.close()


def _half(lm: DualAR) -> DualAR:
    """The model as CUDA has it."""
    half = DualAR.without_values(lm.config, lm.semantic_begin)
    half.load_state_dict({name: t.half() for name, t in lm.state_dict().items()}, assign=True)
    return half.requires_grad_(False)


def _head(step: Step, like: Head) -> Head:
    output = step.heads.rows_of
    return Head(like.ids, output(step.model.output_weight[like.ids]), like.codes, output(step.model.fast_output.weight[: like.codes]))


def _speech(checkpoint: Checkpoint, prompting: Prompting, runner: Runner, request: SpeechRequest, most: int) -> tuple[Tensor, Tensor]:
    """The prompt of a text's first segment, (1 + codebooks, time), and the frames that the model speaks after it, (n, 1 + codebooks)."""
    request = request.resolved(checkpoint.defaults)
    segments, *_ = prompting.segments(request, aside=False)
    prompt, _ = prompting.prompt(request, prompting.fixed(request, [request.voice])[request.voice], segments[:1])
    sequence = Sequence(request, prompt, most, request.seed or 0)
    runner.stage(sequence)
    while sequence.finish is None:
        runner.prefill() if sequence.slot < 0 else runner.step()
    runner.remove(sequence)
    return prompt, torch.stack([torch.from_numpy(frame) for frame in sequence.frames])


def _begun(step: Step, prompt: Tensor, frames: int) -> KVCache:
    """A cache that holds all but the prompt's last column, with room for so many frames."""
    cache, time = step.model.new_cache(1, prompt.shape[1] + frames), prompt.shape[1] - 1
    if step.exact:  # as the runner computes prompts on a CPU, and as on CUDA
        step.model.slow(prompt[None, :, :time], cache, Span.prompt(0, 0, time, prompt.device))
    else:
        step.prompt(prompt[None, :, :time], cache, 0, 0)
    return cache


def _followed(step: Step, head: Head, prompt: Tensor, frames: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """For each frame the hidden state (dim,) and the logits (ids,) of each draw, after all that was spoken before."""
    cache = _begun(step, prompt, len(frames))
    columns = torch.cat((prompt.T[-1:], frames))
    for n, frame in enumerate(frames):
        choices = torch.cat(((head.ids == frame[0]).int().argmax()[None], frame[2:]))
        logits: list[Tensor] = []

        def pick(draw: int, scores: Tensor, choices: Tensor = choices, logits: list[Tensor] = logits) -> Tensor:
            logits.append(scores[0])
            return choices[draw : draw + 1]

        hidden = step.slow(columns[n : n + 1], cache, [prompt.shape[1] - 1 + n])
        step.frame(hidden, head, pick)
        yield hidden[0].float(), logits


def _greedy(step: Step, head: Head, prompt: Tensor, count: int) -> Tensor:
    """The likeliest frames, (count, 1 + codebooks)."""
    cache, columns = _begun(step, prompt, count), [prompt.T[-1:]]
    for n in range(count):
        hidden = step.slow(columns[-1], cache, [prompt.shape[1] - 1 + n])
        columns.append(step.frame(hidden, head, lambda _, logits: logits.argmax(-1))[:, :-2])
    return torch.cat(columns[1:])


def _centred(logits: list[Tensor]) -> Tensor:
    return torch.cat([one - one.mean() for one in logits])


def _far(ours: Tensor, theirs: Tensor) -> float:
    """The distance as a part of the second."""
    return round(float((ours - theirs).norm() / theirs.norm()), 6)


def _same(ours: list[Tensor], theirs: list[Tensor]) -> int:
    return sum(int(a.argmax() == b.argmax()) for a, b in zip(ours, theirs, strict=True))
