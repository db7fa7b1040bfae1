"""Notifications through Apprise to a real HTTP server."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import budgets
import pytest
from nights import write_night
from sessions import resume, start, state_of
from targets import TRAIN, make_bowl

from agent.errors import EnvironmentProblem, OvernightError, UsageError
from agent.ledger.events import Moved
from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.observers.notify import INTERVAL, VARIABLE, Notifier, addresses, apprise_sender, make_notifier

SECRET = "hunter2secret"
LIMIT = budgets.REQUEST_SECONDS


class Server:
    """Receives the posts of Apprise's json:// and answers with ``status``."""

    def __init__(self) -> None:
        self.status = 200
        self.messages: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                outer.messages.append({"auth": self.headers.get("Authorization"), **json.loads(data)})
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://user:{SECRET}@127.0.0.1:{self.http.server_port}/night?cto={LIMIT}&rto={LIMIT}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def titles(self) -> list[str]:
        return [str(message["title"]).removeprefix("overnight night: ") for message in self.messages]


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("apprise")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def addressed(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv(VARIABLE, server.url)
    return server


def test_end_and_new_best_are_sent(addressed: Server, tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    directory = start(target, tmp_path / "runs", notify="env", trials=10, seed=1, policy="greedy", calibrate=3)
    assert len(state_of(directory).kept) > 1
    assert addressed.titles == ["new best", "ended"], "one message for two bests within ten minutes"
    best, end = addressed.messages
    assert state_of(directory).kept[0].proposal.subject in best["message"]
    assert best["type"] == "info"
    assert "all 10 trials done" in end["message"]
    assert f"{len(state_of(directory).kept)} of 10 trials kept; val_bpb" in end["message"]
    assert end["type"] == "success"
    assert str(end["auth"]).startswith("Basic ")


def test_address_is_written_nowhere(addressed: Server, tmp_path: Path) -> None:
    addressed.status = 500
    target = make_bowl(tmp_path / "target", TRAIN + "print(dict(os.environ))\n")
    directory = start(target, tmp_path / "runs", notify="env", trials=2)
    assert addressed.messages
    assert VARIABLE not in os.environ
    for path in directory.path.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert "notify: a message (ended) was not delivered" in directory.log.read_text()
    assert directory.read_settings()["run"]["notify"] == "env"
    with pytest.raises(UsageError, match="OVERNIGHT_NOTIFY"):
        resume(tmp_path / "runs", trials=3)


def test_failed_session_sends_stopped(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = make_bowl(tmp_path / "target", TRAIN.replace("def value", "1 / 0\n\n\ndef value"))
    (tmp_path / "where.txt").write_text(f"# mine\n\n{server.url}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OvernightError, match="the unchanged target fails"):
        start(target, tmp_path / "runs", notify="where.txt")
    assert server.titles == ["stopped"]
    assert server.messages[0]["type"] == "failure"
    assert "ZeroDivisionError" in server.messages[0]["message"]
    assert str(tmp_path / "where.txt") in (tmp_path / "runs/night/run.toml").read_text()


def test_unreachable_service_does_not_stop_session(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"json://127.0.0.1:9/, {server.url}")
    start(make_bowl(tmp_path / "target"), tmp_path / "runs", notify="env", trials=1)
    assert server.titles[-1] == "ended"


class Outbox:
    """Receives a Notifier's messages and sets its clock."""

    def __init__(self, patience: float = 600.0) -> None:
        self.now = 0.0
        self.sent: list[tuple[str, str, str]] = []
        self.notifier = Notifier(self.send, "night", patience, lambda: self.now)

    def send(self, kind: str, title: str, body: str) -> bool:
        self.sent.append((kind, title, body))
        return True

    @property
    def titles(self) -> list[str]:
        return [title.removeprefix("overnight night: ") for _, title, _ in self.sent]


def test_long_wait_for_model_sends_once() -> None:
    box = Outbox(patience=600)
    note = {"text": "waiting for the model server: connection refused"}
    with box.notifier as notifier:
        for box.now in (0.0, 300.0, 599.0):
            notifier.progress("note", note)
        notifier.event({"event": "asked", "trial": 1}, fold([]))  # the server answered
        for box.now in (1000.0, 1599.0, 1600.0, 1700.0, 9000.0):
            notifier.progress("note", note)
        notifier.progress("note", {"text": "the branch is checked out"})
    assert box.titles == ["stuck", "ended"]
    assert "connection refused" in box.sent[0][2]


def test_new_bests_are_sent_every_ten_minutes(tmp_path: Path) -> None:
    events = read(write_night(tmp_path / "run", trials=60, hostile="@everyone \x1b[31m") / "ledger.jsonl")
    moved = [event for event in events if isinstance(event, Moved)]
    assert len(moved) >= 3
    box = Outbox()
    with box.notifier as notifier:
        for event in moved:
            notifier.event(event, fold(events[: events.index(event) + 1]))
        box.now = INTERVAL
        notifier.progress("training", {"loss": 1.0})
        box.now = 10 * INTERVAL
        notifier.progress("training", {"loss": 1.0})
    assert box.titles == ["new best", "new best", "ended"]
    assert f"trial {moved[0].trial}:" in box.sent[0][2]
    assert f"trial {moved[-1].trial}:" in box.sent[1][2]
    assert not any(c in body for _, _, body in box.sent for c in "@\x1b")


def test_address_as_setting_is_refused() -> None:
    with pytest.raises(UsageError, match="--notify") as found:
        make_notifier(f"ntfy://{SECRET}@host/topic", "night", 10)
    assert SECRET not in str(found.value)


def test_missing_addresses_name_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("apprise")
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(UsageError, match=VARIABLE):
        addresses("env")
    with pytest.raises(UsageError, match=r"--notify .*empty"):
        addresses(str(tmp_path / "empty"))
    with pytest.raises(EnvironmentProblem, match=r"--notify .*none"):
        addresses(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="address 2 of 2") as found:
        apprise_sender(["json://localhost/", f"nonsense://{SECRET}"])
    assert SECRET not in str(found.value)
    assert make_notifier("", "night", 10) is None
