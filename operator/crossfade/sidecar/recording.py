"""Request and answer pairs, kept for later versions to be checked against.

They are kept in memory, the newest so many, and on disk in the pod, so that a container that
restarts has them still. A pod that goes takes its recordings with it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from crossfade.sidecar.config import Config
from crossfade.sidecar.masks import Masks, Message
from crossfade.sidecar.messages import Answer, Request
from crossfade.sidecar.metrics import Metrics

DIRECTORY: Final = Path("/var/run/crossfade/recordings")
"""An emptyDir of the pod. A case takes up to 1.4 times its bytes there: bodies are base64."""

SAVE_SECONDS: Final = 10.0
"""How often what is new should be written."""

OVERHEAD_BYTES: Final = 1024
"""What a case takes in memory beside its text: two tuples for each of some ten headers."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Case:
    """A request and its answer, without what is masked."""

    number: int
    """Rises by one from case to case, restarts included."""
    at: datetime
    """When the request came."""
    seconds: float
    method: str
    target: str
    status: int
    request: Message
    answer: Message

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        messages = (self.request, self.answer)
        headers = sum(len(name) + len(value) for one in messages for name, value in one.headers)
        bodies = sum(len(one.body) for one in messages)
        return OVERHEAD_BYTES + len(self.target) + headers + bodies


class Recorder:
    """A ring of cases, bounded by their number and their bytes."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        random: Callable[[], float],
        now: Callable[[], datetime],
        directory: Path | None = None,
    ) -> None:
        """Start with what the directory holds.

        Args:
            config: without a recording in it, nothing is recorded.
            metrics: told of each case.
            random: from 0 to less than 1, for the sampling.
            now: the time of day.
            directory: where the cases survive a restart; None: nowhere.

        Raises:
            ValueError: a mask is no JSONPath.
        """
        self._config = config
        self._rules = config.recording
        self._masks = None if self._rules is None else Masks(self._rules)
        self._metrics = metrics
        self._random = random
        self._now = now
        self._directory = directory
        self._cases: deque[Case] = deque()
        self._bytes = 0
        self._last = 0
        self._saved: set[int] = set()
        if self._rules is not None and directory is not None:
            self._load(directory)

    def wants(self) -> bool:
        """Draw whether a request is recorded; its body and its answer must then be held."""
        return self._rules is not None and self._random() * 100 < self._rules.percent

    def record(self, request: Request, answer: Answer, seconds: float) -> None:
        """Keep a request that was answered just now, and took so long."""
        if self._masks is None:
            return
        case = Case(
            number=self._last + 1,
            at=self._now() - timedelta(seconds=seconds),
            seconds=seconds,
            method=request.method,
            target=self._masks.target(request.target),
            status=answer.status,
            request=self._masks.request(request),
            answer=self._masks.answer(answer),
        )
        self._keep(case)
        self._metrics.recorded()

    def export(self) -> bytes:
        """Return all cases, the oldest first, as Keploy's test cases.

        It takes about a millisecond for each: call it in a thread.
        """
        from crossfade.sidecar import keploy  # noqa: PLC0415 - a megabyte of YAML few ever need

        return keploy.render(self._config, tuple(self._cases))

    def save(self) -> None:
        """Write what is new to the directory and delete what the ring has dropped.

        It may be called in a thread, one at a time. What fails is tried again by the next call.
        """
        if self._directory is None or self._rules is None:
            return
        cases = {case.number: case for case in tuple(self._cases)}  # a copy: the ring moves on
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for number in self._saved - cases.keys():
                _file(self._directory, number).unlink(missing_ok=True)
                self._saved.discard(number)
            for number in cases.keys() - self._saved:
                _write(_file(self._directory, number), msgspec.json.encode(cases[number]))
                self._saved.add(number)
        except OSError as error:
            _log.warning("recordings are not saved directory=%s error=%r", self._directory, error)

    def _keep(self, case: Case) -> None:
        if self._rules is None:
            return
        self._last = case.number
        self._cases.append(case)
        self._bytes += case.size
        while len(self._cases) > self._rules.keep or self._bytes > self._rules.max_bytes:
            self._bytes -= self._cases.popleft().size

    def _load(self, directory: Path) -> None:
        """Take in what an earlier process saved; what cannot be read is dropped."""
        for path in sorted(directory.glob("*.json")):
            try:
                case = msgspec.json.decode(path.read_bytes(), type=Case)
            except (OSError, msgspec.MsgspecError) as error:
                _log.warning("a recording is dropped file=%s error=%r", path.name, error)
                path.unlink(missing_ok=True)
                continue
            self._saved.add(case.number)
            self._keep(case)


def _file(directory: Path, number: int) -> Path:
    """Return a case's file: names are in the order of numbers."""
    return directory / f"{number:012d}.json"


def _write(path: Path, text: bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_bytes(text)
    unfinished.replace(path)
