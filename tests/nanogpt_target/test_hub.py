"""Downloads from a hub with broken connections, over HTTP on the loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nanogpt_target.corpus import DataError
from nanogpt_target.hub import download

DATA = {
    "a.txt": b"first " * 5000,
    "b.jsonl": b'{"text": "x"}\n' * 900,
    "notes.md": b"no text",
    "sub/c.txt": b"third " * 50,
}


class Hub(ThreadingHTTPServer):
    """A hub with the data set ``me/set``. ``breaks``: bytes after which the next answers end."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks: list[int | None] = []
        self.refusals: list[int] = []  # statuses of the next answers
        self.ranges: list[str] = []
        self.resumable = True
        self.lie: dict[str, Any] = {}
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        hub = self.server
        if hub.refusals:
            self.send_error(hub.refusals.pop(0))
        elif self.path.startswith("/api/datasets/me/set/"):
            self.answer(json.dumps([entry(name) | hub.lie for name in DATA]).encode())
        elif (name := self.path.removeprefix("/datasets/me/set/resolve/main/")) in DATA:
            wanted = self.headers.get("Range", "")
            hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if hub.resumable else 0
            self.answer(DATA[name][start:], 206 if start else 200, hub.breaks.pop(0) if hub.breaks else None)
        else:
            self.send_error(404)

    def answer(self, body: bytes, status: int = 200, most: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:most])
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


def entry(name: str) -> dict[str, Any]:
    digest = hashlib.sha256(DATA[name]).hexdigest()
    return {"type": "file", "path": name, "size": len(DATA[name]), "lfs": {"oid": digest}}


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(hub: Hub, folder: Path, *files: str) -> list[Path]:
    return download("me/set", files, folder, endpoint=hub.address, pause=0.001)


def test_complete_files_are_downloaded_once(hub: Hub, tmp_path: Path) -> None:
    places = fetch(hub, tmp_path)
    assert [p.name for p in places] == ["a.txt", "b.jsonl", "sub--c.txt"]
    assert [p.read_bytes() for p in places] == [DATA["a.txt"], DATA["b.jsonl"], DATA["sub/c.txt"]]
    fetched = len(hub.ranges)
    assert fetch(hub, tmp_path) == places
    assert len(hub.ranges) == fetched, "a complete file was downloaded again"


def test_interrupted_download_resumes(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [1000, 500, 0, 0, 7]
    (place,) = fetch(hub, tmp_path, "a.txt")
    assert place.read_bytes() == DATA["a.txt"]
    assert hub.ranges == ["", "bytes=1000-", "bytes=1500-", "bytes=1500-", "bytes=1500-", "bytes=1507-"]


def test_second_call_resumes_failed_download(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [1000] + [0] * 20
    with pytest.raises(DataError, match=r"1,000 of 30,000 bytes"):
        fetch(hub, tmp_path, "a.txt")
    hub.breaks, hub.ranges = [], []
    (place,) = fetch(hub, tmp_path, "a.txt")
    assert hub.ranges == ["bytes=1000-"]
    assert place.read_bytes() == DATA["a.txt"]


def test_download_restarts_without_range_support(hub: Hub, tmp_path: Path) -> None:
    hub.resumable = False
    hub.breaks = [1000]
    (place,) = fetch(hub, tmp_path, "a.txt")
    assert place.read_bytes() == DATA["a.txt"]


def test_busy_hub_is_retried(hub: Hub, tmp_path: Path) -> None:
    hub.refusals = [503, 500, 429]
    assert fetch(hub, tmp_path, "b.jsonl")[0].read_bytes() == DATA["b.jsonl"]


@pytest.mark.parametrize("lie", [{"lfs": {"oid": "0" * 64}}, {"size": 20_000, "lfs": None}])
def test_file_with_wrong_hash_is_deleted(hub: Hub, tmp_path: Path, lie: dict[str, Any]) -> None:
    hub.lie = lie
    with pytest.raises(DataError, match="size or hash"):
        fetch(hub, tmp_path, "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_missing_data_set_or_file_is_data_error(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'x\.txt'.*a\.txt, b\.jsonl"):
        fetch(hub, tmp_path, "x.txt")
    with pytest.raises(DataError, match="404"):
        download("me/other", (), tmp_path, endpoint=hub.address, pause=0.001)
    with pytest.raises(DataError, match="hub:owner/name"):
        download("set", (), tmp_path, endpoint=hub.address)


def test_path_outside_data_set_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.lie = {"path": "../evil.txt"}
    with pytest.raises(DataError, match="evil"):
        fetch(hub, tmp_path / "in")
    assert not (tmp_path / "evil.txt").exists()


def test_unreachable_hub_is_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="me/set"):
        download("me/set", (), tmp_path, endpoint="http://127.0.0.1:9", pause=0.0001)
