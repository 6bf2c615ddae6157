"""The server's state, and the dependency that gives it to routes: `state: AppState`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from inference.server.audio_responses import EngineClient
from inference.server.references import References
from inference.voices.dictionaries import DictionaryStore
from inference.voices.store import VoiceStore


@dataclass(frozen=True)
class State:
    """The server's state, at `app.state.server`. It lives as long as the app."""

    engine: EngineClient
    voices: VoiceStore
    references: References
    dictionaries: DictionaryStore


async def state_of(connection: HTTPConnection) -> State:
    """The state of the app that answers."""
    state: State = connection.app.state.server
    return state


AppState = Annotated[State, Depends(state_of)]
