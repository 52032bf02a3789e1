"""One query for many rollouts: questions that come at the same moment are asked together.

Looks fall on a common grid, so at an interval's boundary every rollout asks for the same series
of other pods. Questions to one endpoint for one selector within 20 ms become one query with the
union of their namespaces and pods, and the answer is split by pod name again. The number of
queries does not grow with the number of rollouts, but for regular expressions of bounded length.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.prometheus import Prom, RawSeries
from crossfade.metrics.selectors import Matcher, Selector, any_of, escape_regex

GATHER_SECONDS: Final = 0.02
"""How long the first question waits for others."""

MAX_TOGETHER: Final = 50
"""Rollouts in one query."""

MAX_REGEX: Final = 5000
"""Characters of the pods' regular expression: a proxy may refuse URLs over 8 KiB."""

POD_NAME_KEPT: Final = 58
"""How much of a long Deployment's name survives in its pods' names: the API server cuts a
generateName to 63 - 5 characters (apiserver/pkg/storage/names/generate.go)."""


@dataclass(frozen=True, slots=True)
class Pods:
    """Which pods' series are wanted."""

    namespace_label: str
    pod_label: str
    namespace: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
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


_Key = tuple[Endpoint, Selector, str, str, int]


class Batcher:
    """Collects questions, asks them together and splits the answers."""

    def __init__(self, prom: Prom) -> None:
        """Ask ``prom``."""
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
        query = f"{_union(questions)}[{window}ms]"
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
    labels = (pods.namespace_label, pods.pod_label) if pods else ("", "")
    return (question.endpoint, question.selector, *labels, scale)


def _chunks(waiting: Sequence[_Asked]) -> Iterable[list[_Asked]]:
    chunk: list[_Asked] = []
    length = 0
    for one in waiting:
        pods = one[0].pods
        size = sum(len(prefix) + 1 for prefix in pods.prefixes) if pods else 0
        if chunk and (len(chunk) == MAX_TOGETHER or length + size > MAX_REGEX):
            yield chunk
            chunk, length = [], 0
        chunk.append(one)
        length += size
    if chunk:
        yield chunk


def _union(questions: list[Question]) -> Selector:
    """Return the selector of all the pods; the labels are the same in all questions."""
    selector = questions[0].selector
    wanted = [q.pods for q in questions if q.pods is not None]
    if not wanted:
        return selector
    namespaces = sorted({pods.namespace for pods in wanted})
    prefixes = sorted({_cut(p) for pods in wanted for p in pods.prefixes})
    start = "|".join(escape_regex(prefix) for prefix in prefixes)
    return selector.matching(
        Matcher(wanted[0].namespace_label, "=~", any_of(namespaces)),
        Matcher(wanted[0].pod_label, "=~", f"({start}).*"),
    )


def _cut(prefix: str) -> str:
    return prefix[:POD_NAME_KEPT]


def belongs(pod: str, prefix: str) -> bool:
    """Tell whether a pod's name is of a revision, also when the name had to be cut."""
    return pod.startswith(_cut(prefix))


def _split(questions: list[Question], answer: list[RawSeries]) -> list[list[RawSeries]]:
    """Return each question's part of a common answer, by looking up what a pod starts with."""
    shares: list[list[RawSeries]] = [[] for _ in questions]
    owners: dict[tuple[str, str], list[int]] = {}
    for i, question in enumerate(questions):
        if question.pods is None:
            shares[i] = answer
            continue
        for prefix in question.pods.prefixes:
            owners.setdefault((question.pods.namespace, _cut(prefix)), []).append(i)
    pods = questions[0].pods
    if pods is None:
        return shares
    for series in answer:
        namespace = series.labels.get(pods.namespace_label, "")
        pod = series.labels.get(pods.pod_label, "")
        ends = [i + 1 for i, char in enumerate(pod) if char == "-"] + [POD_NAME_KEPT]
        mine = {i for end in set(ends) for i in owners.get((namespace, pod[:end]), ())}
        for i in mine:
            shares[i].append(series)
    return shares
