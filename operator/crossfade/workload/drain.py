"""How long the containers of a pod that ends go on."""

from __future__ import annotations

from typing import Any, Final

PAUSE_SECONDS: Final = 5
"""How long a container goes on after its pod is told to end, so that gateways stop sending first.

The sleep action is on by default since Kubernetes 1.30 and stable since 1.34 (KEP-3960); it needs
no shell in the image.
"""

DEFAULT_GRACE_SECONDS: Final = 30
"""Kubernetes' terminationGracePeriodSeconds where the template has none."""


def grace_seconds(pod: dict[str, Any]) -> int:
    """Return how long a pod has from when it is told to end until it is killed.

    Args:
        pod: the spec of a pod.
    """
    grace: int | None = pod.get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_SECONDS if grace is None else grace


def pause_seconds(pod: dict[str, Any]) -> int:
    """Return how long its containers go on before they are told, too.

    At most half of the grace period, which is the template's own, so that the processes have time
    to finish.
    """
    return min(PAUSE_SECONDS, grace_seconds(pod) // 2)
