"""What Triton's kernels replace, in plain PyTorch: a frame as `Graphs` asks for it and a pass over prompts as `PrefillGraphs` does, made of
the runner's own step; and passes of the vocoder whose sound arrives later, as a GPU's does.
"""

import torch

from inference.engine.graphs import Graphs
from inference.engine.prefill import BLOCK, PrefillGraphs
from inference.engine.runner import WINDOW
from inference.engine.sampler import Controls, gumbel, sample, seen_ids
from inference.engine.vocoder import Passes


class PlainStep:
    """`inference.engine.cuda_decode_step.FusedStep` by other means."""

    def __init__(self, step, head):
        self.step, self.head = step, head

    @torch.inference_mode()
    def frame(self, numbers, sampling, active, cache, frames):
        n, codebooks = int(active), self.step.codebooks
        if n == 0:
            return
        numbers, columns = numbers[:n], 1 + codebooks
        length, seed, number = numbers[:, columns : columns + 3].T
        rings = numbers[:, columns + 3 :].view(n, codebooks, WINDOW)
        controls = Controls.of(sampling[:n], penalised=True)

        def pick(draw, logits):
            if draw == 0:
                logits[number == 0, 0] = -torch.inf
            noise = gumbel(seed, number, torch.tensor([draw]), 0, logits.shape[1])[:, 0]
            return sample(logits, seen_ids(rings[:, draw], logits.shape[1]), controls, noise)

        hidden = self.step.slow_at(numbers[:, :columns], cache, length, int(length.max()) + 1)
        frames[:n] = self.step.frame(hidden, self.head, pick)
        drawn = torch.cat((frames[:n, -2:-1], frames[:n, 2:-2]), dim=1)
        for row in range(n):
            if number[row] == 0:
                rings[row, 1:] = 0
            else:
                rings[row, :, number[row] % WINDOW] = drawn[row]
        numbers[:, :columns] = frames[:n, :columns]
        numbers[:, columns] += 1
        numbers[:, columns + 2] += 1


class PlainPrefill:
    """`inference.engine.cuda_prefill.FusedPrefill` by other means."""

    def __init__(self, step):
        self.step = step

    @torch.inference_mode()
    def run(self, columns, blocks, cache, hidden):
        hidden[:] = torch.nan  # what does not count may be anything
        pieces = []
        for at, (row, first, count) in enumerate(blocks.tolist()):
            if pieces and pieces[-1][0] == row and first:
                pieces[-1][3] += count
            elif count:
                pieces.append([row, first, BLOCK * at, count])
        for row, first, at, count in pieces:
            hidden[at : at + count] = self.step.prompt(columns[at : at + count].T[None], cache, row, first)[0]


def with_graphs(runner):
    """Let a runner go the way it goes on CUDA, but without capturing anything."""
    runner._graphs = Graphs(PlainStep(runner._step, runner._speakable), runner._cache, runner._staging, runner._codebooks, WINDOW)
    like = runner._lm.embeddings.weight
    runner._prefill_graphs = PrefillGraphs(PlainPrefill(runner._step), runner._cache, runner._codebooks, like)
    return runner


class LateSound:
    """Samples that are there when they are looked at for the third time. `lost` is set to lose all that are on their way."""

    lost = False

    def __init__(self, samples):
        self.samples, self.looks = samples, 0

    def is_there(self):
        if LateSound.lost:
            raise RuntimeError("an illegal memory access was encountered")
        self.looks += 1
        return self.looks >= 3

    def wait(self):
        return self.samples


class LatePasses(Passes):
    def launch(self, streams, codes):
        return LateSound(super().launch(streams, codes).samples)


@torch.inference_mode()
def with_late_sound(vocoder):
    """Let a vocoder go the way it goes on CUDA, but without capturing anything."""
    vocoder._passes, vocoder._alone = LatePasses(vocoder._codec), False
    return vocoder
