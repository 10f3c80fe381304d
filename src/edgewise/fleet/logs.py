"""Logs as one JSON object a line. What is logged is chosen field by field: no headers, no bodies, no tokens."""

from __future__ import annotations

import json
import logging
import time
import traceback
from typing import IO

RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """One object a line: time, level, event, and the fields given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in RESERVED}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = traceback.format_exception(record.exc_info[1])
        return json.dumps(line, default=str)


def log_to(stream: IO[str], level: int = logging.INFO) -> None:
    """Send all logs of this process to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("alembic", "httpx", "httpcore", "aiosqlite"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
