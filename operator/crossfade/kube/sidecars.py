"""Questions to the sidecars of pods, over their admin port."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, Protocol, TypeVar

import aiohttp
import msgspec

from crossfade.core.observation import DrillResult
from crossfade.errors import SidecarError
from crossfade.sidecar.config import Golden

ANSWER_SECONDS: Final = 3.0
"""How long a sidecar may take for what it need not ask of others; the pod is ready, so it runs."""

LARGEST_ANSWER: Final = 256 * 1024
"""More than that is no answer of a sidecar's, in bytes."""

CHUNK: Final = 16 * 1024


T = TypeVar("T")


class Sidecars(Protocol):
    """Asks the sidecar of one pod."""

    async def drill(self, address: str, port: int, seconds: float) -> tuple[DrillResult, ...]:
        """Return the last drill of its fallback if all was well, else that of a new one.

        Args:
            address: of the pod.
            port: its admin port.
            seconds: how long a drill may take.

        Raises:
            SidecarError: it does not answer, or not with this.
        """
        ...

    async def check(self, address: str, port: int, golden: Golden) -> tuple[str, ...]:
        """Return what its contract finds wrong with a request, without values; it is not sent on.

        Raises:
            SidecarError: it does not answer, or not with this.
        """
        ...


class _Target(msgspec.Struct):
    name: str
    ok: bool
    status: int | None = None
    why: str = ""


class _Drill(msgspec.Struct):
    targets: list[_Target]
    """Empty before the first drill."""


class _Violation(msgspec.Struct):
    rule: str
    field: str = ""


class _Check(msgspec.Struct):
    violations: list[_Violation]


class HttpSidecars:
    """:class:`Sidecars` over HTTP. A connection for each question: they are few."""

    def __init__(self, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._answer_seconds = answer_seconds

    async def drill(self, address: str, port: int, seconds: float) -> tuple[DrillResult, ...]:
        """See :meth:`Sidecars.drill`."""
        host = _host(address, port)
        last = _drill_of(host, await _ask("GET", host, "/drill", self._answer_seconds))
        if last and all(result.ok for result in last):
            return last
        timeout = seconds + self._answer_seconds
        return _drill_of(host, await _ask("POST", host, "/drill", timeout))

    async def check(self, address: str, port: int, golden: Golden) -> tuple[str, ...]:
        """See :meth:`Sidecars.check`."""
        host = _host(address, port)
        body = await _ask(
            "POST",
            host,
            "/check",
            self._answer_seconds,
            params={"path": golden.path},
            data=golden.body.encode(),
            headers={"Content-Type": golden.content_type},
        )
        found = _decoded(host, body, _Check).violations
        return tuple(f'{one.field or "the body"} breaks the rule "{one.rule}"' for one in found)


def _host(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


async def _ask(
    method: str,
    host: str,
    path: str,
    timeout: float,  # noqa: ASYNC109 - aiohttp's own
    *,
    params: dict[str, str] | None = None,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> bytes:
    limit, body = aiohttp.ClientTimeout(total=timeout), b""
    try:
        async with (
            aiohttp.ClientSession(f"http://{host}", timeout=limit) as session,
            session.request(
                method, path, params=params, data=data, headers=headers, allow_redirects=False
            ) as answer,
        ):
            async for chunk in answer.content.iter_chunked(CHUNK):
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise SidecarError(f"{host} does not stop answering")
    except TimeoutError as e:
        raise SidecarError(f"{host} did not answer in {timeout:g} s") from e
    except (aiohttp.ClientError, OSError, ValueError) as e:
        raise SidecarError(f"{host} cannot be asked: {e}") from e
    if answer.status != HTTPStatus.OK:
        raise SidecarError(f"{method} {path} at {host} got {answer.status}")
    return body


def _decoded(host: str, body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise SidecarError(f"what answers at {host} is no sidecar: {e}") from e


def _drill_of(host: str, body: bytes) -> tuple[DrillResult, ...]:
    return tuple(_result(target) for target in _decoded(host, body, _Drill).targets)


def _result(target: _Target) -> DrillResult:
    if target.ok:
        return DrillResult(target.name, ok=True)
    if target.status is not None:
        return DrillResult(target.name, ok=False, message=f"answered {target.status}")
    return DrillResult(target.name, ok=False, message=f"did not answer ({target.why})")
