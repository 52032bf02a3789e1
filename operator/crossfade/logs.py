"""The operator's log: one line a fact, as text with ``key=value`` pairs or as JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

from typing_extensions import override

from crossfade.names import NamespacedName

Format = Literal["text", "json"]

PLAIN: Final = re.compile(r"[\w./:@%+-]+")
"""Values that need no quotes in ``key=value``."""


def about(key: NamespacedName, **fields: object) -> Mapping[str, Any]:
    """Return the ``extra`` of a line about one ModelDeployment."""
    return {"fields": {"namespace": key.namespace, "name": key.name, **fields}}


def set_up(level: str, format_: Format) -> None:
    """Log to standard error from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if format_ == "json" else Text())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    for chatty in ("kopf", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Text(logging.Formatter):
    """``time level logger what key=value ...``; only a traceback takes more lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record).replace("\n", "\\n")
        return " ".join((line, *(f"{k}={_quoted(v)}" for k, v in _fields(record).items())))


class Json(logging.Formatter):
    """One object a line: time, level, logger, event, the fields, and the traceback if any."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _quoted(value: object) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
