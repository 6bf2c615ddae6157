"""An engine whose rounds a test drives, and requests for it."""

from dataclasses import replace

import numpy as np
import torch

from inference import Audio, Reference, SpeechEngine, SpeechRequest, Voice
from inference.model.dual_ar import DualAR


class ByHand(SpeechEngine):
    """An engine whose thread does nothing: `turn` is one round."""

    def _loop(self):
        pass

    def submit(self, request, *arguments, **named):
        """A request without a seed gets 1: its noise ends at the same frame in each run."""
        seed = 1 if request.seed is None else request.seed
        return super().submit(replace(request, seed=seed), *arguments, **named)

    @torch.inference_mode()
    def turn(self):
        self._iterate()

    @property
    def idle(self):
        return not (self._scheduler.running or self._scheduler.voicing or self._scheduler.waiting)

    def generate(self, request):
        ticket = self.submit(request, lambda _: None)
        self.finish()
        return ticket.codes

    def finish(self):
        for _ in range(3000):
            if self.idle:
                return
            self.turn()
        raise AssertionError("some request never ends")


def voice(frames, seed=0):
    return Voice((Reference(np.random.default_rng(seed).integers(0, 1000, (8, frames)), "spoken"),))


def endless(golden, monkeypatch):
    """A model that never comes to an end, so that only a cancel can stop it."""
    head = golden.lm.output_weight.clone()
    head[golden.tokenizer.im_end] = 0
    monkeypatch.setattr(DualAR, "output_weight", head)
    return SpeechRequest("Hello.", seed=1, temperature=0, max_new_tokens=1800)


def ends(items):
    return [i for i in items if not isinstance(i, Audio)]


def live(engine, *texts, items=None, **fields):
    """A request that was given its texts one after the other, all before it is spoken."""
    deliver = (lambda _: None) if items is None else items.append
    ticket = engine.submit(SpeechRequest(texts[0], **({"seed": 1, "max_new_tokens": 20} | fields)), deliver, live=True)
    for text in texts[1:]:
        engine.extend(ticket, text)
    return ticket
