"""Downloads from a hub with broken connections, over HTTP on the loopback."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nanogpt_target.corpus import DataError
from nanogpt_target.hub import download

CHUNK = 10 << 20  # bytes that huggingface_hub writes at once
DATA = {
    "a.txt": b"first " * (CHUNK // 2),
    "b.jsonl": b'{"text": "x"}\n' * 900,
    "notes.md": b"no text",
    "sub/c.txt": b"third " * 50,
}


FILES = "/datasets/me/set/resolve/main/"


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
        elif (name := self.path.removeprefix(FILES)) in DATA:
            wanted = self.headers.get("Range", "")
            hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if hub.resumable else 0
            self.answer(DATA[name][start:], 206 if start else 200, hub.breaks.pop(0) if hub.breaks else None)
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.answer(DATA[self.path.removeprefix(FILES)], most=0)

    def answer(self, body: bytes, status: int = 200, most: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        self.wfile.write(body[:most])
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


def entry(name: str) -> dict[str, Any]:
    digest = hashlib.sha256(DATA[name]).hexdigest()
    lfs = {"oid": digest, "size": len(DATA[name]), "pointerSize": 100}
    return {"type": "file", "path": name, "oid": "1" * 40, "size": len(DATA[name]), "lfs": lfs}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses of huggingface_hub between attempts are seconds long."""
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(seconds / 100))


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
    return download("me/set", files, folder, endpoint=hub.address)


def test_complete_files_are_downloaded_once(hub: Hub, tmp_path: Path) -> None:
    places = fetch(hub, tmp_path)
    assert [p.name for p in places] == ["a.txt", "b.jsonl", "c.txt"]
    assert [p.read_bytes() for p in places] == [DATA["a.txt"], DATA["b.jsonl"], DATA["sub/c.txt"]]
    fetched = len(hub.ranges)
    assert fetch(hub, tmp_path) == places
    assert len(hub.ranges) == fetched, "a complete file was downloaded again"


def test_interrupted_download_resumes(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [CHUNK, CHUNK, 0]
    (place,) = fetch(hub, tmp_path, "a.txt")
    assert place.read_bytes() == DATA["a.txt"]
    assert hub.ranges == ["", f"bytes={CHUNK}-", f"bytes={2 * CHUNK}-", f"bytes={2 * CHUNK}-"]


def test_second_call_fetches_failed_file_only(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path, "b.jsonl")
    hub.breaks = [CHUNK] + [0] * 20
    with pytest.raises(DataError, match="me/set"):
        fetch(hub, tmp_path, "[ab].*")
    hub.breaks, hub.ranges = [], []
    assert fetch(hub, tmp_path, "[ab].*")[0].read_bytes() == DATA["a.txt"]
    assert hub.ranges == [""]


def test_download_restarts_without_range_support(hub: Hub, tmp_path: Path) -> None:
    hub.resumable = False
    hub.breaks = [CHUNK]
    (place,) = fetch(hub, tmp_path, "a.txt")
    assert place.read_bytes() == DATA["a.txt"]


def test_busy_hub_is_retried(hub: Hub, tmp_path: Path) -> None:
    hub.refusals = [503, 500, 429]
    assert fetch(hub, tmp_path, "b.jsonl")[0].read_bytes() == DATA["b.jsonl"]


@pytest.mark.parametrize(
    "lie", [{"lfs": {"oid": "0" * 64, "size": 1, "pointerSize": 1}}, {"size": 50 << 20, "lfs": None}]
)
def test_file_with_wrong_hash_is_deleted(hub: Hub, tmp_path: Path, lie: dict[str, Any]) -> None:
    hub.lie = lie
    with pytest.raises(DataError, match="size or hash"):
        fetch(hub, tmp_path, "a.txt")
    assert not (tmp_path / "a.txt").exists()


def test_missing_data_set_or_file_is_data_error(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'x\.txt'.*a\.txt, b\.jsonl"):
        fetch(hub, tmp_path, "x.txt")
    with pytest.raises(DataError, match="404"):
        download("me/other", (), tmp_path, endpoint=hub.address)
    with pytest.raises(DataError, match="hub:owner/name"):
        download("set", (), tmp_path, endpoint=hub.address)


def test_path_outside_data_set_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.lie = {"path": "../evil.txt"}
    with pytest.raises(DataError, match="evil"):
        fetch(hub, tmp_path / "in")
    assert not (tmp_path / "evil.txt").exists()


def test_unreachable_hub_is_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="me/set"):
        download("me/set", (), tmp_path, endpoint="http://127.0.0.1:9")
