"""``python -m crossfade.sidecar``."""

from __future__ import annotations

import os
import signal
from types import FrameType


def end(_signum: int, _frame: FrameType | None) -> None:
    """End at once, as long as nothing was begun: the loop has handlers of its own later."""
    os._exit(0)


# First of all: the kernel keeps signals without a handler from a container's first process.
for signum in (signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, end)

from crossfade.sidecar.main import main  # noqa: E402 - see above

main()
