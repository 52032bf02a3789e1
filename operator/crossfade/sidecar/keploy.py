"""Recordings as Keploy's HTTP test cases, which ``keploy test`` and others read.

From github.com/keploy/keploy at b171291: ``NetworkTrafficDoc`` (pkg/platform/yaml/yaml.go),
``HTTPSchema``, ``HTTPReq`` and ``HTTPResp`` (pkg/models/http.go), ``buildHTTPSchema``
(pkg/platform/yaml/testdb/util.go). Keploy keeps each document in a file of its own, by its name:
``keploy/test-set-0/tests/test-1.yaml``.

A header that comes twice is one, its values joined by commas, as in Keploy's ``ToYamlHTTPHeader``.
A body that is not UTF-8 is ``!!binary``, as Go's yaml.v3 writes such a string and reads it again.
An answer's body that is left out is ``body_skipped``, with its size. Of a request Keploy has no
such field; the description says it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

import msgspec
import yaml
from typing_extensions import override

from crossfade.sidecar.config import Config
from crossfade.sidecar.masks import HIDDEN, Message
from crossfade.sidecar.recording import Case

VERSION: Final = "api.keploy.io/v1beta1"

NO_HOST: Final = "localhost"
"""In the address of a request without a Host header."""


class _Dumper(yaml.CSafeDumper):
    """libyaml's, ten times as fast as the one in Python; with times as yaml.v3 reads them."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _time(dumper: yaml.CSafeDumper, at: datetime) -> yaml.ScalarNode:
    text = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return dumper.represent_scalar("tag:yaml.org,2002:timestamp", text)


_Dumper.add_representer(datetime, _time)


def render(config: Config, cases: Iterable[Case]) -> bytes:
    """Return a YAML document for each case."""
    documents = (_document(config, case) for case in cases)
    return yaml.dump_all(
        documents,
        Dumper=_Dumper,
        encoding="utf-8",
        explicit_start=True,
        sort_keys=False,
        allow_unicode=True,
        width=2**31 - 1,  # nothing is folded
    )


def _document(config: Config, case: Case) -> dict[str, Any]:
    request = _headers(case.request.headers)
    host = request.get("Host", NO_HOST)
    return {
        "version": VERSION,
        "kind": "Http",
        "name": f"test-{case.number}",
        "spec": {
            "metadata": _metadata(config, case),
            "req": {
                "method": case.method,
                "proto_major": 1,
                "proto_minor": 1,
                "url": f"http://{host}{case.target}",
                "header": request,
                "body": _body(case.request),
                "timestamp": case.at,
            },
            "resp": {
                "status_code": case.status,
                "header": _headers(case.answer.headers),
                "body": _body(case.answer),
                **_skipped(case.answer),
                "status_message": _phrase(case.status),
                "proto_major": 1,
                "proto_minor": 1,
                "timestamp": case.at + timedelta(seconds=case.seconds),
            },
            "objects": [],
            "assertions": {"noise": _noise(case.answer)},
            "created": int(case.at.timestamp()),
        },
    }


def _metadata(config: Config, case: Case) -> dict[str, str]:
    """Say whose answer it is. Keploy reads the description only, and keeps the others."""
    words = [f"{config.namespace}/{config.name} {config.model} {config.version}"]
    for what, message in (("request", case.request), ("answer", case.answer)):
        if message.left_out:
            words.append(f"the {what}'s body is left out: {message.left_out}")
    return {
        "description": "; ".join(words),
        "model": config.model,
        "version": config.version,
        "revision": config.revision,
    }


def _headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by their names as Go writes them: Content-Type."""
    joined: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = "-".join(part.capitalize() for part in raw_name.decode("latin-1").split("-"))
        value = raw_value.decode("latin-1")
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _body(message: Message) -> str | bytes:
    try:
        return message.body.decode()
    except UnicodeDecodeError:
        return message.body


def _skipped(message: Message) -> dict[str, Any]:
    return {"body_skipped": True, "body_size": message.size} if message.left_out else {}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _noise(answer: Message) -> dict[str, list[str]]:
    """Name what another answer need not have alike: its time, and what is masked here.

    Keploy's names are of the header, or of the way to a field without indexes (its ``Flatten``).
    """
    names = ["header.Date"]
    masked = [header for header in answer.headers if header[1] == HIDDEN.encode()]
    names += [f"header.{name}" for name in _headers(masked)]
    fields = _hidden(answer.body)
    if fields:
        names += ["header.Content-Length", *fields]
    return {name: [] for name in names}


def _hidden(body: bytes) -> list[str]:
    """Return the names of the fields of a JSON body that are masked."""
    try:
        value = msgspec.json.decode(body) if HIDDEN.encode() in body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    found: dict[str, None] = {}
    stack = [("body", value)]
    while stack:
        name, value = stack.pop()
        if value == HIDDEN:
            found[name] = None
        elif isinstance(value, dict):
            stack += [(f"{name}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            stack += [(name, inner) for inner in value]
    return list(found)
