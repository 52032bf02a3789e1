"""Time as commands meet it."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """The machine's."""

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
