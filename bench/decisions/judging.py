"""What scenes, their runs and rules are to each other, whatever is drawn and judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CHUNK: Final = 50
"""Runs that are drawn together. A run's traffic depends on its scene and its number only."""


class Drawn(Protocol):
    """Some runs of some scene."""

    @property
    def runs(self) -> int:
        """How many there are."""

    def bad_until(self, at_s: Floats) -> Ints:
        """Return, for each run, the canary's bad answers from the onset to a time of its own."""

    def first_bad_s(self) -> Floats:
        """Return, for each run, when the first bad answer from the onset on came, or infinity."""


D_co = TypeVar("D_co", bound=Drawn, covariant=True)
D_contra = TypeVar("D_contra", bound=Drawn, contravariant=True)


class Drawable(Protocol[D_co]):
    """A scene of any kind."""

    @property
    def name(self) -> str:
        """Unique among scenes; the seed depends on it."""

    @property
    def onset_s(self) -> float:
        """From when the canary is worse."""

    def simulate(self, chunk: int) -> D_co:
        """Draw ``CHUNK`` runs, the same ones each time."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a rule did in each run."""

    harm_s: Floats
    """When it called harm; infinite: never."""
    held_s: Floats
    """For how long it had no answer. 0 for rules that know no such thing."""


class Rule(Protocol[D_contra]):
    """Something that calls harm, or does not."""

    @property
    def name(self) -> str:
        """For the tables; unique among the rules of a scene."""

    @property
    def slow(self) -> bool:
        """It costs much more than the traffic, so it gets fewer runs."""

    def decide(self, batch: D_contra, runs: int) -> Decisions:
        """Judge the first runs of a batch."""
