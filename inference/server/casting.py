"""Who speaks a text, and how its terms are spoken: what the speech APIs ask for besides one voice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inference.server.state import State
from inference.text.dialogue import speaker
from inference.text.pronunciation import Pronunciations
from inference.voices.voice import Voice


@dataclass(frozen=True)
class Cast:
    """The `voice` that begins, the `voices` that marks in the text name, and the pronunciations of the request."""

    voice: Voice
    voices: Mapping[str, Voice] = field(default_factory=dict)
    pronunciations: Pronunciations = field(default_factory=Pronunciations)


async def cast(
    state: State, voice: Voice, text: str, dictionaries: Sequence[tuple[str, str | None]] = (), listed: Sequence[Voice] = ()
) -> Cast:
    """The cast of a text. `voice` begins. `listed` are the voices that `<|speaker:0|>`, `<|speaker:1|>` and so on mean.

    `dictionaries` are names with a version or None. Raises VoiceNotFound, DictionaryNotFound, RequestError, NotReady, Overloaded.
    """
    pronunciations = state.dictionaries.pronunciations(dictionaries)
    numbered = {speaker(number): one for number, one in enumerate(listed)}
    return Cast(voice, {**numbered, **await state.references.named(text, voice)}, pronunciations)
