"""How a command ends: the exit codes that scripts rely on, and the errors that stand for them."""

from __future__ import annotations

from typing import Final

from crossfade.errors import CommandError

OK: Final = 0
FAILED: Final = 1
"""Refused, or it could not be done; the reason is on the standard error."""
USAGE: Final = 2
"""Asked wrongly: as argparse ends."""
TIMEOUT: Final = 3
"""What was waited for did not happen in time; it may happen yet."""


class FailedError(CommandError):
    """What was asked for is refused, or cannot be done; ends with ``FAILED``."""


class TooLateError(CommandError):
    """It did not happen in time; ends with ``TIMEOUT``."""
