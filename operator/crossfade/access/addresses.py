"""Which addresses the operator may reach, as its administrator bounds them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_PLAIN_PATH: Final = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*/?")


def is_below(address: str, bases: Sequence[str]) -> bool:
    """Tell whether an address is one of some, or a plain path below one.

    A base holds the whole authority, so nothing can be put before or into the host. Segments that
    start with a dot are refused, and so is everything that an HTTP client might read as one.
    """
    return any(
        address.startswith(base) and _PLAIN_PATH.fullmatch(address[len(base) :]) for base in bases
    )
