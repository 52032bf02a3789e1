"""The phases of a ModelDeployment and the legal moves between them, as one table.

Initializing ──▶ Healthy ◀───────────────────────────────┐
                   │ ▲ ▲                                 │ drained, probation over
                   ▼ │ └── RolledBack ◀──┐               │
                Preparing ──▶ RollingBack ┘          Probation
                   │ ▲          ▲  ▲  ▲                ▲   │
                   ▼ │          │  │  └──── harm ──────│───┘
                Progressing ────┘  │                   │
                   │ ▲             │                   │
                   ▼ │             │                   │
                 Paused     Promoting ─────────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from crossfade.api.v1alpha1 import Phase

MOVES: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.INITIALIZING: frozenset({Phase.HEALTHY}),
    Phase.HEALTHY: frozenset({Phase.PREPARING, Phase.ROLLED_BACK}),
    Phase.PREPARING: frozenset({Phase.PROGRESSING, Phase.PAUSED, Phase.ROLLING_BACK}),
    Phase.PROGRESSING: frozenset(
        {Phase.PREPARING, Phase.PAUSED, Phase.PROMOTING, Phase.ROLLING_BACK}
    ),
    Phase.PAUSED: frozenset(
        {Phase.PREPARING, Phase.PROGRESSING, Phase.PROMOTING, Phase.ROLLING_BACK}
    ),
    Phase.PROMOTING: frozenset({Phase.PREPARING, Phase.PROBATION, Phase.ROLLING_BACK}),
    Phase.PROBATION: frozenset({Phase.HEALTHY, Phase.ROLLING_BACK}),
    Phase.ROLLING_BACK: frozenset({Phase.HEALTHY, Phase.ROLLED_BACK}),
    Phase.ROLLED_BACK: frozenset({Phase.HEALTHY, Phase.PREPARING}),
}
"""From each phase, the phases that one decision may move to (staying is always legal)."""

WEIGHTED: Final = frozenset({Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTING})
"""The phases in which a canary has, or is about to have, weight."""

WITH_CANARY: Final = WEIGHTED | {Phase.PREPARING}
"""The phases in which a canary may be rolled back."""

SETTLED: Final = frozenset({Phase.INITIALIZING, Phase.HEALTHY, Phase.ROLLED_BACK})
"""The phases in which at most one version exists, and no metrics are needed."""

JUDGED: Final = WEIGHTED | {Phase.PROBATION}
"""The phases in which metrics are looked at."""


def is_legal(before: Phase, after: Phase) -> bool:
    """Tell whether one decision may move between two phases."""
    return before == after or after in MOVES[before]
