"""Sessions with several open trials: several workers, and ideas that are asked for ahead."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from openai_server import Answer, OpenAIServer
from sessions import check_replay, check_whole, killed, refs_of, resume, start, state_of
from targets import TRAIN, git, make_bowl

from agent.errors import EnvironmentProblem, UsageError
from agent.judge.noise import noise_of
from agent.ledger.events import Event, Lost, Measured, RunStarted, name_of
from agent.ledger.journal import read
from agent.llm.sleep_mode import Sleeper
from agent.patch.apply import unified_diff
from agent.rundir.directory import RunDirectory
from agent.session.parts import asks_ahead
from agent.settings import Settings
from agent.workers.runtime import Workplace
from sandbox.process import ProcessSandbox
from sandbox.types import Device, SandboxBroken

STILL = TRAIN.replace("+ noise:", ":")  # without noise
APART = STILL.replace("DEPTH = 4", "\n\n# layers\n\n\nDEPTH = 4")  # edits of RATE and of DEPTH do not conflict
SLOW = APART.replace("\nnoise =", "import time\n\ntime.sleep(0.3)\nnoise =")
# An edit trains until both edits of a test are training.
WAITING = APART.replace(
    "\nnoise =",
    """
import pathlib
import time

if (RATE, DEPTH) != (0.01, 4):
    marks = pathlib.Path(MARKS)
    (marks / str(os.getpid())).touch()
    while len(list(marks.iterdir())) < 2:
        time.sleep(0.02)
noise =""",
)
BESIDE = {"workers": 2, "threads": 1, "budget": "5steps"}


def answer(old: str, new: str, subject: str, train: str = SLOW) -> Answer:
    """A reply that edits the target."""
    assert old in train
    diff = unified_diff(train, train.replace(old, new), "train.py")
    return Answer(text=f"Category: optimiser\nSubject: {subject}\nRationale: It may help.\n\n```diff\n{diff}```\n")


def most_at_once(events: list[Event]) -> int:
    """The largest number of runs at the same time."""
    running, most = 0, 0
    for event in events:
        running += isinstance(event, RunStarted)
        running -= isinstance(event, Measured | Lost)
        most = max(most, running)
    return most


def test_three_workers_share_a_session(tmp_path: Path) -> None:
    nap = "import time\n\ntime.sleep(int(os.environ['OVERNIGHT_SEED']) % 7 / 20)\n"
    uneven = TRAIN.replace("\nnoise =", f"{nap}noise =")
    target = make_bowl(tmp_path / "target", uneven)
    settings: dict[str, Any] = {**BESIDE, "workers": 3, "trials": 8, "seed": 1, "policy": "greedy"}
    directory = start(target, tmp_path / "runs", **settings)
    check_whole(directory, target, 8)
    check_replay(directory, target, settings)
    events = read(directory.ledger)
    assert most_at_once(events) == 3
    state = state_of(directory)
    assert state.kept
    assert state.ended == "all 8 trials done"


Edit = tuple[str, str, str]  # old text, new text, subject


def two_edits(tmp_path: Path, first: Edit, second: Edit, **settings: Any) -> tuple[RunDirectory, Path]:
    """A session of two trials. Each waits for the other, so both stand on the baseline."""
    marks = tmp_path / "marks"
    marks.mkdir()
    train = WAITING.replace("MARKS", repr(str(marks)))
    target = make_bowl(tmp_path / "target", train)
    with OpenAIServer([answer(*edit, train) for edit in (first, second)]) as server:
        directory = start(
            target, tmp_path / "runs", proposer="code", trials=2, policy="greedy", calibrate=1,
            llm_base_url=server.base_url, **{**BESIDE, **settings},
        )  # fmt: skip
    return directory, target


def test_gain_over_older_head_is_measured_again(tmp_path: Path) -> None:
    directory, target = two_edits(
        tmp_path, ("RATE = 0.01", "RATE = 0.1", "Raise the rate"), ("DEPTH = 4", "DEPTH = 6", "Go deeper")
    )
    check_whole(directory, target, 2)
    state = state_of(directory)
    assert most_at_once(read(directory.ledger)) == 2
    late = next(r for r in state.records if r.revision)
    assert [len(late.superseded), len(late.runs), late.decision] == [1, 1, "keep"]
    assert {late.values[0], late.superseded[0].value} == {3.0, 3.05 if "deeper" in late.proposal.subject else 3.008}
    assert refs_of(target)[f"{late.number:04d}"] != refs_of(target)[f"{late.number:04d}.r1"]
    merged = git(target, "show", "autoresearch/night:train.py")
    assert "RATE = 0.1 " in merged
    assert "DEPTH = 6 " in merged
    assert len(state.kept) == 2


def test_conflicting_edit_is_reverted_with_reason(tmp_path: Path) -> None:
    directory, target = two_edits(
        tmp_path, ("RATE = 0.01", "RATE = 0.1", "Raise"), ("RATE = 0.01", "RATE = 0.2", "Raise further")
    )
    check_whole(directory, target, 2)
    undone = next(r for r in state_of(directory).records if r.decision == "revert" or not r.accepted)
    assert undone.verdict is not None
    assert "kept meanwhile" in undone.verdict.reason or "not better" in undone.verdict.reason
    assert len(state_of(directory).kept) == 1


def test_loss_against_older_head_is_not_repeated(tmp_path: Path) -> None:
    directory, target = two_edits(
        tmp_path, ("RATE = 0.01", "RATE = 0.1", "Raise"), ("DEPTH = 4", "DEPTH = 1", "Go flat")
    )
    check_whole(directory, target, 2)
    state = state_of(directory)
    flat = next(r for r in state.records if r.proposal.subject == "Go flat")
    assert (flat.decision, flat.revision, len(flat.runs)) == ("revert", 0, 1)


def test_repeated_sigkills_with_two_workers_lose_nothing(tmp_path: Path) -> None:
    target, runs, left = make_bowl(tmp_path / "target"), tmp_path / "runs", [7]

    def soon(now: str, _event: str) -> bool:
        left[0] -= now == "after"
        return left[0] == 0

    settings = {**BESIDE, "seed": 1, "policy": "greedy", "trials": 4}
    assert killed(lambda: start(target, runs, **settings), soon)
    lives = 1
    while killed(lambda: resume(runs), soon):
        lives += 1
        assert lives < 60
    check_whole(RunDirectory(runs, "night"), target, 4)
    check_replay(RunDirectory(runs, "night"), target, settings)


def test_runs_lost_on_one_worker_are_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, started, lock = ProcessSandbox.start, [], threading.Lock()

    def flaky(self, job):  # type: ignore[no-untyped-def]
        with lock:
            started.append(job)
            broken = len(started) % 3 == 0
        if broken:
            raise SandboxBroken("the daemon went away")
        return real(self, job)

    monkeypatch.setattr(ProcessSandbox, "start", flaky)
    target = make_bowl(tmp_path / "target")
    directory = start(target, tmp_path / "runs", **BESIDE, trials=4)
    check_whole(directory, target, 4)
    assert state_of(directory).lost > 0


def test_one_broken_worker_does_not_end_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken worker loses many runs while the other worker trains."""
    real = ProcessSandbox.start

    def half(self, job):  # type: ignore[no-untyped-def]
        if job.env["OVERNIGHT_THREADS"] == "2":
            raise SandboxBroken("the daemon went away")
        return real(self, job)

    monkeypatch.setattr(Workplace, "_devices", lambda self, _workers: [Device("cpu", threads=k) for k in (1, 2)])
    monkeypatch.setattr(ProcessSandbox, "start", half)
    target = make_bowl(tmp_path / "target", SLOW)
    directory = start(target, tmp_path / "runs", **BESIDE, trials=3, policy="greedy", calibrate=1)
    check_whole(directory, target, 3)
    assert 0 < state_of(directory).lost <= 6


def test_each_device_type_has_its_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values on the second device are 0.2 worse, which is far more than the noise."""
    two = (Device("cpu", threads=1, model="quick"), Device("cpu", threads=2, model="slow"))
    monkeypatch.setattr(Workplace, "_devices", lambda self, workers: list(two[:workers]))
    uneven = TRAIN.replace("return 3.0", "return 3.0 + 0.2 * (os.environ['OVERNIGHT_THREADS'] == '2')")
    nap = "import time\n\ntime.sleep(0.3)\n"
    target = make_bowl(tmp_path / "target", uneven.replace("\nnoise =", f"{nap}noise ="))
    directory = start(target, tmp_path / "runs", **BESIDE, trials=4, seed=1, policy="confirm", calibrate=3)
    check_whole(directory, target, 4)
    state = state_of(directory)
    baseline = [run for run in state.baseline_runs if run.role == "calibrate"]
    assert sorted(run.device_type for run in baseline) == ["quick"] * 3 + ["slow"] * 3
    assert all((run.value > 3.15) == (run.device_type == "slow") for run in baseline if run.value)
    assert {run.device_type for record in state.records for run in record.runs} == {"quick", "slow"}
    for record in state.records:
        assert len({run.device_type for run in (*record.superseded, *record.runs)}) == 1, "a trial ran on two types"
        if record.verdict and record.verdict.gain is not None:
            assert abs(record.verdict.gain) < 0.15, "compared across types"
    noise = noise_of(state)
    assert noise.sd is not None
    assert noise.sd < 0.01


def test_too_many_workers_is_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--workers 2"):
        start(make_bowl(tmp_path / "target"), tmp_path / "runs", workers=2)
    with pytest.raises(UsageError, match="--workers 2"):
        start(make_bowl(tmp_path / "ray"), tmp_path / "runs", tag="ray", workers=2, ray_address="local")
    with pytest.raises(UsageError, match="--workers 0"):
        start(make_bowl(tmp_path / "other"), tmp_path / "runs", tag="other", workers=0)


# asking ahead


def test_ask_ahead_asks_during_training(tmp_path: Path) -> None:
    # each trial trains until the next idea has arrived
    trials = tmp_path / "runs" / "night" / "trials"
    wait = f"""
import pathlib
import time

number = {{(0.1, 4): 2, (0.1, 6): 3}}.get((RATE, DEPTH), 0)
while number and not pathlib.Path({str(trials)!r}, f"{{number:04d}}", "proposal.diff").exists():
    time.sleep(0.02)
noise ="""
    train = APART.replace("\nnoise =", wait)
    target = make_bowl(tmp_path / "target", train)
    ideas = [
        answer("RATE = 0.01", "RATE = 0.1", "Raise the rate", train),
        answer("DEPTH = 4", "DEPTH = 6", "Go deeper", train),
        answer("DEPTH = 4", "DEPTH = 7", "Go deeper still", train),
    ]
    with OpenAIServer(ideas) as server:
        directory = start(
            target, tmp_path / "runs", proposer="code", trials=3, policy="greedy", calibrate=1, ask_ahead="on",
            llm_base_url=server.base_url,
        )  # fmt: skip
    check_whole(directory, target, 3)
    events = read(directory.ledger)
    assert most_at_once(events) == 1
    kinds = [(name_of(e), getattr(e, "trial", None)) for e in events]
    assert kinds.index(("asked", 2)) < kinds.index(("judged", 1)) < kinds.index(("candidate", 2))
    state = state_of(directory)
    second = state.records[1]
    assert second.proposal.parent == state.baseline
    assert second.base == state.records[0].accepted, "an idea from before the keep was not rebased"
    assert (second.revision, len(second.runs), second.values) == (0, 1, (3.0,))
    assert "Raise the rate" in (directory.trial(2) / "prompt.md").read_text(), "the prompt lacks the open trial"
    third = state.records[2]
    assert third.decision == "revert"
    assert third.status == "patch_rejected"
    assert "trial 2, kept meanwhile, is in its way" in (third.verdict.reason if third.verdict else "")


def test_local_model_is_not_asked_ahead(tmp_path: Path) -> None:
    def decided(**settings: Any) -> bool:
        return asks_ahead(Settings(**{"proposer": "code", **settings}), None)

    assert not decided(llm_base_url="http://127.0.0.1:8000/v1")
    assert not decided(llm_base_url="http://localhost:8000/v1")
    assert not decided(llm_base_url="http://[::1]:8000/v1")
    assert decided(llm_base_url="http://gpu-7:8000/v1")
    assert not decided(llm_base_url="http://gpu-7:8000/v1", ask_ahead="off")
    assert decided(llm_base_url="http://127.0.0.1:8000/v1", ask_ahead="on")
    assert not decided(proposer="cma-es", llm_base_url="http://gpu-7:8000/v1", ask_ahead="on")
    with pytest.raises(UsageError, match="--ask-ahead"):
        asks_ahead(Settings(ask_ahead="on"), Sleeper("http://127.0.0.1:8000/v1"))


def test_model_failure_lets_running_trial_finish(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", SLOW)
    good = answer("RATE = 0.01", "RATE = 0.1", "Raise")
    with OpenAIServer([good], at_end=Answer(status=401)) as server, pytest.raises(EnvironmentProblem, match="API key"):
        start(
            target, tmp_path / "runs", proposer="code", trials=3, policy="greedy", calibrate=1, ask_ahead="on",
            llm_base_url=server.base_url,
        )  # fmt: skip
    state = state_of(RunDirectory(tmp_path / "runs", "night"))
    assert [r.decision for r in state.records] == ["keep"]
    assert 1 in state.observed
