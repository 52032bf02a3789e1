"""One query for many rollouts: questions that come at the same moment are asked together.

Looks fall on a common grid, so at an interval's boundary every rollout asks for the same series
of other pods. Questions to one endpoint for one selector within 20 ms become one query with the
union of their namespaces and pods, and the answer is split by pod name again, or by what a gateway
calls the pods. The number of queries does not grow with the number of rollouts, but for regular
expressions of bounded length.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import msgspec

from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.prometheus import Prom, RawSeries
from crossfade.metrics.selectors import Matcher, Selector, any_of

GATHER_SECONDS: Final = 0.02
"""How long the first question waits for others."""

MAX_TOGETHER: Final = 1000
"""Rollouts in one query."""

MOST_SAMPLES: Final = 300_000
"""Samples that are read at a time, about 250 bytes each: the first look of a restarted operator
reads hours. A look on at a thousand rollouts scraped each second is 40,000 series of 3."""

MAX_REGEX: Final = 100_000
"""Characters of the pods' regular expression. It is sent in a body (POST), not in an address."""

_WORD: Final = re.compile(r"[a-z0-9]+")
"""What names of Kubernetes are made of, apart from what separates."""


@dataclass(frozen=True, slots=True)
class Pods:
    """Which series are wanted: of some revisions' pods, or of a gateway about these pods."""

    label: str
    """Whose value tells the revision: by a mark that it starts with, after what is before it."""
    marks: tuple[str, ...]
    before: str
    """A regular expression of what may stand before a mark; empty: nothing."""
    namespace_label: str | None
    """None: the marks have the namespace."""
    namespace: str


class Question(msgspec.Struct, frozen=True, gc=False):
    """Raw samples of one selector, of the pods of one rollout."""

    endpoint: Endpoint
    selector: Selector
    pods: Pods | None
    """None: the selector says everything."""
    start: float
    """Samples after this are wanted, in seconds."""
    end: float


_Asked = tuple[Question, "asyncio.Future[list[RawSeries]]"]


@dataclass(slots=True)
class _Batch:
    questions: list[_Asked] = field(default_factory=list)


_Key = tuple[Endpoint, Selector, str, str, str | None, int]


class Room:
    """Lets in only so much at a time, first come, first served."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def taken(self, size: int) -> _Part:
        """Return a context that holds a part; what is larger than the room takes all of it."""
        return _Part(self, min(size, self._size))

    async def take(self, size: int) -> None:
        """Wait until there is so much room, and hold it."""
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        let_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, let_in))
        try:
            await let_in
        except asyncio.CancelledError:
            self.give_back(0 if let_in.cancelled() else size)
            raise

    def give_back(self, size: int) -> None:
        """Hold it no more."""
        self._free += size
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            size, let_in = self._waiting[0]
            if not let_in.done():  # one that is given up leaves the queue
                if size > self._free:
                    return
                self._free -= size
                let_in.set_result(None)
            self._waiting.popleft()


class _Part(msgspec.Struct, gc=False):
    """A part of a room. No generator, since each look at each metric takes one."""

    room: Room
    size: int

    async def __aenter__(self) -> None:
        await self.room.take(self.size)

    async def __aexit__(self, *_: object) -> None:
        self.room.give_back(self.size)


class Batcher:
    """Collects questions, asks them together and splits the answers."""

    def __init__(self, prom: Prom) -> None:
        """Ask ``prom``."""
        self.room = Room(MOST_SAMPLES)
        """Whoever asks holds as much of it as samples are expected, until they are used up."""
        self._prom = prom
        self._waiting: dict[_Key, _Batch] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def samples(self, question: Question) -> list[RawSeries]:
        """Return the series with their raw samples; some may be older than was asked for.

        Raises:
            MetricSourceError: there is no usable answer.
        """
        key = _key(question)
        batch = self._waiting.get(key)
        if batch is None:
            batch = self._waiting[key] = _Batch()
            task = asyncio.create_task(self._run(key, batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        future: asyncio.Future[list[RawSeries]] = asyncio.get_running_loop().create_future()
        batch.questions.append((question, future))
        return await future

    async def _run(self, key: _Key, batch: _Batch) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        del self._waiting[key]
        async with asyncio.TaskGroup() as group:
            for chunk in _chunks(batch.questions):
                group.create_task(self._ask(chunk))

    async def _ask(self, chunk: list[_Asked]) -> None:
        questions = [question for question, _ in chunk]
        start, end = min(q.start for q in questions), max(q.end for q in questions)
        window = max(round((end - start) * 1000), 1)
        query = f"{union(questions)}[{window}ms]"
        try:
            answer = await self._prom.instant(questions[0].endpoint, query, end)
        except Exception as e:  # noqa: BLE001 - every one who asked gets it, none of it is lost
            for _, future in chunk:
                if not future.done():
                    future.set_exception(e)
            return
        for (_, future), share in zip(chunk, _split(questions, answer), strict=True):
            if not future.done():
                future.set_result(share)


def _key(question: Question) -> _Key:
    """Return what must be equal to be asked together: also how far back, to a power of four."""
    reach, scale = question.end - question.start, 0
    while reach > 4:  # noqa: PLR2004
        reach, scale = reach / 4, scale + 1
    pods = question.pods
    how = (pods.label, pods.before, pods.namespace_label) if pods else ("", "", None)
    return (question.endpoint, question.selector, *how, scale)


def _chunks(waiting: Sequence[_Asked]) -> Iterable[list[_Asked]]:
    chunk: list[_Asked] = []
    length = 0
    for one in waiting:
        pods = one[0].pods
        size = sum(len(mark) + 1 for mark in pods.marks) if pods else 0
        if chunk and (len(chunk) == MAX_TOGETHER or length + size > MAX_REGEX):
            yield chunk
            chunk, length = [], 0
        chunk.append(one)
        length += size
    if chunk:
        yield chunk


def union(questions: list[Question]) -> Selector:
    """Return the selector of all the pods; the labels are the same in all questions."""
    selector = questions[0].selector
    wanted = _wanted(questions)
    for matcher in _matchers(wanted) if wanted else ():
        selector = selector.matching(matcher)
    return selector


def _wanted(questions: Iterable[Question]) -> tuple[Pods, ...]:
    return tuple(q.pods for q in questions if q.pods is not None)


@lru_cache(maxsize=16)
def _matchers(wanted: tuple[Pods, ...]) -> list[Matcher]:
    """Return what all the pods match."""
    how = wanted[0]
    start = any_of(sorted({mark for pods in wanted for mark in pods.marks}))
    matchers = [Matcher(how.label, "=~", f"{how.before}({start}).*")]
    if how.namespace_label is not None:
        namespaces = any_of(sorted({pods.namespace for pods in wanted}))
        matchers.insert(0, Matcher(how.namespace_label, "=~", namespaces))
    return matchers


def marked(value: str, mark: str, before: str) -> bool:
    """Tell whether a label's value is of the revision with this mark."""
    if not before:
        return value.startswith(mark)
    at = value.rfind(mark)
    return at >= 0 and re.fullmatch(before, value[:at]) is not None


class Owners:
    """Tells whose a series is, of those who ask together."""

    def __init__(self, asked: Sequence[Pods]) -> None:
        """Look only at marks whose last word is in a value: a mark ends with a revision."""
        self._namespace_label = asked[0].namespace_label
        self._label = asked[0].label
        self._before = asked[0].before
        self._marks: dict[tuple[str, str], list[tuple[str, int]]] = {}
        """Marks and who asked for them, by namespace and the mark's last word."""
        self._known: dict[tuple[str, str], tuple[int, ...]] = {}
        for i, pods in enumerate(asked):
            namespace = pods.namespace if pods.namespace_label is not None else ""
            for mark in pods.marks:
                self._marks.setdefault((namespace, _words(mark)[-1]), []).append((mark, i))

    def of(self, labels: Mapping[str, str]) -> tuple[int, ...]:
        """Return who, as places in what was asked: one, or the few whose marks are alike."""
        namespace = labels.get(self._namespace_label, "") if self._namespace_label else ""
        value = labels.get(self._label, "")
        who = self._known.get((namespace, value))
        if who is None:
            who = self._known[namespace, value] = self._find(namespace, value)
        return who

    def _find(self, namespace: str, value: str) -> tuple[int, ...]:
        found = {
            i
            for word in _words(value)
            for mark, i in self._marks.get((namespace, word), ())
            if marked(value, mark, self._before)
        }
        return tuple(found)


_owners: Final = lru_cache(maxsize=16)(Owners)
"""The same rollouts ask for each selector, look after look."""


def _split(questions: list[Question], answer: list[RawSeries]) -> list[list[RawSeries]]:
    """Return each question's part of a common answer."""
    wanted = _wanted(questions)
    if not wanted:
        return [answer for _ in questions]
    shares: list[list[RawSeries]] = [[] for _ in questions]
    whose = _owners(wanted).of
    for series in answer:
        for i in whose(series.labels):
            shares[i].append(series)
    return shares


def _words(text: str) -> list[str]:
    return _WORD.findall(text)
