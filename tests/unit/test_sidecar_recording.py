"""Recordings: what is kept, what is hidden, and that Keploy can read it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crossfade.sidecar.config import Config, Recording
from crossfade.sidecar.masks import MAX_BODY
from crossfade.sidecar.messages import Answer, Headers, Request
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.recording import OVERHEAD_BYTES, Recorder

NOW = datetime(2026, 3, 4, 5, 6, 7, 250_000, UTC)

JSON: Headers = ((b"content-type", b"application/json"),)

DOCUMENT = {"version": str, "kind": str, "name": str, "spec": dict}
SPEC = {
    "metadata": dict,
    "req": dict,
    "resp": dict,
    "objects": list,
    "assertions": dict,
    "created": int,
}
REQUEST = {
    "method": str,
    "proto_major": int,
    "proto_minor": int,
    "url": str,
    "header": dict,
    "body": (str, bytes),
    "timestamp": datetime,
}
RESPONSE = {
    "status_code": int,
    "header": dict,
    "body": (str, bytes),
    "status_message": str,
    "proto_major": int,
    "proto_minor": int,
    "timestamp": datetime,
}
SKIPPED = {"body_skipped": bool, "body_size": int}
"""Keploy's fields and their types, as pkg/models/http.go has them."""


def config(recording: Recording | None) -> Config:
    return Config(
        namespace="shop",
        name="ranker",
        model="forest",
        version="2",
        revision="abc12",
        port=8012,
        admin_port=8013,
        model_port=8080,
        recording=recording,
    )


def recorder(
    *,
    mask: tuple[str, ...] = (),
    mask_headers: tuple[str, ...] = (),
    keep: int = 500,
    max_bytes: int = 10**9,
    percent: float = 100,
    random: float = 0.5,
    directory: Path | None = None,
) -> Recorder:
    rules = Recording(
        mask=mask, mask_headers=mask_headers, keep=keep, max_bytes=max_bytes, percent=percent
    )
    told = config(rules)
    return Recorder(told, Metrics(told), lambda: random, lambda: NOW, directory)


def request(body: bytes = b'{"age": 41}', headers: Headers = JSON, target: str = "/p") -> Request:
    return Request("POST", target, headers, body)


def answer(body: bytes = b'{"score": 0.5}', headers: Headers = JSON, status: int = 200) -> Answer:
    return Answer(status, headers, body)


def exported(kept: Recorder) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(kept.export()))


def recorded(
    sent: Request | None = None, got: Answer | None = None, **rules: Any
) -> dict[str, Any]:
    """Return the spec of the one case."""
    kept = recorder(**rules)
    kept.record(sent or request(), got or answer(), 0.25)
    (case,) = exported(kept)
    spec: dict[str, Any] = case["spec"]
    return spec


def expect_fields(value: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    assert value.keys() == fields.keys()
    wrong = {name: value[name] for name, of in fields.items() if not isinstance(value[name], of)}
    assert wrong == {}


def test_a_case_is_what_keploy_reads() -> None:
    headers: Headers = ((b"host", b"ranker.shop"), *JSON, (b"accept", b"a"), (b"Accept", b"b"))
    kept = recorder()
    kept.record(request(headers=headers, target="/v2/models/m/infer?x=1"), answer(), 0.25)
    (case,) = exported(kept)
    expect_fields(case, DOCUMENT)
    expect_fields(case["spec"], SPEC)
    expect_fields(case["spec"]["req"], REQUEST)
    expect_fields(case["spec"]["resp"], RESPONSE)
    assert case == {
        "version": "api.keploy.io/v1beta1",
        "kind": "Http",
        "name": "test-1",
        "spec": {
            "metadata": {
                "description": "shop/ranker forest 2",
                "model": "forest",
                "version": "2",
                "revision": "abc12",
            },
            "req": {
                "method": "POST",
                "proto_major": 1,
                "proto_minor": 1,
                "url": "http://ranker.shop/v2/models/m/infer?x=1",
                "header": {
                    "Host": "ranker.shop",
                    "Content-Type": "application/json",
                    "Accept": "a,b",
                },
                "body": '{"age": 41}',
                "timestamp": NOW.replace(microsecond=0),
            },
            "resp": {
                "status_code": 200,
                "header": {"Content-Type": "application/json"},
                "body": '{"score": 0.5}',
                "status_message": "OK",
                "proto_major": 1,
                "proto_minor": 1,
                "timestamp": NOW,
            },
            "objects": [],
            "assertions": {"noise": {"header.Date": []}},
            "created": int(NOW.timestamp()),
        },
    }


def test_times_are_written_as_go_reads_them() -> None:
    kept = recorder()
    kept.record(request(), answer(), 0.25)
    text = kept.export().decode()
    assert "timestamp: 2026-03-04T05:06:07Z\n" in text
    assert "timestamp: 2026-03-04T05:06:07.250000Z\n" in text


def test_every_case_is_a_document_of_its_own() -> None:
    kept = recorder()
    for status in (200, 500, 799):
        kept.record(request(), answer(status=status), 0.1)
    cases = exported(kept)
    assert [case["name"] for case in cases] == ["test-1", "test-2", "test-3"]
    assert [case["spec"]["resp"]["status_message"] for case in cases] == [
        "OK",
        "Internal Server Error",
        "",
    ]
    assert kept.export().count(b"\n---\n") == 2


@given(body=st.binary() | st.text().map(str.encode), header=st.binary().map(bytes.strip))
def test_a_body_is_read_back_as_it_was_sent(body: bytes, header: bytes) -> None:
    spec = recorded(request(body, ((b"x-one", header),)), answer(body))
    for read in (spec["req"]["body"], spec["resp"]["body"]):
        assert (read.encode() if isinstance(read, str) else read) == body
    assert spec["req"]["header"]["X-One"].encode("latin-1") == header


def test_a_binary_body_is_base64() -> None:
    kept = recorder()
    kept.record(request(b"\xff\xfe\x00"), answer(), 0.1)
    assert b"body: !!binary" in kept.export()


def test_every_match_is_masked_in_request_and_answer() -> None:
    body = b'{"people": [{"name": "Ann", "age": 1}, {"name": {"first": "Bo"}}], "token": 5}'
    spec = recorded(request(body), answer(body), mask=("$.people[*].name", "$.token", "$.nothing"))
    masked = {"people": [{"name": "***", "age": 1}, {"name": "***"}], "token": "***"}
    assert json.loads(spec["req"]["body"]) == masked
    assert json.loads(spec["resp"]["body"]) == masked
    assert spec["assertions"]["noise"].keys() == {
        "header.Date",
        "body.people.name",
        "body.token",
        "header.Content-Length",
    }


@pytest.mark.parametrize("mask", ["$", "$..*", "$..a", "$..[?@.b]", "$.a[-1:0:-1]", "$['a','a']"])
def test_matches_within_matches_are_masked(mask: str) -> None:
    spec = recorded(request(b'{"a": [7, {"a": 7, "b": [7]}]}'), mask=(mask,))
    assert spec["metadata"]["description"] == "shop/ranker forest 2"
    assert "***" in spec["req"]["body"]


def test_the_whole_body_may_be_masked() -> None:
    spec = recorded(mask=("$",))
    assert (spec["req"]["body"], spec["resp"]["body"]) == ('"***"', '"***"')
    assert "body" in spec["assertions"]["noise"]


@given(
    value=st.recursive(
        st.integers(0, 99) | st.just("SECRET"),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["s", "t"]), inner)
        ),
        max_leaves=12,
    ),
)
def test_nothing_that_is_masked_is_exported(value: Any) -> None:
    body = json.dumps({"open": 1, "s": value}).encode()
    kept = recorder(mask=("$.s", "$..s"))
    kept.record(request(body), answer(body), 0.1)
    assert b"SECRET" not in kept.export()
    assert json.loads(exported(kept)[0]["spec"]["req"]["body"]) == {"open": 1, "s": "***"}


UNREADABLE = [
    b"SECRET",
    b'{"name": "SECRET"',
    b'{"name": "SECRET"} {}',
    b'{"name": {"SECRET": 1}, "name": {}}',
    b'{"name": "SECRET", "x": NaN}',
    b"\xff\xfeSECRET",
    b"\xef\xbb\xbf{}SECRET",
    b"name=SECRET",
    b'{"SECRET": ' + b"[" * 300 + b"]" * 300 + b"}",
]


@pytest.mark.parametrize("body", UNREADABLE)
def test_a_body_that_cannot_be_masked_is_left_out(body: bytes) -> None:
    kept = recorder(mask=("$.name",))
    kept.record(request(body), answer(body), 0.1)
    assert b"SECRET" not in kept.export()
    (case,) = exported(kept)
    spec = case["spec"]
    assert (spec["req"]["body"], spec["resp"]["body"]) == ("", "")
    assert spec["resp"]["body_skipped"] is True
    assert spec["resp"]["body_size"] == len(body)
    expect_fields(spec["resp"], {**RESPONSE, **SKIPPED})
    for what in ("request", "answer"):
        assert f"the {what}'s body is left out: it is no JSON" in spec["metadata"]["description"]


@pytest.mark.parametrize("body", UNREADABLE)
def test_without_masks_any_body_is_kept(body: bytes) -> None:
    read = recorded(request(body))["req"]["body"]
    assert (read.encode() if isinstance(read, str) else read) == body


def test_a_body_in_gzip_is_masked_and_kept_inflated() -> None:
    headers: Headers = (*JSON, (b"content-encoding", b"gzip"), (b"content-length", b"99"))
    packed = gzip.compress(b'{"name": "SECRET", "age": 3}')
    spec = recorded(request(packed, headers), mask=("$.name",))
    assert spec["req"]["body"] == '{"name":"***","age":3}'
    assert spec["req"]["header"] == {"Content-Type": "application/json", "Content-Length": "22"}


@pytest.mark.parametrize("body", [b"***", b'{"a": "***"', b'"\xff***"', b"[" * 5000 + b"***"])
def test_stars_in_a_body_that_is_no_json_are_no_masked_field(body: bytes) -> None:
    assert recorded(got=answer(body))["assertions"]["noise"].keys() == {"header.Date"}


def test_an_empty_body_has_nothing_to_mask() -> None:
    spec = recorded(Request("GET", "/", (), b""), mask=("$.name",))
    assert spec["req"]["body"] == ""
    assert spec["metadata"]["description"] == "shop/ranker forest 2"


def test_credentials_are_masked_and_the_headers_that_are_named() -> None:
    names = (b"Authorization", b"cookie", b"Proxy-Authorization", b"X-API-Key", b"x-Session")
    headers: Headers = (*((name, b"SECRET") for name in names), (b"x-other", b"open"))
    cookies: Headers = ((b"set-cookie", b"SECRET"), (b"set-cookie", b"SECRET2"))
    kept = recorder(mask_headers=("X-SESSION",))
    kept.record(request(headers=headers), answer(headers=cookies), 0.1)
    assert b"SECRET" not in kept.export()
    (case,) = exported(kept)
    assert case["spec"]["req"]["header"] == {
        "Authorization": "***",
        "Cookie": "***",
        "Proxy-Authorization": "***",
        "X-Api-Key": "***",
        "X-Session": "***",
        "X-Other": "open",
    }
    assert case["spec"]["assertions"]["noise"].keys() == {"header.Date", "header.Set-Cookie"}


def test_where_fields_are_masked_the_query_is() -> None:
    sent = request(target="/predict?name=SECRET")
    assert recorded(sent)["req"]["url"] == "http://localhost/predict?name=SECRET"
    assert recorded(sent, mask=("$.name",))["req"]["url"] == "http://localhost/predict?***"


def test_a_large_body_is_left_out() -> None:
    spec = recorded(request(b"a" * MAX_BODY), answer(b"a" * (MAX_BODY + 1)))
    assert len(spec["req"]["body"]) == MAX_BODY
    assert (spec["resp"]["body"], spec["resp"]["body_size"]) == ("", MAX_BODY + 1)


def test_the_newest_are_kept() -> None:
    kept = recorder(keep=3)
    for number in range(10):
        kept.record(request(str(number).encode()), answer(), 0.1)
    cases = exported(kept)
    assert [case["spec"]["req"]["body"] for case in cases] == ["7", "8", "9"]
    assert [case["name"] for case in cases] == ["test-8", "test-9", "test-10"]


def test_all_together_take_so_many_bytes() -> None:
    kept = recorder(max_bytes=10 * OVERHEAD_BYTES)
    for size in (6, 1, 1, 1):  # two kibibytes are every case's own
        kept.record(request(b"a" * size * OVERHEAD_BYTES), answer(b""), 0.1)
    assert [len(case["spec"]["req"]["body"]) for case in exported(kept)] == [OVERHEAD_BYTES] * 3


def test_a_case_that_is_too_large_alone_is_not_kept() -> None:
    kept = recorder(max_bytes=10)
    kept.record(request(), answer(), 0.1)
    assert exported(kept) == []
    kept.record(request(), answer(), 0.1)
    assert kept.export() == b""


@pytest.mark.parametrize(
    ("percent", "random", "wanted"),
    [(1, 0.0099, True), (1, 0.01, False), (100, 0.9999, True), (0, 0.0, False)],
)
def test_a_share_of_requests_is_recorded(percent: float, random: float, wanted: bool) -> None:
    assert recorder(percent=percent, random=random).wants() is wanted


def test_nothing_is_recorded_where_nobody_asks(tmp_path: Path) -> None:
    kept = Recorder(config(None), Metrics(config(None)), lambda: 0.0, lambda: NOW, tmp_path / "d")
    assert not kept.wants()
    kept.record(request(), answer(), 0.1)
    kept.save()
    assert kept.export() == b""
    assert not (tmp_path / "d").exists()


def test_a_mask_that_is_no_path_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="is no JSONPath"):
        recorder(mask=("name",))


def test_recordings_are_counted() -> None:
    told = config(Recording())
    metrics = Metrics(told)
    Recorder(told, metrics, lambda: 0.0, lambda: NOW).record(request(), answer(), 0.1)
    assert b"\ncrossfade_recorded_total 1.0\n" in metrics.render()


def test_a_restart_keeps_what_was_saved(tmp_path: Path) -> None:
    first = recorder(directory=tmp_path / "recordings")
    for body in (b"1", b"\xff", b"3"):
        first.record(request(body), answer(), 0.25)
    first.save()
    second = recorder(directory=tmp_path / "recordings")
    assert second.export() == first.export()
    second.record(request(b"4"), answer(), 0.1)
    assert [case["name"] for case in exported(second)] == ["test-1", "test-2", "test-3", "test-4"]


def test_the_directory_holds_what_the_ring_does(tmp_path: Path) -> None:
    kept = recorder(directory=tmp_path, keep=2)
    for number in range(5):
        kept.record(request(str(number).encode()), answer(), 0.1)
        kept.save()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "000000000004.json",
        "000000000005.json",
    ]
    smaller = recorder(directory=tmp_path, keep=1)
    smaller.save()
    assert [path.name for path in tmp_path.iterdir()] == ["000000000005.json"]


def test_what_is_masked_is_not_on_disk(tmp_path: Path) -> None:
    kept = recorder(directory=tmp_path, mask=("$.age",))
    kept.record(request(b'{"age": 41}'), answer(b'{"age": 41}'), 0.1)
    kept.save()
    loaded = recorder(directory=tmp_path)
    assert exported(loaded)[0]["spec"]["req"]["body"] == '{"age":"***"}'
    assert loaded.export() == kept.export()


def test_a_file_that_cannot_be_read_is_dropped(tmp_path: Path) -> None:
    kept = recorder(directory=tmp_path)
    kept.record(request(), answer(), 0.1)
    kept.save()
    (tmp_path / "000000000002.json").write_bytes(b'{"number": 2')
    (tmp_path / "000000000003.tmp").write_bytes(b"unfinished")
    loaded = recorder(directory=tmp_path)
    assert [case["name"] for case in exported(loaded)] == ["test-1"]
    assert not (tmp_path / "000000000002.json").exists()


def test_a_directory_that_cannot_be_written_costs_nothing_but_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    kept = recorder(directory=tmp_path / "file")
    kept.record(request(), answer(), 0.1)
    kept.save()
    assert "recordings are not saved" in caplog.text
    (tmp_path / "file").unlink()
    kept.save()
    assert recorder(directory=tmp_path / "file").export() == kept.export()
