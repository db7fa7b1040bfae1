"""Trackers read back after real sessions: an MLflow server on the loopback, the local files of wandb and trackio."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import budgets
import pytest
from conftest import Overnight, missing, stop_group, wait_until_healthy
from ports import free_port
from sessions import state_of
from targets import make_bowl

from agent.observers.trackers.entries import about
from agent.rundir.directory import RunDirectory

# A program of its own: each library keeps one folder for its whole process.
READ_TRACKIO = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage as S
names = [record["name"] for record in S.get_run_records("overnight")]
print(json.dumps({n: {"config": S.get_run_config("overnight", n), "logs": S.get_logs("overnight", n)} for n in names}))
"""


@pytest.fixture
def parts() -> None:
    for name in ("wandb", "trackio", "flask"):
        if importlib.util.find_spec(name) is None:
            missing(f"no package {name}")


@pytest.fixture
def server(parts: None, tmp_path: Path) -> Iterator[str]:
    """The address of a server with an empty database."""
    port, log = free_port(), tmp_path / "server.log"
    words = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "kept"),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *words],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=tmp_path,
        )  # fmt: skip
    try:
        wait_until_healthy(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop_group(process)


def session(overnight: Overnight, folder: Path, *words: str) -> RunDirectory:
    target = make_bowl(folder / "target")
    common = ("--target", target, "--runs", folder / "runs", "--sandbox", "process", "--policy", "greedy")
    overnight("run", *common, "--tag", "night", "--proposer", "cma-es", "--trials", "2", *words,
              seconds=budgets.SESSION_SECONDS)  # fmt: skip
    overnight("resume", "night", "--runs", folder / "runs", "--trials", "3", seconds=budgets.SESSION_SECONDS)
    overnight("export", "night", "--runs", folder / "runs", *words)  # adds what did not arrive in time
    return RunDirectory(folder / "runs", "night")


def test_mlflow_server_holds_a_resumed_session(server: str, overnight: Overnight, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    directory = session(overnight, tmp_path, "--track", f"mlflow:{server}")
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("overnight")
    assert experiment is not None
    runs = {run.data.tags["overnight.trial"]: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["0", "1", "2", "3", "session"]
    parent = runs["session"].info.run_id
    assert [m.step for m in client.get_metric_history(parent, "trials")] == [0, 1, 2, 3]
    for record in state_of(directory).finished:
        run = runs[str(record.number)]
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert record.verdict is not None
        assert run.data.metrics["value"] == pytest.approx(record.verdict.value)
        place = client.download_artifacts(run.info.run_id, "edit.diff", str(tmp_path))
        assert Path(place).read_text() == record.proposal.diff


def test_wandb_and_trackio_hold_a_resumed_session(parts: None, overnight: Overnight, tmp_path: Path) -> None:
    directory = session(overnight, tmp_path, "--track", "wandb", "--track", "trackio")
    state = state_of(directory)
    id = about(state).id
    trials = {f"{id}-{number:04d}" for number in range(4)}

    trackio = read_trackio(tmp_path / "runs" / "trackio")
    assert trackio.keys() == trials | {id}
    assert [log["trials"] for log in trackio[id]["logs"]] == [0, 1, 2, 3]
    wandb = {
        read["id"]: read for read in map(read_wandb, (tmp_path / "runs" / "wandb" / "wandb").glob("offline-run-*"))
    }
    assert wandb.keys() == trials | {id}
    assert [row["trials"] for row in wandb[id]["rows"]] == [0, 1, 2, 3]
    for record in state.finished:
        name = f"{id}-{record.number:04d}"
        assert record.verdict is not None
        for config in (trackio[name]["config"], wandb[name]["config"]):
            assert config["decision"] == record.decision
            assert config["RATE"] == dict(record.proposal.params or {})["RATE"]
        assert trackio[name]["config"]["diff"] == wandb[name]["summary"]["diff"] == record.proposal.diff
        for values in (trackio[name]["logs"][-1], wandb[name]["summary"]):
            assert values["value"] == pytest.approx(record.verdict.value)
        assert (wandb[name]["group"], wandb[name]["project"]) == (id, "overnight")
    host = socket.gethostname().encode()
    for file in (tmp_path / "runs" / "wandb").rglob("*.wandb"):
        assert not re.search(rb"\b" + re.escape(host) + rb"\b", file.read_bytes()), "the name of this machine is sent"


def test_tracker_that_never_answers_ends_with_the_session(parts: None, overnight: Overnight, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)  # it accepts connections and sends nothing
        target = make_bowl(tmp_path / "target")
        place = f"mlflow:http://127.0.0.1:{listener.getsockname()[1]}"
        overnight("run", "--target", target, "--runs", tmp_path / "runs", "--tag", "night", "--sandbox", "process",
                  "--policy", "greedy", "--proposer", "cma-es", "--trials", "2", "--track", place,
                  seconds=budgets.SESSION_SECONDS)  # fmt: skip
        directory = RunDirectory(tmp_path / "runs", "night")
        assert "lacks 3 of 3 trials" in directory.log.read_text()
        assert not subprocess.run(["pgrep", "-f", str(directory.path)], capture_output=True, text=True).stdout


def read_trackio(place: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", READ_TRACKIO], env={"TRACKIO_DIR": str(place), "PATH": "", "HOME": str(place)},
        capture_output=True, text=True, timeout=budgets.PROGRAM_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def read_wandb(folder: Path) -> dict[str, Any]:
    """What the file of an offline run holds: records of LevelDB's log format, after seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    data, at, record = file.read_bytes(), 7, b""
    found: dict[str, Any] = {"rows": [], "config": {}, "summary": {}}
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # a header does not cross the end of a block
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record, at = record + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            message, record = Record.FromString(record), b""
            if message.HasField("run"):
                found |= {"id": message.run.run_id, "group": message.run.run_group, "project": message.run.project}
                found["config"] |= decoded(message.run.config.update)
            if message.HasField("history"):
                found["rows"].append(decoded(message.history.item))
            if message.HasField("summary"):
                found["summary"] |= decoded(message.summary.update)
    return found


def decoded(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
