"""Cloud Storage beside the emulator: no web page reads it, and each object can be written once a second."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from emulator_support.process import PATIENCE, QUICK, EmulatorProcess, until
from vertex_ray_emulator.companions.storage_guard import WRITE_INTERVAL, WriteLimits, written_object

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    arguments = [*QUICK, "--with", "storage"]
    with EmulatorProcess(tmp_path_factory.mktemp("storage"), arguments) as process:
        call(process, "POST", "/storage/v1/b?project=p", {"name": "bucket"})
        yield process


def call(
    emulator: EmulatorProcess, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    kinds = {} if isinstance(body, bytes) else {"Content-Type": "application/json"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    address = emulator.env["STORAGE_EMULATOR_HOST"] + path
    request = urllib.request.Request(address, data, {**kinds, **named}, method=method)
    try:
        with OPENER.open(request, timeout=PATIENCE) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_web_pages_are_refused(google: EmulatorProcess) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert call(google, "GET", "/storage/v1/b/bucket/o", **headers)[0] == 403
    status, headers, _ = call(google, "GET", "/storage/v1/b/bucket/o")
    assert status == 200
    assert [name for name in headers if name.lower().startswith("access-control")] == []


def upload(name: str) -> str:
    return f"/upload/storage/v1/b/bucket/o?uploadType=media&name={urllib.parse.quote(name, safe='')}"


def within_the_interval(attempt: Callable[[str], Any]) -> Any:
    """Return the result of an attempt that took less than the interval; each attempt gets the name of a new object."""

    def quick() -> list[Any]:
        began = time.monotonic()
        found = attempt(f"a/{secrets.token_hex(8)}")
        return [found] if time.monotonic() - began < WRITE_INTERVAL else []

    return until(quick, "every attempt takes too long")[0]


def test_second_write_within_a_second_is_refused(google: EmulatorProcess) -> None:
    def write(name: str) -> tuple[str, Any]:
        path = f"/storage/v1/b/bucket/o/{urllib.parse.quote(name, safe='')}"
        first = call(google, "POST", upload(name), b"1")
        second = call(google, "POST", upload(name), b"2")
        deleted = call(google, "DELETE", path)
        other = call(google, "POST", upload(f"{name}-other"), b"1")
        return path, (first[0], second, deleted[0], other[0])

    path, (first, (status, _, body), deleted, other) = within_the_interval(write)
    assert (first, status, deleted, other) == (200, 429, 429, 200)
    assert json.loads(body)["error"]["errors"][0]["reason"] == "rateLimitExceeded"
    assert call(google, "GET", f"{path}?alt=media")[2] == b"1"


def test_write_that_fails_does_not_count(google: EmulatorProcess) -> None:
    assert call(google, "POST", upload("in-no-bucket").replace("/b/bucket/", "/b/none/"), b"1")[0] == 404

    def write(name: str) -> list[int]:
        boundary = "part"
        metadata = json.dumps({"name": name, "bucket": "bucket"})
        parts = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{metadata}\r\n"
        parts += f"--{boundary}\r\nContent-Type: text/plain\r\n\r\ntext\r\n--{boundary}--\r\n"
        kind = f"multipart/related; boundary={boundary}"
        path = "/upload/storage/v1/b/bucket/o?uploadType=multipart&ifGenerationMatch="
        generations = (7, 0, 0)
        return [call(google, "POST", f"{path}{g}", parts.encode(), Content_Type=kind)[0] for g in generations]

    assert within_the_interval(write) == [412, 200, 429]


def test_unmodified_client_of_cloud_storage_works(google: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.env["STORAGE_EMULATOR_HOST"])
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    bucket = storage.Client(project="p", credentials=AnonymousCredentials()).create_bucket("of-client")
    large = bytes(range(256)) * (40 * 1024)
    # In several requests: a resumable upload goes on at the address in the first answer.
    bucket.blob("large", chunk_size=256 * 1024 * 16).upload_from_string(large)
    bucket.blob("small").upload_from_string("text")
    assert bucket.blob("large").download_as_bytes() == large
    assert bucket.blob("small").download_as_text() == "text"
    assert [blob.name for blob in bucket.list_blobs()] == ["large", "small"]


def test_writes_are_not_limited_without_the_trait(tmp_path_factory: pytest.TempPathFactory) -> None:
    arguments = [*QUICK, "--with", "storage", "--without", "storage-writes"]
    with EmulatorProcess(tmp_path_factory.mktemp("storage"), arguments) as process:
        call(process, "POST", "/storage/v1/b?project=p", {"name": "bucket"})
        assert [call(process, "POST", upload("x"), b"1")[0] for _ in range(3)] == [200, 200, 200]


def test_limits_are_those_of_each_object() -> None:
    now = [100.0]
    limits = WriteLimits(lambda: now[0])
    assert limits.admit("b/x")
    assert limits.admit("b/y")
    assert not limits.admit("b/x")
    now[0] += WRITE_INTERVAL
    assert limits.admit("b/x")
    limits.forget("b/x")
    assert limits.admit("b/x")


@pytest.mark.parametrize(
    ("method", "path", "query", "start", "written"),
    [
        ("POST", "/upload/storage/v1/b/b/o", {"name": "a b"}, b"", "b/a b"),
        ("POST", "/resumable/upload/storage/v1/b/b/o", {"name": "x"}, b"", "b/x"),
        ("POST", "/upload/storage/v1/b/b/o", {}, b'--p\r\n\r\n{"x": 1, "name": "a\\"b"}', 'b/a"b'),
        ("POST", "/upload/storage/v1/b/b/o", {}, b"no name", None),
        ("DELETE", "/storage/v1/b/b/o/a%2Fb", {}, b"", "b/a/b"),
        ("PATCH", "/storage/v1/b/b/o/x", {}, b"", "b/x"),
        ("POST", "/storage/v1/b/b/o/x/rewriteTo/b/c/o/y", {}, b"", "c/y"),
        ("POST", "/storage/v1/b/b/o/x/copyTo/b/c/o/y", {}, b"", "c/y"),
        ("POST", "/storage/v1/b/b/o/x/compose", {}, b"", "b/x"),
        ("GET", "/storage/v1/b/b/o/x", {}, b"", None),
        ("POST", "/storage/v1/b", {}, b'{"name": "b"}', None),
        ("DELETE", "/storage/v1/b/b", {}, b"", None),
    ],
)
def test_objects_that_requests_write(
    method: str, path: str, query: dict[str, str], start: bytes, written: str | None
) -> None:
    assert written_object(method, path, query, start) == written
