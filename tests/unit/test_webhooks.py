"""What is posted, and what is believed of an answer: over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from crossfade.api.base import SecretKeyRef
from crossfade.api.v1alpha1 import Notice, Phase, RevisionStatus
from crossfade.api.webhooks import Slack, Webhook
from crossfade.errors import ClusterError, WebhookError
from crossfade.names import NamespacedName
from crossfade.webhooks import client
from crossfade.webhooks.answers import read_answer
from crossfade.webhooks.client import LARGEST_ANSWER, Answer, HttpPosts, NotAllowedError
from crossfade.webhooks.events import (
    MOST_TEXT,
    Origin,
    Question,
    render_notice,
    render_question,
    slack_text,
)
from crossfade.webhooks.sender import Sender
from crossfade.webhooks.signing import read_key, signature_of

HERE = "127.0.0.1"
DOCS = Path(__file__).parents[2] / "docs" / "notifications.md"
NOW = datetime(2026, 11, 24, 12, 0, 0, 250_000, tzinfo=UTC)
ORIGIN = Origin(NamespacedName("ml", "fraud"), "0c1d", "fraud")
STABLE = RevisionStatus(revision="bcdfghjk", version="1.0.0")
CANARY = RevisionStatus(revision="lmnpqrst", version="2.0.0")
NOTICE = Notice(
    id="0c1d-1-RollingBack",
    occasion="rolledBack",
    reason="RollingBack",
    message="version 2.0.0 is taken back",
    at=NOW,
    phase=Phase.ROLLING_BACK,
    stable=STABLE,
    canary=CANARY,
    weight=10,
    receivers=["hook"],
)
KEY_TEXT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[str]:
    """Serve; return the address."""
    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HERE, 0).start()
    try:
        yield f"http://{HERE}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def ok(_: web.BaseRequest) -> web.StreamResponse:
    return web.json_response({"allowed": True})


async def post(
    address: str, *, seconds: float = 5, allowed: tuple[str, ...] = (), reads: bool = True
) -> Answer:
    return await HttpPosts(allowed).post(address, {}, b"{}", seconds, reads=reads)


# ── CloudEvents ───────────────────────────────────────────────────────────────────────────────


def test_a_notice_is_a_cloudevent() -> None:
    assert render_notice(ORIGIN, NOTICE) == {
        "specversion": "1.0",
        "id": "0c1d-1-RollingBack",
        "source": "/namespaces/ml/modeldeployments/fraud",
        "type": "dev.crossfade.rollout.rolledBack",
        "subject": "2.0.0",
        "time": "2026-11-24T12:00:00.250Z",
        "datacontenttype": "application/json",
        "data": {
            "namespace": "ml",
            "name": "fraud",
            "uid": "0c1d",
            "model": "fraud",
            "stable": {"version": "1.0.0", "revision": "bcdfghjk"},
            "canary": {"version": "2.0.0", "revision": "lmnpqrst"},
            "weightPercent": 10,
            "phase": "RollingBack",
            "reason": "RollingBack",
            "message": "version 2.0.0 is taken back",
        },
    }


def test_an_attribute_of_a_cloudevent_is_never_empty() -> None:
    bare = NOTICE.model_copy(update={"stable": None, "canary": None})
    event = render_notice(ORIGIN, bare)
    assert "subject" not in event
    assert event["data"]["stable"] is None


def test_a_question_is_a_cloudevent_of_its_own() -> None:
    question = Question(ORIGIN, Phase.PROGRESSING, STABLE, CANARY, 10, 50, "1/2")
    event = render_question(question, NOW)
    assert event["type"] == "dev.crossfade.gate"
    assert event["id"] == f"0c1d-lmnpqrst-50-{int(NOW.timestamp() * 1000)}"
    assert event["data"]["nextWeightPercent"] == 50
    assert event["data"]["step"] == "1/2"
    # Standard Webhooks sign id.timestamp.body, so an id has no point.
    assert "." not in event["id"]


# ── Slack ─────────────────────────────────────────────────────────────────────────────────────


def test_slack_gets_one_line_with_its_three_characters_escaped() -> None:
    notice = NOTICE.model_copy(update={"message": "p99 > 1 s &\n<!channel> is paged"})
    assert slack_text(ORIGIN, notice) == (
        "*ml/fraud* rolled back: p99 &gt; 1 s &amp; &lt;!channel&gt; is paged"
    )


def test_a_long_message_is_cut_and_no_escape_is() -> None:
    text = slack_text(ORIGIN, NOTICE.model_copy(update={"message": "<" * 5000}))
    assert text.endswith("&lt;…")
    assert text.count("&lt;") == MOST_TEXT - 1


# ── Standard Webhooks ─────────────────────────────────────────────────────────────────────────


def test_a_signature_is_that_of_the_reference_libraries() -> None:
    """libraries/python/tests/test_webhooks.py of standard-webhooks/standard-webhooks."""
    signature = signature_of(
        read_key(KEY_TEXT),
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_key_of_24_to_64_bytes_is_taken(size: int) -> None:
    key = bytes(range(size))
    assert read_key("whsec_" + base64.b64encode(key).decode()) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        KEY_TEXT.removeprefix("whsec_"),
        "whsec_hunter2!",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_" + "ü" * 40,
    ],
)
def test_what_is_no_key_is_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match='a signing key is "whsec_" and 24 to 64 bytes') as caught:
        read_key(text)
    assert "hunter2" not in str(caught.value)


class Secrets:
    """A Secret named hooks."""

    async def read(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        if name == "forbidden":
            raise ClusterError("GET /api/v1/namespaces/ml/secrets/forbidden: forbidden")
        return {"signing": KEY_TEXT.encode(), "blob": b"\xff"} if name == "hooks" else None


def shown() -> Callable[[str, Mapping[str, str], bytes], bool]:
    """Return the function that the documentation shows."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - of this repository
    is_ours: Callable[[str, Mapping[str, str], bytes], bool] = names["is_ours"]
    return is_ours


async def test_a_receiver_can_verify_what_it_gets() -> None:
    got: list[tuple[dict[str, str], bytes]] = []
    now = datetime.now(UTC)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        got.append(({k.lower(): v for k, v in request.headers.items()}, await request.read()))
        return web.Response(status=204)

    async with listening(handle) as address:
        webhook = Webhook(
            address=address + "/a?b=c", signing_key=SecretKeyRef(name="hooks", key="signing")
        )
        sender = Sender(HttpPosts(), Secrets(), lambda: now)
        answer = await sender.event("ml", webhook, render_notice(ORIGIN, NOTICE), 5)
    assert answer.status == 204
    ((headers, body),) = got
    is_ours = shown()
    assert is_ours(KEY_TEXT, headers, body)
    assert not is_ours(KEY_TEXT, headers, body + b" ")
    old = {**headers, "webhook-timestamp": str(int(now.timestamp()) - 301)}
    assert not is_ours(KEY_TEXT, old, body)
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["webhook-timestamp"] == str(int(now.timestamp()))
    assert json.loads(body)["id"] == headers["webhook-id"] == NOTICE.id


@pytest.mark.parametrize(
    ("name", "key", "why"),
    [
        ("gone", "signing", "there is no Secret gone in namespace ml"),
        ("hooks", "other", "Secret ml/hooks has no key other"),
        ("hooks", "blob", "key blob of Secret ml/hooks is no text"),
        ("forbidden", "signing", "Secret ml/forbidden cannot be read: .*: forbidden"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_named(name: str, key: str, why: str) -> None:
    sender = Sender(HttpPosts(), Secrets(), lambda: NOW)
    with pytest.raises(WebhookError, match=why):
        await sender.text("ml", Slack(address=SecretKeyRef(name=name, key=key)), "hello", 5)


# ── the edge ──────────────────────────────────────────────────────────────────────────────────


async def test_an_answer_is_returned_whatever_its_status_is() -> None:
    async def busy(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "17"}, text="busy")

    async with listening(busy) as address:
        assert await post(address) == Answer(429, b"busy", "17")
        assert await post(address, reads=False) == Answer(429, b"", "17")


async def test_a_redirect_is_not_followed() -> None:
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with listening(handle) as address:
        assert (await post(f"{address}/here")).status == 307
    assert asked == ["/here"]


async def test_neither_a_proxy_nor_a_netrc_is_heeded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "netrc").write_text(f"machine {HERE} login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    got: list[Mapping[str, str]] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        got.append(request.headers)
        return web.Response()

    async with listening(handle) as address:
        await post(address)
    assert "Authorization" not in got[0]
    assert got[0]["User-Agent"] == "crossfade"


async def endless(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b"x" * 16384)
    except ConnectionError:
        return response


async def test_an_endless_answer_is_none_and_is_no_matter_where_it_is_not_read() -> None:
    async with listening(endless) as address:
        with pytest.raises(WebhookError, match="it does not stop answering"):
            await post(address)
        assert (await post(address, reads=False)).status == 200


async def test_what_is_packed_is_not_unpacked() -> None:
    async def packed(_: web.BaseRequest) -> web.StreamResponse:
        body = gzip.compress(b"x" * 100 * LARGEST_ANSWER)
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with listening(packed) as address:
        answer = await post(address)
    assert len(answer.body) < LARGEST_ANSWER
    assert read_answer("freeze", answer).answer == "failed"


async def test_what_is_late_is_no_answer() -> None:
    async def late(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with listening(late) as address:
        with pytest.raises(WebhookError, match=r"it did not answer in 0\.1 s"):
            await post(address, seconds=0.1)


async def test_one_host_that_hangs_leaves_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "PER_HOST", 2)
    under_way, most = 0, 0
    full, release = asyncio.Event(), asyncio.Event()

    async def hangs(_: web.BaseRequest) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 2:
            full.set()
        await release.wait()
        under_way -= 1
        return web.Response()

    async with listening(hangs) as slow, listening(ok) as quick:
        posts = HttpPosts()
        waiting = [
            asyncio.create_task(posts.post(slow, {}, b"", 20, reads=False)) for _ in range(5)
        ]
        await full.wait()
        assert (await posts.post(quick, {}, b"", 5, reads=True)).status == 200
        release.set()
        answers = await asyncio.gather(*waiting)
    assert [it.status for it in answers] == [200] * 5
    assert most == 2


async def test_what_is_not_reached_is_said_without_the_address() -> None:
    with socket.socket() as free:
        free.bind((HERE, 0))
        address = f"http://{HERE}:{free.getsockname()[1]}/secret"
        with pytest.raises(WebhookError) as refused:
            await post(address)
    assert str(refused.value) == "it is not reached: Connection refused"
    async with listening(ok) as plain:
        with pytest.raises(WebhookError) as tls:
            await post(plain.replace("http:", "https:"))
    assert HERE not in str(tls.value)


async def test_what_speaks_no_http_is_no_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(serve, HERE)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(WebhookError, match="it gave no answer of HTTP") as caught:
            await post(f"http://{HERE}:{port}")
    assert "ESMTP" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://", "http://[", "http://a:99999/", "http:///x"])
async def test_what_is_no_url_is_said(address: str) -> None:
    with pytest.raises(WebhookError, match="its address is no URL"):
        await post(address)


async def test_only_allowed_addresses_are_reached() -> None:
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response()

    async with listening(handle) as address:
        allowed = (f"{address}/hooks", "https://hooks.slack.com")
        assert (await post(f"{address}/hooks/a", allowed=allowed)).status == 200
        for wrong in ("/", "/hooks/../admin", "/hooksx", "/hooks?x=y", "/hooks/%2e%2e/admin"):
            with pytest.raises(NotAllowedError) as caught:
                await post(address + wrong, allowed=allowed)
            assert str(caught.value) == (
                f"the operator may not post to its address, only to {address}/hooks, "
                "https://hooks.slack.com (CROSSFADE_WEBHOOK_ADDRESSES)"
            )
    assert asked == ["/hooks/a"]


# ── answers of gates ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "answer", "message"),
    [
        (b'{"allowed": true}', "allowed", ""),
        (b'{"allowed": true, "message": "go"}', "allowed", "go"),
        (b'{"allowed": true, "message": {"a": 1}}', "allowed", ""),
        (b'{"allowed": false}', "refused", ""),
        (b'{"allowed": false, "message": "not now", "more": [1]}', "refused", "not now"),
    ],
)
def test_yes_and_no(body: bytes, answer: str, message: str) -> None:
    said = read_answer("freeze", Answer(200, body))
    assert (said.name, said.answer, said.message) == ("freeze", answer, message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"true",
        b"[]",
        b"{}",
        b'{"allowed": "true"}',
        b'{"allowed": 1}',
        b'{"allowed": null}',
        b'{"allowed": true',
        b'{"Allowed": true}',
        b'{"allowed": true, "message": "\xff"}',
        b"[" * 60_000,
        b'{"allowed": true, "message": ' + b"[" * 60_000,
    ],
)
def test_everything_else_is_no_answer(body: bytes) -> None:
    assert read_answer("freeze", Answer(200, body)).answer == "failed"
