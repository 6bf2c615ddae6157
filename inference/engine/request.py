"""SpeechRequest, Audio and FinishReason: the engine's input and output. Every API ends in a SpeechRequest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Literal

import numpy as np

from inference import tracing
from inference.errors import RequestError, VoiceNotFound, shown
from inference.model.config import SAMPLE_RATE, SAMPLING_RANGES, GenerationDefaults
from inference.text.dialogue import MAX_VOICES, has_speakers, voice_at_end, voice_names
from inference.text.language import ENGLISH, language_at_end
from inference.text.pronunciation import Pronounced, Pronunciations
from inference.text.script import Line, script, speakable, spoken_words
from inference.text.split import split
from inference.text.words import SpokenLine, Word, spoken_lines
from inference.voices.voice import Voice

MAX_TEXT = 100_000
"""Characters in one request: about two hours of speech."""
MIN_CHUNK, MAX_CHUNK = 10, 2000
Compat = Literal["reference"]


class FinishReason(StrEnum):
    """Why speech ended."""

    STOP = "stop"
    """The model ended the speech."""
    LENGTH = "length"
    """A limit cut the speech off."""
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True)
class GuardReport:
    """What the guard against bad takes did for `segments` segments; docs/guard.md.

    `faults` are those of all takes, `retries` the segments' further takes, `rests` how often the text behind a fault was said again as a
    new segment. `unmended` segments were sent with a fault. `discarded_seconds` of speech were generated and not sent.
    """

    segments: int = 0
    retries: int = 0
    rests: int = 0
    unmended: int = 0
    discarded_seconds: float = 0.0
    faults: tuple[str, ...] = ()

    def __add__(self, other: GuardReport) -> GuardReport:
        return GuardReport(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Audio:
    """Mono sound: `samples` (n,) float32 in [-1, 1] at `sample_rate` Hz.

    `words` are those of a request with `words=True`, in order. Their times are seconds from the beginning of the whole audio. In a stream
    each word comes once, as soon as its time is known: a second or two behind its sound, where the model's attention tells the times, and
    at the latest with the last chunk of the segment it belongs to, or right behind it in a chunk without samples. `guard` is there
    in the last chunk of each segment of a request with `quality_guard`.
    """

    samples: np.ndarray
    sample_rate: int = SAMPLE_RATE
    words: tuple[Word, ...] = ()
    guard: GuardReport | None = None

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate

    @classmethod
    def joined(cls, chunks: Sequence[Audio]) -> Audio:
        """The chunks of a stream as one."""
        samples = np.concatenate([chunk.samples for chunk in chunks]) if chunks else np.zeros(0, np.float32)
        reports = [chunk.guard for chunk in chunks if chunk.guard]
        guard = sum(reports, GuardReport()) if reports else None
        return cls(samples, words=tuple(word for chunk in chunks for word in chunk.words), guard=guard)

    def moved(self, seconds: float) -> Audio:
        """The same sound, so much later in its stream."""
        return replace(self, words=tuple(word.moved(seconds) for word in self.words)) if self.words and seconds else self


@dataclass(frozen=True)
class SpeechRequest:
    """Text to speak, and how to speak it. Raises RequestError, naming the field, when a value is not allowed.

    Where `temperature`, `top_p`, `repetition_penalty` or `normalize` is None, the checkpoint's `GenerationDefaults` decide.
    `temperature` 0 takes the likeliest code each time. `top_p` keeps the likeliest tokens whose probabilities sum to
    at most this value. `repetition_penalty` makes codes of the last 16 frames less likely. `normalize` writes numbers, money, dates and
    abbreviations out as words of each sentence's language before they are spoken, which is `language` (two letters) until a sentence
    shows another. `chunk_length` is the most UTF-8
    bytes of text in one segment; a checkpoint may lower it (`GenerationDefaults`). `max_new_tokens` limits the frames of each such segment
    (21.5 a second); 0 allows as many as the model's context has room for, None at most 1024 and at most half of that context. `seed` fixes
    every random draw; None draws a fresh seed. With `words` the audio says when each word is heard (`Audio.words`).
    `voices` are those that marks in the text name, as in `[voice:anna]`; `voice` speaks what is before the first mark.
    With voices named `speaker:0`, `speaker:1` and so on, `<|speaker:1|>` is such a mark, too. `pronunciations` replace terms before all else.

    `quality_guard` judges each segment before it is sent, speaks faulty ones anew, and cuts a stream where it goes wrong (docs/guard.md);
    None leaves it to the engine. A stream holds back at most `guard_look_ahead` seconds of sound for this; None means a second.

    `compat="reference"` reproduces the reference implementation's columns, including its oddities: the first frame
    dropped, the end frame kept, control tokens in the text obeyed and undecodable codes sampled. It never normalises.

    `traceparent` (W3C Trace Context) names the span that the engine's spans belong to; empty for none (`inference.tracing`).
    """

    text: str
    voice: Voice = field(default_factory=Voice)
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    normalize: bool | None = None
    chunk_length: int = 200
    max_new_tokens: int | None = None
    compat: Compat | None = None
    language: str = ENGLISH
    words: bool = False
    voices: Mapping[str, Voice] = field(default_factory=dict)
    pronunciations: Pronunciations = field(default_factory=Pronunciations)
    quality_guard: bool | None = None
    guard_look_ahead: float | None = None
    traceparent: str = field(default_factory=tracing.traceparent)

    def __post_init__(self) -> None:
        check_text(self.text, "text")
        if not (split(self.text, MAX_CHUNK, compat=True) if self.compat else speakable(self.text)):
            raise RequestError("there is nothing to speak: the text is empty or only white space and punctuation", "text")
        if len(self.voices) > MAX_VOICES:
            raise RequestError(f"the text names {len(self.voices)} voices; at most {MAX_VOICES} speak in one request", "voice")
        for voice in (self.voice, *self.voices.values()):
            for reference in voice.references:
                check_text(reference.text, "reference text")
        for name in voice_names(self.text, has_speakers(self.voices)) if self.compat is None else ():
            if name not in self.voices:
                raise VoiceNotFound(f"the text names the voice {name[:80]!r}, which this request does not have", "voice")
        for name, (low, high) in SAMPLING_RANGES.items():
            if (value := getattr(self, name)) is not None:
                _between(name, value, low, high)
        if self.guard_look_ahead is not None and not self.guard_look_ahead >= 0:
            raise RequestError(f"guard_look_ahead is {shown(self.guard_look_ahead)}; it must be 0 seconds or more", "guard_look_ahead")
        _between("chunk_length", self.chunk_length, MIN_CHUNK, MAX_CHUNK)
        if self.max_new_tokens is not None:
            _between("max_new_tokens", self.max_new_tokens, 0, 2**31)
        if self.seed is not None:
            _between("seed", self.seed, 0, 2**63 - 1)
        if self.compat not in (None, "reference"):
            raise RequestError(f"compat is {self.compat!r}; only 'reference' is known", "compat")

    def resolved(self, defaults: GenerationDefaults) -> SpeechRequest:
        """This request with the checkpoint's defaults filled in."""
        names = ("temperature", "top_p", "repetition_penalty", "normalize")
        return replace(self, **{name: getattr(defaults, name) for name in names if getattr(self, name) is None})

    def script(self, defaults: GenerationDefaults) -> tuple[list[Line], float]:
        """The lines of a resolved request, each spoken in one go after its silence, and the seconds of silence after the last."""
        if self.compat == "reference":
            return [Line(piece, 0.0) for piece in split(self.text, self.chunk_length, compat=True)], 0.0
        return script(
            self.text, self.chunk_length,
            normalize=bool(self.normalize), spell_capitals=defaults.spell_capitals, segmentation=defaults.segmentation,
            language=self.language, speakers=has_speakers(self.voices), pronounce=self._pronounced,
        )  # fmt: skip

    def spoken_words(self, lines: list[Line], defaults: GenerationDefaults) -> list[SpokenLine]:
        """The words of each line of a resolved request's `script`."""
        if self.compat == "reference":
            return spoken_lines(self.text, [line.text for line in lines], str)
        return spoken_words(
            self.text, lines, normalize=bool(self.normalize), spell_capitals=defaults.spell_capitals, language=self.language,
            pronounce=self._pronounced,
        )  # fmt: skip

    def _pronounced(self, part: str, language: str, name: str | None) -> Pronounced:
        return self.pronunciations.applied(part, language, self.voice_named(name).name)

    def voice_named(self, name: str | None) -> Voice:
        """The voice of a line that a mark names, or that none names."""
        return self.voice if name is None else self.voices[name]

    def continued(self, more: MoreText) -> SpeechRequest:
        """The request for text that follows this one's: it continues in the same voice and language."""
        known = {**more.voices, **self.voices}  # a name means the same voice to the end
        voice = self.voice_named(voice_at_end(self.text, has_speakers(self.voices)))
        return replace(self, text=more.text, voice=voice, voices=known, language=self.language_at_end)

    @property
    def language_at_end(self) -> str:
        """The language of text that follows this request's and shows none."""
        return language_at_end(self.text, self.language) if self.normalize else self.language

    @property
    def sampling(self) -> tuple[float, float, float]:
        """Temperature, top_p and repetition penalty of a resolved request."""
        assert self.temperature is not None
        assert self.top_p is not None
        assert self.repetition_penalty is not None
        return self.temperature, self.top_p, self.repetition_penalty


@dataclass(frozen=True)
class MoreText:
    """Text that follows that of a live request, and the voices that its marks name."""

    text: str
    voices: Mapping[str, Voice] = field(default_factory=dict)


def check_text(text: str, param: str) -> None:
    """Raise RequestError for text that is too long or is not Unicode."""
    if len(text) > MAX_TEXT:
        raise RequestError(f"{param} has {len(text):,} characters; at most {MAX_TEXT:,} are spoken in one request", param)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise RequestError(
            f"{param} holds a lone surrogate, U+{ord(text[e.start]):04X} at character {e.start + 1}; it is not valid Unicode", param
        ) from None


def _between(param: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN is not between them, either
        raise RequestError(f"{param} is {shown(value)}; it must be between {low} and {high}", param)
