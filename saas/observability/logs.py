"""What the program itself has to say, as one line of JSON each, beside the lines of requests (inference.server.log)."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any


class Line(logging.Formatter):
    """A record as JSON. Of an exception its type and where in the code it was: its own words may hold what a user said."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, Any] = {"time": moment, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            at = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(record.exc_info[2])][-8:]
            entry["error"] = {"type": record.exc_info[0].__name__, "at": at}
        return json.dumps(entry)


def start() -> None:
    """Everything of importance, to standard error. Not what libraries say of their daily work: addresses are in it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
