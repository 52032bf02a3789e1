"""The client edge of Prometheus: questions in, raw samples or a plain error out.

prometheus-api-client speaks HTTP through requests, which blocks, so it runs in a few threads.
Its own retries are off: the next look is the retry. A 200 answer with ``warnings`` is refused:
Prometheus and Thanos say by them that the answer is partial, and a part of the pods is no
evidence. ``infos`` are let pass.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakValueDictionary

import msgspec
from typing_extensions import override

from crossfade.access.addresses import is_below
from crossfade.errors import MetricSourceError
from crossfade.metrics.endpoints import Endpoint

if TYPE_CHECKING:
    import requests

THREADS: Final = 8
PER_ENDPOINT: Final = 4
"""Questions to one Prometheus at a time, so that one that hangs leaves threads to the others."""

CLIENTS_KEPT: Final = 64
"""Open sessions; the least used is closed. Credentials that change make new ones."""


class RefusedError(MetricSourceError):
    """Prometheus answered 401 or 403."""


class Labels(dict[str, str]):
    """Labels of an answer, which nobody changes: the same object as long as somebody keeps it."""

    __slots__ = ("__weakref__",)
    __hash__ = object.__hash__  # type: ignore[assignment]


_values: Final = msgspec.json.Decoder(list[tuple[float, str]])


class RawSeries(msgspec.Struct, gc=False):
    """One series of an answer."""

    labels: Mapping[str, str]
    written: list[tuple[float, str]] | msgspec.Raw
    """Its samples. Those of an answer are JSON until they are used: all of a thousand rollouts'
    are hundreds of thousands of objects, which Python would search for garbage."""
    histograms: Sequence[tuple[float, Any]] = ()
    """Samples that are native histograms, as in the JSON."""

    @property
    def values(self) -> list[tuple[float, str]]:
        """The samples: seconds since the epoch, and the value's text.

        Raises:
            MetricSourceError: they are none.
        """
        if not isinstance(self.written, msgspec.Raw):
            return self.written
        try:
            return _values.decode(self.written)
        except msgspec.DecodeError as e:
            raise MetricSourceError("Prometheus gave samples that are not understood") from e


class Prom(Protocol):
    """What is asked of a Prometheus."""

    async def instant(self, endpoint: Endpoint, promql: str, at: float) -> list[RawSeries]:
        """Evaluate an expression that gives a range vector: raw samples up to ``at`` seconds.

        Raises:
            MetricSourceError: there is no usable answer.
        """
        ...

    async def steps(
        self, endpoint: Endpoint, promql: str, start: int, end: int, step: int
    ) -> list[RawSeries]:
        """Evaluate an expression at ``start``, ``start + step``, ... up to ``end`` (seconds).

        Raises:
            MetricSourceError: there is no usable answer.
        """
        ...


class PrometheusClient:
    """Asks any number of Prometheus servers."""

    def __init__(
        self,
        allowed: Sequence[str] = (),
        on_answer: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        """Ask only below these addresses; any, when there are none.

        ``on_answer`` is told how each question went ("ok", "error"), and how many seconds it took.
        """
        self._on_answer = on_answer
        self._allowed = allowed
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="prometheus")
        self._clients: OrderedDict[Endpoint, tuple[Any, asyncio.Semaphore]] = OrderedDict()

    async def instant(self, endpoint: Endpoint, promql: str, at: float) -> list[RawSeries]:
        """See :class:`Prom`."""
        params = {"time": f"{at:.3f}", "timeout": f"{endpoint.timeout_seconds:g}s"}
        return await self._ask(endpoint, lambda c: c.custom_query(promql, params=params))

    async def steps(
        self, endpoint: Endpoint, promql: str, start: int, end: int, step: int
    ) -> list[RawSeries]:
        """See :class:`Prom`."""
        first, last = (datetime.fromtimestamp(at, UTC) for at in (start, end))
        params = {"timeout": f"{endpoint.timeout_seconds:g}s"}
        return await self._ask(
            endpoint, lambda c: c.custom_query_range(promql, first, last, f"{step}s", params=params)
        )

    def close(self) -> None:
        """Close the sessions; a question that still runs ends by its time-out."""
        for client, _ in self._clients.values():
            client.close()
        self._clients.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, endpoint: Endpoint, ask: Callable[[Any], Any]) -> list[RawSeries]:
        if self._allowed and not is_below(endpoint.address, self._allowed):
            raise MetricSourceError(
                f"the operator may not ask {endpoint.address}; it may ask "
                f"{', '.join(self._allowed)} (CROSSFADE_PROMETHEUS_ADDRESSES)"
            )
        loop = asyncio.get_running_loop()
        began, result = loop.time(), "error"
        try:
            async with asyncio.timeout(endpoint.timeout_seconds + 1):
                client, gate = self._client(endpoint)
                async with gate:
                    answer = await loop.run_in_executor(self._pool, _call, endpoint, client, ask)
            result = "ok"
        except TimeoutError as e:
            raise MetricSourceError(_late(endpoint)) from e
        finally:
            self._on_answer(result, loop.time() - began)
        return answer

    def _client(self, endpoint: Endpoint) -> tuple[Any, asyncio.Semaphore]:
        known = self._clients.get(endpoint)
        if known is None:
            known = self._clients[endpoint] = (_connect(endpoint), asyncio.Semaphore(PER_ENDPOINT))
            if len(self._clients) > CLIENTS_KEPT:
                _, (oldest, _) = self._clients.popitem(last=False)
                oldest.close()
        self._clients.move_to_end(endpoint)
        return known


class _Series(msgspec.Struct, gc=False):
    metric: msgspec.Raw
    values: msgspec.Raw = msgspec.Raw(b"[]")
    histograms: Sequence[tuple[float, Any]] = ()


class _Data(msgspec.Struct):
    result: list[_Series]


class _Body(msgspec.Struct):
    data: _Data


_body: Final = msgspec.json.Decoder(_Body)
_labels: Final = msgspec.json.Decoder(dict[str, str])

_known_labels: Final[WeakValueDictionary[bytes, Labels]] = WeakValueDictionary()
"""By how they are written. Each look sees those of the look before, which its rollout keeps."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What PrometheusConnect asks of a response; by ``requests`` it takes four times as long."""

    status_code: int
    content: bytes

    def json(self) -> Mapping[str, Mapping[str, list[RawSeries]]]:
        """Return the series, where Prometheus has them."""
        return {"data": {"result": [_read(one) for one in _body.decode(self.content).data.result]}}


def _read(one: _Series) -> RawSeries:
    written = bytes(one.metric)
    labels = _known_labels.get(written)
    if labels is None:
        labels = _known_labels[written] = Labels(_labels.decode(written))
    return RawSeries(labels, one.values, one.histograms)


def _call(endpoint: Endpoint, client: Any, ask: Callable[[Any], Any]) -> list[RawSeries]:
    """Ask, in a thread, and turn every way to fail into one error with a plain message."""
    import requests  # noqa: PLC0415 - only here is it known that it is there

    try:
        answer: list[RawSeries] = ask(client)
    except (requests.JSONDecodeError, msgspec.DecodeError) as e:
        raise MetricSourceError(_nonsense(endpoint)) from e
    except requests.Timeout as e:
        raise MetricSourceError(_late(endpoint)) from e
    except requests.exceptions.SSLError as e:
        raise MetricSourceError(f"TLS with {endpoint.address} failed: {_root(e)}") from e
    except requests.RequestException as e:
        raise MetricSourceError(f"Prometheus {endpoint.address} is not reached: {_root(e)}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise MetricSourceError(_nonsense(endpoint)) from e
    return answer


def _nonsense(endpoint: Endpoint) -> str:
    return f"{endpoint.address} does not answer as Prometheus does"


def _late(endpoint: Endpoint) -> str:
    return f"Prometheus {endpoint.address} did not answer within {endpoint.timeout_seconds:g} s"


def _root(error: BaseException) -> str:
    """Return the innermost reason: requests and urllib3 wrap it several times."""
    seen: BaseException = error
    while True:
        inner = getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((a for a in seen.args if isinstance(a, BaseException)), None)
        if inner is None:
            return str(seen).rsplit(": ", 1)[-1] or type(seen).__name__
        seen = inner


def _connect(endpoint: Endpoint) -> Any:
    """Return a PrometheusConnect with our session.

    Only this class is imported, and only when it is needed: the package's module attributes are
    lazy since 0.6 (its other classes want pandas). ``trust_env`` is off: neither a .netrc nor a
    proxy variable may decide whom credentials are sent to.
    """
    import requests  # noqa: PLC0415
    from prometheus_api_client.prometheus_connect import PrometheusConnect  # noqa: PLC0415
    from requests.adapters import HTTPAdapter  # noqa: PLC0415
    from urllib3.util.retry import Retry  # noqa: PLC0415

    context = _tls(endpoint)

    class Adapter(HTTPAdapter):
        @override
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs, ssl_context=context)

    class Session(requests.Session):
        """Sends a query in the body: that of a thousand rollouts does not fit into an address.

        PrometheusConnect can POST, but gives the query as parameters of the address all the same.
        """

        @override
        def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
            request.data, request.params = request.params, {}
            return super().prepare_request(request)

        @override
        def request(self, *args: Any, **kwargs: Any) -> Any:
            response = super().request(*args, **kwargs)
            return Answer(response.status_code, response.content)

    session = Session()
    session.trust_env = False
    session.verify = not endpoint.insecure_skip_verify
    session.hooks["response"].append(_check)
    shown = endpoint.credentials
    if shown.bearer_token is not None:
        session.headers["Authorization"] = f"Bearer {shown.bearer_token}"
    if shown.username is not None:
        session.auth = (shown.username, shown.password or "")
    client = PrometheusConnect(
        endpoint.address,
        session=session,
        retry=Retry(total=0, read=False),
        timeout=(endpoint.timeout_seconds, endpoint.timeout_seconds),
        method="POST",
    )
    session.mount(
        endpoint.address, Adapter(max_retries=Retry(total=0, read=False), pool_maxsize=PER_ENDPOINT)
    )
    return client


def _tls(endpoint: Endpoint) -> ssl.SSLContext | None:
    """Return the TLS settings; None for plain HTTP.

    Raises:
        MetricSourceError: the certificates cannot be read.
    """
    if not endpoint.address.startswith("https:"):
        return None
    shown = endpoint.credentials
    try:
        context = ssl.create_default_context()
        if shown.ca:
            context.load_verify_locations(cadata=shown.ca)
        if shown.certificate and shown.key:
            # load_cert_chain reads files only (python/cpython#60691); this one is 0600 and is
            # gone as soon as it was read.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
                pem.write(f"{shown.certificate}\n{shown.key}\n")
                pem.flush()
                context.load_cert_chain(pem.name)
    except (ssl.SSLError, ValueError) as e:
        raise MetricSourceError(f"the certificates for {endpoint.address} cannot be read") from e
    if endpoint.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _check(response: requests.Response, **_: object) -> None:
    """Refuse an answer that is an error, partial, or something else than Prometheus'."""
    if response.status_code in (401, 403):
        raise RefusedError(f"Prometheus refused the credentials (HTTP {response.status_code})")
    if response.status_code != 200:  # noqa: PLR2004
        raise MetricSourceError(
            f"Prometheus answered HTTP {response.status_code}: {_said(response)}"
        )
    if b'"warnings":' in response.content:
        warnings = response.json().get("warnings")
        if warnings:
            raise MetricSourceError(f"Prometheus gave a partial answer: {str(warnings[0])[:200]}")


def _said(response: requests.Response) -> str:
    """Return Prometheus' own words on an error, one line of at most 300 characters.

    Nothing of any other answer: who may name an address must not read by it what only the operator
    can reach.
    """
    try:
        text = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return "not in Prometheus' words"
    return " ".join(text.split())[:300] or "nothing"
