"""Arithmetic of shares: raw weights, percent, pods. Knows no kind of route."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from crossfade.names import REVISION_ALPHABET, REVISION_HASH_LENGTH

_REVISION: Final = re.compile(f"[{REVISION_ALPHABET}]{{{REVISION_HASH_LENGTH}}}")


def revision_of(service: object, name: str) -> str | None:
    """Return the revision of a Service ``<name>-<revision>``; None for any other Service."""
    if not isinstance(service, str) or not service.startswith(f"{name}-"):
        return None
    rest = service[len(name) + 1 :]
    return rest if _REVISION.fullmatch(rest) else None


def whole_number(value: object) -> int | None:
    """Return a weight that can be counted with; None when it is malformed."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return value


def percents(weights: Mapping[str, int]) -> dict[str, int]:
    """Turn raw weights into whole percent that sum to 100; {} when nothing has weight.

    What rounding leaves over goes to the largest remainders, in order.
    """
    total = sum(weights.values())
    if total == 0:
        return {}
    shares = {key: weight * 100 // total for key, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda key: -(weights[key] * 100 % total))
    for key in by_remainder[: 100 - sum(shares.values())]:
        shares[key] += 1
    return shares


def are_whole_percents(weights: Mapping[str, int]) -> bool:
    """Tell whether :func:`percents` had nothing to round."""
    total = sum(weights.values())
    return total > 0 and all(weight * 100 % total == 0 for weight in weights.values())


def replicas_for_weight(weight: int, full: int) -> int:
    """Return the pods that carry ``weight`` percent of what ``full`` pods carry; at least 1."""
    return max(1, -(-full * weight // 100))
