"""The program's own warnings and errors, a line each, beside the lines of requests (inference.http.log). JSON, except on a terminal."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any


class Line(logging.Formatter):
    """A record as JSON, or as a line for people. It keeps only an exception's type and place: the message may hold a user's text."""

    def __init__(self, for_people: bool) -> None:
        super().__init__()
        self.for_people = for_people

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, Any] = {"time": moment, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            at = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(record.exc_info[2])][-8:]
            entry["error"] = {"type": record.exc_info[0].__name__, "at": at}
        return _readable(entry, record.created) if self.for_people else json.dumps(entry)


def _readable(entry: dict[str, Any], created: float) -> str:
    """`20:12:01 warning saas.jobs.service: the message (TimeoutError at service.py:12)`."""
    error = f" ({' at '.join([entry['error']['type'], *entry['error']['at'][-1:]])})" if "error" in entry else ""
    return f"{datetime.fromtimestamp(created):%H:%M:%S} {entry['level']} {entry['logger']}: {entry['message']}{error}"


def start() -> None:
    """Log warnings and errors to standard error. The libraries' routine messages are left out: they contain addresses."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line(for_people=sys.stderr.isatty()))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
