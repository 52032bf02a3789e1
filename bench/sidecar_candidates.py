"""Other ways to write the sidecar's proxy, each as short as it gets; see `bench.sidecar`.

They do less: the whole body both ways, no trailers, no limits, no time-outs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)

Event = Mapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_session: aiohttp.ClientSession | None = None
_client: Any = None


def _model(path: str) -> str:
    return f"http://127.0.0.1:{os.environ['MODEL_PORT']}{path}"


def _made_session() -> aiohttp.ClientSession:
    global _session  # noqa: PLW0603 - one a process
    if _session is None:
        _session = aiohttp.ClientSession(auto_decompress=False)
    return _session


async def handle(request: web.Request) -> web.Response:
    """Pass a request of aiohttp's server on."""
    headers = [(k, v) for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP]
    body = await request.read()
    url = _model(request.raw_path)
    async with _made_session().request(
        request.method, url, headers=headers, data=body, allow_redirects=False
    ) as answer:
        kept = [(k, v) for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP]
        response = web.Response(status=answer.status, body=await answer.read())
        response.headers.clear()
        response.headers.extend(kept)
        return response


async def _read(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            break
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    return body


def _kept(headers: Headers) -> Headers:
    return [(k, v) for k, v in headers if k.lower().decode("latin-1") not in HOP_BY_HOP]


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def with_aiohttp(scope: Event, receive: Receive, send: Send) -> None:
    """Pass an ASGI request on with aiohttp's client."""
    if scope["type"] != "http":
        return
    headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in _kept(scope["headers"])]
    body = await _read(receive)
    url = _model(scope["path"])
    async with _made_session().request(
        scope["method"], url, headers=headers, data=body, allow_redirects=False
    ) as answer:
        await _answer(send, answer.status, _kept(list(answer.raw_headers)), await answer.read())


async def with_httpx(scope: Event, receive: Receive, send: Send) -> None:
    """Pass an ASGI request on with httpx."""
    global _client  # noqa: PLW0603 - one a process
    if scope["type"] != "http":
        return
    if _client is None:
        _client = importlib.import_module("httpx").AsyncClient()
    body = await _read(receive)
    request = _client.build_request(
        scope["method"], _model(scope["path"]), headers=_kept(scope["headers"]), content=body
    )
    answer = await _client.send(request)
    await _answer(send, answer.status_code, _kept(answer.headers.raw), answer.content)


def main() -> None:
    """Serve with aiohttp."""
    app = web.Application(client_max_size=10 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", handle)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
