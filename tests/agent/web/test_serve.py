"""``overnight serve`` over HTTP: pages, events, and the requests that it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import budgets
import pytest
from live_page import Growing, serving
from nights import write_night

from agent.cli.entry import main
from agent.rundir.directory import RunDirectory

pytest.importorskip("starlette")
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Growing:
    night = Growing(tmp_path_factory.mktemp("web"), "jun12", hostile=HOSTILE)
    night.grow(40)
    return night


@pytest.fixture(scope="module")
def address(night: Growing) -> Iterator[str]:
    with serving(night.path.parent) as found:
        yield found


def ask(address: str, path: str = "", **headers: str) -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(address.rstrip("/") + "/" + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=budgets.ANSWER_SECONDS) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def test_list_links_every_run(address: str) -> None:
    status, page, _ = ask(address)
    assert status == 200
    assert 'href="/run/jun12"' in page


def test_page_of_a_run_is_its_report(address: str) -> None:
    status, page, headers = ask(address, "run/jun12")
    assert status == 200
    assert 'id="attempts"' in page
    assert "connect-src 'self'" in page
    assert HOSTILE not in page
    assert headers["cache-control"] == "no-store"


def test_page_of_renamed_run_follows_its_folder(tmp_path: Path) -> None:
    write_night(tmp_path / "renamed", 3, tag="jun12")
    with serving(tmp_path) as found:
        assert 'data-tag="renamed"' in ask(found, "run/renamed")[1]


def test_page_follows_the_ledger(address: str, night: Growing) -> None:
    before = ask(address, "run/jun12")[1].count('<tr id="trial-')
    night.grow(30)
    assert ask(address, "run/jun12")[1].count('<tr id="trial-') > before


def test_live_part_shows_the_run_under_way(address: str, night: Growing) -> None:
    directory = RunDirectory(night.path.parent, "jun12")
    beat = {"time": 4e9, "phase": "training", "trial": 3, "loss": 3.25, "losses": [5.0, 4.0, 3.25], "progress": 0.5}
    with directory.lock():
        directory.progress.write_text(json.dumps({**beat, "note": HOSTILE}))
        status, part, _ = ask(address, "run/jun12/live")
    assert status == 200
    assert "trial 3: training" in part
    assert "3.2500" in part
    assert HOSTILE not in part


def test_event_names_the_run_that_grew(address: str, night: Growing) -> None:
    with urllib.request.urlopen(address + "events", timeout=budgets.ANSWER_SECONDS) as stream:
        assert stream.readline().startswith(b"retry:")
        data = (json.loads(line[5:]) for line in stream if line.startswith(b"data:"))
        before = next(data)
        assert f'data-stamp="{before["ledger"]}"' in ask(address, "run/jun12")[1]
        night.grow(3)
        after = next(data)
    assert after["tag"] == before["tag"] == "jun12"
    assert after["ledger"] != before["ledger"]


@pytest.mark.parametrize("path", ["run/none", "run/none/live", "run/..%2f..%2fetc", "ledger.jsonl"])
def test_unknown_path_is_not_found(path: str, address: str) -> None:
    assert ask(address, path)[0] == 404


def test_foreign_host_and_origin_are_refused(address: str) -> None:
    assert ask(address, Host="evil.example")[0] == 421
    assert ask(address, Origin="http://evil.example")[0] == 403
    assert ask(address, Origin=address.rstrip("/"))[0] == 200


def test_other_methods_are_refused(address: str) -> None:
    request = urllib.request.Request(address + "run/jun12", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request, timeout=budgets.ANSWER_SECONDS)


def test_token_is_asked_for(night: Growing) -> None:
    with serving(night.path.parent, "--token", "secret") as found:
        address = found.partition("?")[0]
        assert ask(address)[0] == 401
        assert ask(address, "?token=wrong")[0] == 401
        assert ask(address, Cookie="overnight_token=secret")[0] == 200
        assert "token" not in ask(address, Cookie="overnight_token=secret")[1]


def test_interrupt_ends_an_open_page_quietly(night: Growing) -> None:
    command = [sys.executable, "-m", "agent.cli", "serve", "--runs", str(night.path.parent), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(address + "events", timeout=budgets.ANSWER_SECONDS) as stream:
            stream.readline()
            process.send_signal(signal.SIGINT)
            err = process.communicate(timeout=budgets.PROGRAM_SECONDS)[1]
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "ERROR" not in err


def test_address_without_token_is_refused(night: Growing, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0", "--runs", str(night.path.parent)]) == 2
    assert "--token" in capsys.readouterr().err


def test_port_in_use_is_named(night: Growing, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = address.rstrip("/").rpartition(":")[2]
    assert main(["serve", "--port", port, "--runs", str(night.path.parent)]) == 2
    assert f"--port {port}" in capsys.readouterr().err
