"""Which kind of a histogram Prometheus has, found out by asking for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from crossfade.errors import MetricSourceError
from crossfade.evidence.counters import Side
from crossfade.metrics.arms import Owner


class Kind(StrEnum):
    """How a histogram is stored."""

    NATIVE = "native"
    """One series, by the base name."""
    CLASSIC = "classic"
    """A series for each bucket, by the base name and ``_bucket``."""


class KindFinder:
    """Remembers the kind once both versions were seen to have it, so that only it is asked for.

    A Prometheus may store both. Then the classic one is taken: its borders are those that somebody
    chose. The native one is to be asked for first: of a pod that is scraped in between, classic
    series are seen that the first answer lacks, and never the other way round.
    """

    def __init__(self) -> None:
        self._settled: Kind | None = None

    @property
    def asked(self) -> tuple[Kind, ...]:
        """What is to be asked for, in this order."""
        return tuple(Kind) if self._settled is None else (self._settled,)

    def find(self, owners: Mapping[Kind, set[Owner]], sides: Iterable[Side]) -> Kind | None:
        """Return the kind that all who have any have; None: nobody has any yet.

        Args:
            owners: who has series of each kind, of those that were asked for.
            sides: the versions that are compared.

        Raises:
            MetricSourceError: some have only the one kind, and some only the other.
        """
        if self._settled is not None:
            return self._settled
        classic, native = owners.get(Kind.CLASSIC, set()), owners.get(Kind.NATIVE, set())
        if not classic and not native:
            return None
        if not classic <= native and not native <= classic:
            raise MetricSourceError(
                f"pod {_one_of(classic - native)} has a classic histogram and pod "
                f"{_one_of(native - classic)} a native one, which cannot be compared; let "
                "Prometheus store one kind of both, for example with "
                "always_scrape_classic_histograms"
            )
        kind = Kind.CLASSIC if classic >= native else Kind.NATIVE
        if {side for side, _ in owners[kind]} >= set(sides):
            self._settled = kind
        return kind


def _one_of(owners: set[Owner]) -> str:
    return min(pod for _, pod in owners)
