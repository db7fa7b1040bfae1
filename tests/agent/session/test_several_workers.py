"""Sessions with several trials open: workers beside each other, and ideas that are asked for ahead."""

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

STILL = TRAIN.replace("+ noise:", ":")  # the same value whatever the seed
APART = STILL.replace("DEPTH = 4", "\n\n# how deep it is\n\n\nDEPTH = 4")  # so that two edits do not meet
SLOW = APART.replace("\nnoise =", "import time\n\ntime.sleep(1.0)\nnoise =")
BESIDE = {"workers": 2, "threads": 1, "budget": "5steps"}


def answer(old: str, new: str, subject: str, train: str = SLOW) -> Answer:
    """A model's reply that edits the target."""
    assert old in train
    diff = unified_diff(train, train.replace(old, new), "train.py")
    return Answer(text=f"Category: optimiser\nSubject: {subject}\nRationale: It may help.\n\n```diff\n{diff}```\n")


def most_at_once(events: list[Event]) -> int:
    """The greatest number of runs under way at the same time."""
    running, most = 0, 0
    for event in events:
        running += isinstance(event, RunStarted)
        running -= isinstance(event, Measured | Lost)
        most = max(most, running)
    return most


def test_a_night_on_three_workers(tmp_path: Path) -> None:
    nap = "import time\n\ntime.sleep(int(os.environ['OVERNIGHT_SEED']) % 7 / 20)\n"
    uneven = TRAIN.replace("\nnoise =", f"{nap}noise =")
    target = make_bowl(tmp_path / "target", uneven)
    settings: dict[str, Any] = {**BESIDE, "workers": 3, "trials": 12, "seed": 1, "policy": "greedy"}
    directory = start(target, tmp_path / "runs", **settings)
    check_whole(directory, target, 12)
    check_replay(directory, target, settings)
    events = read(directory.ledger)
    assert most_at_once(events) == 3
    state = state_of(directory)
    assert state.kept
    assert state.ended == "all 12 trials done"


def two_edits(tmp_path: Path, first: Answer, second: Answer, **settings: Any) -> tuple[RunDirectory, Path]:
    """A night of two trials that run beside each other, each on top of the baseline."""
    target = make_bowl(tmp_path / "target", SLOW)
    with OpenAIServer([first, second]) as server:
        directory = start(
            target, tmp_path / "runs", proposer="code", trials=2, policy="greedy", calibrate=1,
            llm_base_url=server.base_url, **{**BESIDE, **settings},
        )  # fmt: skip
    return directory, target


def test_a_gain_over_an_older_branch_is_measured_again_on_top_of_the_new_one(tmp_path: Path) -> None:
    directory, target = two_edits(
        tmp_path, answer("RATE = 0.01", "RATE = 0.1", "Raise the rate"), answer("DEPTH = 4", "DEPTH = 6", "Go deeper")
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


def test_what_has_no_place_on_the_new_branch_is_undone_with_the_reason(tmp_path: Path) -> None:
    directory, target = two_edits(
        tmp_path, answer("RATE = 0.01", "RATE = 0.1", "Raise"), answer("RATE = 0.01", "RATE = 0.2", "Raise further")
    )
    check_whole(directory, target, 2)
    undone = next(r for r in state_of(directory).records if r.decision == "revert" or not r.accepted)
    assert undone.verdict is not None
    assert "kept meanwhile" in undone.verdict.reason or "not better" in undone.verdict.reason
    assert len(state_of(directory).kept) == 1


def test_a_loss_is_a_loss_whatever_the_branch_has_become(tmp_path: Path) -> None:
    directory, target = two_edits(
        tmp_path, answer("RATE = 0.01", "RATE = 0.1", "Raise"), answer("DEPTH = 4", "DEPTH = 1", "Go flat")
    )
    check_whole(directory, target, 2)
    state = state_of(directory)
    flat = next(r for r in state.records if r.proposal.subject == "Go flat")
    assert (flat.decision, flat.revision, len(flat.runs)) == ("revert", 0, 1)


def test_killed_again_and_again_with_two_workers(tmp_path: Path) -> None:
    target, runs, left = make_bowl(tmp_path / "target"), tmp_path / "runs", [7]

    def soon(now: str, _event: str) -> bool:
        left[0] -= now == "after"
        return left[0] == 0

    settings = {**BESIDE, "seed": 1, "policy": "greedy", "trials": 5}
    assert killed(lambda: start(target, runs, **settings), soon)
    lives = 1
    while killed(lambda: resume(runs), soon):
        lives += 1
        assert lives < 60
    check_whole(RunDirectory(runs, "night"), target, 5)
    check_replay(RunDirectory(runs, "night"), target, settings)


def test_a_worker_that_breaks_costs_no_idea(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_worker_that_stays_broken_does_not_end_the_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loses its runs in no time, many in a row, while the other is at work."""
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


def test_each_type_of_device_has_its_own_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values on the second device are 0.2 worse, far more than the noise: what is compared has to be of one type."""
    two = (Device("cpu", threads=1, model="quick"), Device("cpu", threads=2, model="slow"))
    monkeypatch.setattr(Workplace, "_devices", lambda self, workers: list(two[:workers]))
    uneven = TRAIN.replace("return 3.0", "return 3.0 + 0.2 * (os.environ['OVERNIGHT_THREADS'] == '2')")
    nap = "import time\n\ntime.sleep(0.3)\n"
    target = make_bowl(tmp_path / "target", uneven.replace("\nnoise =", f"{nap}noise ="))
    directory = start(target, tmp_path / "runs", **BESIDE, trials=8, seed=1, policy="confirm", calibrate=3)
    check_whole(directory, target, 8)
    state = state_of(directory)
    baseline = [run for run in state.baseline_runs if run.role == "calibrate"]
    assert sorted(run.device_type for run in baseline) == ["quick"] * 3 + ["slow"] * 3
    assert all((run.value > 3.15) == (run.device_type == "slow") for run in baseline if run.value)
    assert {run.device_type for record in state.records for run in record.runs} == {"quick", "slow"}
    for record in state.records:
        assert len({run.device_type for run in (*record.superseded, *record.runs)}) == 1, "a trial stays where it began"
        if record.verdict and record.verdict.gain is not None:
            assert abs(record.verdict.gain) < 0.15, "compared across types"
    noise = noise_of(state)
    assert noise.sd is not None
    assert noise.sd < 0.01


def test_more_workers_than_devices_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--workers 2: runs beside each other take each other's processor"):
        start(make_bowl(tmp_path / "target"), tmp_path / "runs", workers=2)
    with pytest.raises(UsageError, match="--workers 2: runs beside each other take each other's processor"):
        start(make_bowl(tmp_path / "ray"), tmp_path / "runs", tag="ray", workers=2, ray_address="local")
    with pytest.raises(UsageError, match="--workers 0: must be at least 1"):
        start(make_bowl(tmp_path / "other"), tmp_path / "runs", tag="other", workers=0)


# asking ahead


def test_the_next_idea_is_asked_for_while_a_trial_trains(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", SLOW)
    ideas = [
        answer("RATE = 0.01", "RATE = 0.1", "Raise the rate"),
        answer("DEPTH = 4", "DEPTH = 6", "Go deeper"),
        answer("DEPTH = 4", "DEPTH = 7", "Go deeper still"),
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
    assert second.base == state.records[0].accepted, "an idea from before the keep has to run on top of it"
    assert (second.revision, len(second.runs), second.values) == (0, 1, (3.0,))
    assert "Raise the rate" in (directory.trial(2) / "prompt.md").read_text(), "it has to know what runs now"
    third = state.records[2]
    assert third.decision == "revert"
    assert third.status == "patch_rejected"
    assert "trial 2, kept meanwhile, is in its way" in (third.verdict.reason if third.verdict else "")


def test_who_shares_the_device_is_not_asked_ahead(tmp_path: Path) -> None:
    def decided(**settings: Any) -> bool:
        return asks_ahead(Settings(**{"proposer": "code", **settings}), None)

    assert not decided(llm_base_url="http://127.0.0.1:8000/v1")
    assert not decided(llm_base_url="http://localhost:8000/v1")
    assert not decided(llm_base_url="http://[::1]:8000/v1")
    assert decided(llm_base_url="http://gpu-7:8000/v1")
    assert not decided(llm_base_url="http://gpu-7:8000/v1", ask_ahead="off")
    assert decided(llm_base_url="http://127.0.0.1:8000/v1", ask_ahead="on")
    assert not decided(proposer="cma-es", llm_base_url="http://gpu-7:8000/v1", ask_ahead="on")
    with pytest.raises(UsageError, match="--ask-ahead on: the model server sleeps"):
        asks_ahead(Settings(ask_ahead="on"), Sleeper("http://127.0.0.1:8000/v1"))


def test_a_model_that_fails_ends_the_night_after_the_running_trial(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", SLOW)
    good = answer("RATE = 0.01", "RATE = 0.1", "Raise")
    with OpenAIServer([good], at_end=Answer(status=401)) as server, pytest.raises(EnvironmentProblem, match="API key"):
        start(
            target, tmp_path / "runs", proposer="code", trials=3, policy="greedy", calibrate=1, ask_ahead="on",
            llm_base_url=server.base_url,
        )  # fmt: skip
    state = state_of(RunDirectory(tmp_path / "runs", "night"))
    assert [r.decision for r in state.records] == ["keep"]
    assert 1 in state.told
