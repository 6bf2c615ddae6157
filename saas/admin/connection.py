"""How a command reaches the database: the one that is configured, or that of the running `--embedded`; what fails is one sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from inference.errors import FishserveError, RequestError
from saas.app import connect
from saas.database import Database, DatabaseError, Refused, Unavailable
from saas.embedded.running import reached
from saas.settings import Settings

Answer = TypeVar("Answer")


async def ask(settings: Settings, work: Callable[[Database, Settings], Awaitable[Answer]]) -> Answer:
    """What `work` answers with the database and the settings that reach it. Raises RequestError, FishserveError."""
    settings = reached(settings)
    database = connect(settings)
    try:
        return await work(database, settings)
    except Unavailable:
        raise FishserveError(
            "the database cannot be reached; is it running? If its answer was lost, an act is done: `fishserve saas admin actions` says"
        ) from None
    except Refused as e:
        raise RequestError(e.message) from None
    except DatabaseError:
        raise FishserveError("the database lacks the function for this; apply the newer files of sql/migrations") from None
    finally:
        await database.close()
