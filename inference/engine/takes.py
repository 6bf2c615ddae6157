"""The takes of a request's segments: holds sound back until it is judged, and decides whether to send it, to speak anew, or where to cut.

The next take of a segment is drawn with the next seed. The engine's thread alone uses this; queues and slots are the scheduler's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from inference.engine import metrics
from inference.engine.guard import Fault, Finding, Loops, Need, Paces, Sound, of_codes, of_length, score
from inference.engine.request import GuardReport
from inference.engine.times import is_unspaced, letter_weights
from inference.model.config import FRAMES_PER_SECOND, SAMPLE_RATE, SAMPLES_PER_FRAME
from inference.voices.voice import Reference

MAX_TAKES = 3
"""Takes of one segment before the best of them is sent."""
MAX_RESTS = 3
"""How often the text behind a fault is said again as a new segment, in one segment of the request."""
LOOK_AHEAD_SECONDS = 1.0
"""How much of a segment's sound is held back, at most, when the request does not say."""
RUN_OUT_SECONDS = 0.5
"""Sound beyond the look-ahead is held back, too, while the listener has more than this to hear."""
_FADE_SAMPLES = 256
"""Sound that is cut off fades out over these."""
_OF_WORDS = (Fault.SKIPPED, Fault.REPEATED)


@dataclass(eq=False)
class Take:
    """One take. `columns` are its frames, each (1 + codebooks,), of which the first `spoken` are sound; `held` is its sound that was not sent.

    `bounds` (characters + 1,) are the frames at which each character of the text begins and the last one ends, where attention says it.
    They follow from `attention`: the text's tokens, and what `text_attention` gives for them. `ends` says that no limit cut it off.
    """

    need: Need
    columns: list[np.ndarray] = field(default_factory=list)
    spoken: int = 0
    held: list[np.ndarray] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)
    bounds: np.ndarray | None = None
    attention: tuple[Sequence[bytes], np.ndarray] | None = None
    ends: bool = True


class Guard:
    """The takes of one request, segment by segment: `begin`, then frames and sound as they come, `end`, and at last `is_rejected`.

    `attempt` counts the takes of the current segment before this one. `text` is the segment's.
    """

    def __init__(self, paces: Paces, look_ahead: float | None) -> None:
        self._paces, self._voice = paces, b""
        self._look_ahead = LOOK_AHEAD_SECONDS if look_ahead is None else look_ahead
        self._take = Take(Need(0, 0, 0))
        self._best: Take | None = None
        self._loops, self._sound = Loops(), Sound()
        self._frames = self._sent = self._rests = self.attempt = 0
        self.text = ""
        self._report = GuardReport()

    def begin(self, text: str, voice: Tensor, references: Sequence[Reference]) -> None:
        """Begin a take of a segment's text. The columns of its voice tell it from others; its references tell its pace."""
        self._voice = hashlib.sha256(voice.numpy().tobytes()).digest()
        for reference in references:
            self._paces.introduce(self._voice, reference.text, reference.codes.shape[-1])
        self._take, self.text = Take(self._paces.need(self._voice, text)), text
        self._loops, self._sound = Loops(), Sound()
        self._frames = self._sent = 0

    @property
    def has_sound(self) -> bool:
        """Whether sound of the segment has been made and held back."""
        return bool(self._take.held) or self.attempt > 0

    @property
    def stopped(self) -> bool:
        """Whether the take is known to be faulty: no more of it need be generated."""
        return bool(self._take.found)

    def add_frames(self, codes: Sequence[np.ndarray]) -> None:
        """Take the next frames, each (codebooks,)."""
        take = self._take
        for frame in codes:
            if not take.found and (loop := self._loops.add(int(frame[0]))):
                take.found.append(loop)
        self._frames += len(codes)
        if not take.found and self._frames > take.need.most:
            take.found += of_length(self._frames, take.need)

    def hold(self, samples: np.ndarray) -> None:
        """Take the next samples (n,)."""
        silence = self._sound.add(samples)
        if silence and not self._take.found:
            self._take.found.append(silence)
        self._take.held.append(samples)

    def due(self, listener_seconds: float) -> np.ndarray:
        """The samples (n,) that can be held back no longer, for a listener who has so many seconds still to hear.

        The last frame of what there is always stays, so that a segment that was judged has something to send.
        """
        spare = sum(map(len, self._take.held)) - SAMPLES_PER_FRAME - self._look_ahead * SAMPLE_RATE
        if self._take.found or listener_seconds > RUN_OUT_SECONDS or spare < SAMPLES_PER_FRAME:
            return np.zeros(0, np.float32)
        size = int(spare) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
        held = np.concatenate(self._take.held)
        self._take.held = [held[size:]]
        self._sent += size
        return held[:size]

    def end(self, columns: list[np.ndarray], spoken: int, ends: bool) -> int:
        """All frames are there. Returns how many of them are to become sound."""
        take = self._take
        take.columns, take.spoken, take.ends = columns, spoken, ends
        if not take.found:
            take.found += of_length(spoken, take.need, ends)
        if not take.found and spoken:
            take.found += of_codes(self.text, np.stack(columns[:spoken], axis=1)[1:])
        good = self._good_frames(take) if self.stopped else None
        return spoken if good is None else good

    def read(self, pieces: Sequence[bytes], attention: np.ndarray, bounds: np.ndarray, found: list[Finding]) -> None:
        """Take the attention of the whole take, and what it says: where each character begins, and which words were skipped or repeated."""
        self._take.attention, self._take.bounds = (pieces, attention), bounds
        if not self._take.found:
            self._take.found += found

    def is_rejected(self, audio: bool) -> bool:
        """Judge the take, whose sound is all there if `audio` is wanted: whether its segment is to be spoken once more."""
        take, best = self._take, self._best
        if audio and not take.found:
            take.found += self._sound.ended()
        for finding in take.found:
            metrics.GUARD_FAULTS.labels(finding.fault).inc()
        self._report += GuardReport(faults=tuple(str(f.fault) for f in take.found))
        if self._sent:  # there is no other to send any more
            self._best = None
            self._discard(best.spoken if best else 0)
            return False
        if best is not None:
            self._best, worse = sorted((best, take), key=lambda t: score(t.found))
            self._discard(worse.spoken)
        elif take.found:
            self._best = take
        if not take.found or self.attempt == MAX_TAKES - 1:
            return False
        self.attempt += 1
        metrics.GUARD_RETRIES.inc()
        self._report += GuardReport(retries=1)
        return True

    def choose(self) -> tuple[Take, int]:
        """The take to send, and the character of the text with which that begins which is to be said anew after it."""
        take, begin, mended = self._best or self._take, len(self.text), False
        if not take.found:
            self._paces.learn(self._voice, self.text, take.spoken)
        else:
            good = self._good_frames(take)
            place = self._place(take, good) if good else 0
            if good and (place or self._sent):
                rest = any(map(str.isalnum, self.text[place:]))
                mended = self._rests < MAX_RESTS or not rest
                if rest and mended:
                    begin = place + len(self.text[place:]) - len(self.text[place:].lstrip())
                self._cut(take, good, mended)
            if not mended:
                metrics.GUARD_UNMENDED.inc()
        rests = int(begin < len(self.text))
        self._report += GuardReport(segments=1, rests=rests, unmended=int(bool(take.found) and not mended))
        self._rests = self._rests + 1 if rests else 0
        self._best, self.attempt = None, 0
        return take, begin

    def take_report(self) -> GuardReport:
        """What happened since this was last asked."""
        report, self._report = self._report, GuardReport()
        return report

    def _good_frames(self, take: Take) -> int | None:
        """How many frames of a faulty take are to be heard, at least one more than were sent; None where there is no place to cut."""
        sent = self._sent // SAMPLES_PER_FRAME + bool(self._sent)
        known = [f for f in take.found if f.good_frames is not None and (f.fault not in _OF_WORDS or sent <= f.good_frames)]
        return max(sent, min(f.good_frames or 0 for f in known)) if known else None

    def _place(self, take: Take, frames: int) -> int:
        """The character of the text with which the word begins that is being spoken after so many frames."""
        if take.bounds is not None:
            reached = int(np.searchsorted(take.bounds[:-1], frames))
        else:
            weights = letter_weights(self.text)
            reached = int(np.searchsorted(weights.cumsum(), frames / max(take.need.usual, 1.0) * weights.sum(), side="right"))
        if reached >= len(self.text) or self.text[reached].isspace():
            return reached
        return reached if is_unspaced(self.text[reached]) else self.text.rfind(" ", 0, reached) + 1

    def _cut(self, take: Take, frames: int, ends: bool) -> None:
        """Leave only the first frames of a take, and of its sound; what is cut off fades out."""
        samples = frames * SAMPLES_PER_FRAME - self._sent
        held = np.concatenate((np.zeros(0, np.float32), *take.held))
        if len(held) > samples:
            held = held[:samples].copy()
            fading = min(samples, _FADE_SAMPLES)
            held[samples - fading :] *= np.linspace(1, 0, fading, dtype=np.float32)
        self._discard(take.spoken - frames)
        take.held, take.columns, take.spoken, take.ends = [held], take.columns[:frames], frames, ends

    def _discard(self, frames: int) -> None:
        metrics.GUARD_FRAMES.inc(max(frames, 0))
        self._report += GuardReport(discarded_seconds=max(frames, 0) / FRAMES_PER_SECOND)
