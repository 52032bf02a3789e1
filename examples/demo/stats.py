"""What became of every request of a load: compact records, and the questions asked of them.

Standard library only, as load.py. Knows neither sockets nor clocks.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple


class Fate(IntEnum):
    """What became of a request. All but `ANSWERED` are losses."""

    ANSWERED = 0
    """A model answered, with whatever status: 500 is an answer, and `Stats.failed` counts it."""
    CONNECT = 1
    """No connection within the time-out, or refused."""
    RESET = 2
    """The connection ended before the answer was whole."""
    TIMEOUT = 3
    """No whole answer within the time-out."""
    UNSENT = 4
    """All connections stayed busy until the time-out: the server is slower than the load."""
    MALFORMED = 5
    """Not HTTP, or not what `read` understands."""
    NOT_FOUND = 6
    """404: the gateway has no route."""
    BAD_GATEWAY = 7
    """502: the gateway could not reach a pod."""
    UNAVAILABLE = 8
    """503: the gateway has no pod, or the pod's model is not loaded."""
    GATEWAY_TIMEOUT = 9
    """504: the gateway waited in vain."""


LOST_BY_STATUS: Final = {
    404: Fate.NOT_FOUND,
    502: Fate.BAD_GATEWAY,
    503: Fate.UNAVAILABLE,
    504: Fate.GATEWAY_TIMEOUT,
}


class Judgement(IntEnum):
    """Whether an answer was right, as far as the caller can tell."""

    UNKNOWN = 0
    RIGHT = 1
    WRONG = 2


class Reading(NamedTuple):
    """What the caller reads from an answer."""

    version: str
    """The model version that answered; "" if the answer does not say."""
    judgement: Judgement = Judgement.UNKNOWN


NO_READING: Final = Reading("")


class Record(NamedTuple):
    """One request. Times are seconds since the epoch."""

    due_at: float
    seconds: float
    """From when it was due to its fate."""
    fate: Fate
    status: int
    """The HTTP status; 0 if there was none."""
    version: str
    judgement: Judgement

    @property
    def ended_at(self) -> float:
        """When its fate was known."""
        return self.due_at + self.seconds

    @property
    def is_bad(self) -> bool:
        """Whether a version answered, and the user had rather it had not: an error, or wrong."""
        failed = self.fate is Fate.ANSWERED and self.status >= 400  # noqa: PLR2004 - HTTP errors
        return failed or self.judgement is Judgement.WRONG


@dataclass(slots=True)
class Stats:
    """Every request of a run: 20 bytes each, in the order in which their fates were known."""

    scheduled: int = 0
    """Requests that became due: at the end, exactly `len(stats)`."""
    versions: list[str] = field(default_factory=lambda: [""])
    """The versions that answered, in the order of appearance; the first entry is "unknown"."""
    _due_at: array[float] = field(default_factory=lambda: array("d"))
    _seconds: array[float] = field(default_factory=lambda: array("f"))
    _fate: array[int] = field(default_factory=lambda: array("B"))
    _status: array[int] = field(default_factory=lambda: array("H"))
    _version: array[int] = field(default_factory=lambda: array("H"))
    _judgement: array[int] = field(default_factory=lambda: array("B"))

    def add(self, record: Record) -> None:
        """Account for one request."""
        if record.version not in self.versions:
            self.versions.append(record.version)
        self._due_at.append(record.due_at)
        self._seconds.append(record.seconds)
        self._fate.append(record.fate)
        self._status.append(record.status)
        self._version.append(self._index_of(record.version))
        self._judgement.append(record.judgement)

    def _index_of(self, version: str) -> int:
        return self.versions.index(version) if version in self.versions else -1

    def __len__(self) -> int:
        return len(self._fate)

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, range(len(self)))

    def tail(self, start: int) -> Iterator[Record]:
        """Iterate over the records from index `start`: what came since the last look."""
        return map(self._record, range(start, len(self)))

    def _record(self, index: int) -> Record:
        return Record(
            due_at=self._due_at[index],
            seconds=self._seconds[index],
            fate=Fate(self._fate[index]),
            status=self._status[index],
            version=self.versions[self._version[index]],
            judgement=Judgement(self._judgement[index]),
        )

    def between(self, begin: float, end: float) -> Iterator[Record]:
        """Iterate over the requests whose fate was known in [`begin`, `end`), epoch seconds."""
        return (record for record in self if begin <= record.ended_at < end)

    def answers_by_version(self, begin: float = 0.0, end: float = float("inf")) -> Counter[str]:
        """Count the answers of each version, whatever their status, in [`begin`, `end`)."""
        answered = (it for it in self.between(begin, end) if it.fate is Fate.ANSWERED)
        return Counter(it.version for it in answered)

    def bad_by_version(self, begin: float = 0.0, end: float = float("inf")) -> Counter[str]:
        """Count the wrong or failed answers of each version in [`begin`, `end`)."""
        return Counter(it.version for it in self.between(begin, end) if it.is_bad)

    def statuses(self) -> Counter[int]:
        """Count the requests by HTTP status; 0 is none."""
        return Counter(self._status)

    def failed(self) -> int:
        """Count the answers that are errors of a model: those that are no losses, from 400 on."""
        pairs = zip(self._fate, self._status, strict=True)
        return sum(fate == Fate.ANSWERED and status >= 400 for fate, status in pairs)  # noqa: PLR2004

    def lost(self) -> Counter[Fate]:
        """Count the losses by kind; kinds without a loss are left out."""
        return Counter(Fate(it) for it in self._fate if it != Fate.ANSWERED)

    def first_bad_at(self, version: str) -> float | None:
        """Return when a version's first wrong or failed answer arrived; None if none did."""
        times = (it.ended_at for it in self if it.is_bad and it.version == version)
        return min(times, default=None)

    def last_answer_at(self, version: str) -> float | None:
        """Return when a version's last answer arrived; None if none did."""
        times = (it.ended_at for it in self if it.fate is Fate.ANSWERED and it.version == version)
        return max(times, default=None)

    def latency_seconds(
        self, quantiles: Sequence[float], version: str | None = None
    ) -> list[float]:
        """Return quantiles of the latency of answers, nearest rank; NaN where there are none.

        Args:
            quantiles: Each from 0 to 1.
            version: Count this version's answers only.
        """
        # By columns: this is asked while a load runs, and must not hold it up.
        columns = zip(self._seconds, self._fate, self._version, strict=True)
        answered = Fate.ANSWERED.value
        wanted = None if version is None else self._index_of(version)
        seconds = sorted(
            it
            for it, fate, index in columns
            if fate == answered and (wanted is None or index == wanted)
        )
        last = len(seconds) - 1
        return [seconds[round(it * last)] if seconds else float("nan") for it in quantiles]
