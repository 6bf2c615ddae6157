"""What the doors send to an engine replica besides the messages of `inference.server.messages`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from inference.engine.request import SpeechRequest
from inference.server.messages import LiveRequest, Message


class Route(NamedTuple):
    """Where a call should go; the first argument of every call, since it is what the request router sees.

    `voice` names the voice, "" for none. `replica` is the replica that must take the call, "" for any. `avoid` are replicas that refused it.
    """

    voice: str = ""
    replica: str = ""
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pause:
    """The client of a request is behind with reading."""

    uid: str


@dataclass(frozen=True)
class Resume:
    """The client of a paused request has read on."""

    uid: str


@dataclass(frozen=True)
class Wanted:
    """The doors that asked for these requests are alive, and still want them."""

    uids: tuple[str, ...]


WANTED_SECONDS = 5.0
"""How often the doors say so."""
UNWANTED_SECONDS = 30.0
"""How long a replica generates for doors that it does not hear of."""


def voice_of(message: Message) -> str:
    """The key of a message's voice: equal for requests whose prompts begin in the same way, "" without a voice."""
    request = message.request if isinstance(message, LiveRequest) else message
    if not isinstance(request, SpeechRequest) or not request.voice.references:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for reference in request.voice.references:
        digest.update(reference.codes.tobytes())
        digest.update(reference.text.encode())
    return digest.hexdigest()
