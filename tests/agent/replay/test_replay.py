"""``overnight replay`` of runs, branches and ranges: resumed, exact, ablated, checked."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_target import Bench, start_badly
from openai_server import OpenAIServer
from sessions import killed, refs_of, start, state_of
from targets import TRAIN, git, make_bowl

from agent.cli import output
from agent.cli.entry import main
from agent.replay.steps import steps_of_branch, trailers
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory
from agent.target import load_target

Replayed = Callable[..., dict[str, Any]]
Refused = Callable[..., str]
GOOD = ("RATE = 0.01", "RATE = 0.1")  # gains 0.05, which is 25 standard deviations of a run
ALSO_GOOD = ("DEPTH = 4", "DEPTH = 6")  # gains 0.008
BAD = ("0.002)", "0.002) + 0.04")  # of the noise: 0.04 worse


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "target")


@pytest.fixture
def replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Replayed:
    """Run ``overnight replay --json`` and return what it prints."""

    def run(*words: str | Path, status: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        line = ["replay", *map(str, words), "--json", "--runs", str(tmp_path / "runs"), "--sandbox", "process"]
        found = main([*line, "--device", "cpu"])
        out, err = capsys.readouterr()
        assert found == status, err
        data: dict[str, Any] = json.loads(out)
        return data

    return run


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a replay that must fail, and return its message."""

    def run(*words: str | Path) -> str:
        capsys.readouterr()
        line = ["replay", *map(str, words), "--runs", str(tmp_path / "runs"), "--sandbox", "process"]
        found = main([*line, "--device", "cpu"])
        out, err = capsys.readouterr()
        assert (found, out) == (2, ""), err
        return err.splitlines()[-1]

    return run


def edit(target: Path, *changes: tuple[str, str], subject: str = "Edit") -> str:
    """Commit changes of train.py on the branch that is checked out."""
    text = (target / "train.py").read_text()
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (target / "train.py").write_text(text)
    git(target, "commit", "-qam", subject)
    return git(target, "rev-parse", "HEAD")


def outcomes(data: dict[str, Any]) -> list[str]:
    return [step["outcome"] for step in data["steps"]]


# --- runs with a ledger ---------------------------------------------------------------------------------------------


def test_replay_of_run_measures_every_kept_edit(
    target: Path, tmp_path: Path, replayed: Replayed, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = state_of(start(target, tmp_path / "runs", trials=14, policy="greedy", calibrate=3, seed=3))
    kept = recorded.kept
    assert len(kept) > 1
    head, status = git(target, "rev-parse", "HEAD"), git(target, "status", "--porcelain")
    data = replayed("night", "--seeds", "3")
    assert data["schema"] == "overnight.replay/1"
    assert data["complete"]
    assert [step["commit"] for step in data["steps"]] == [recorded.baseline, *(r.accepted for r in kept)]
    assert [step["trial"] for step in data["steps"][1:]] == [r.number for r in kept]
    assert [step["recorded"] for step in data["steps"][1:]] == [r.verdict.value for r in kept if r.verdict]
    assert all(step["runs"] == 3 for step in data["steps"])
    assert data["total"]["outcome"] == "reproduced"
    assert data["total"]["gain"] > 0.01
    assert data["noise_dof"] > 2 * len(data["steps"])
    assert (git(target, "rev-parse", "HEAD"), git(target, "status", "--porcelain")) == (head, status)
    assert str(kept[0].accepted)[:9] in (tmp_path / "runs" / "replay-night" / "replay.html").read_text()

    again = state_of(RunDirectory(tmp_path / "runs", "replay-night"))
    new = {run.seed for runs in again.runs.values() for run in runs}
    assert all({run.seed for run in runs} == new for runs in again.runs.values()), "all steps share the seeds"
    assert not new & {run.seed for runs in recorded.runs.values() for run in runs}, "seeds are fresh"

    assert main(["list", "--json", "--runs", str(tmp_path / "runs")]) == 0
    assert [run["tag"] for run in json.loads(capsys.readouterr().out)] == ["night"], "a replay is not a run"


def test_workers_give_the_same_values(target: Path, tmp_path: Path, replayed: Replayed) -> None:
    edit(target, GOOD)
    edit(target, ALSO_GOOD)
    words = ("main", "--target", target, "--seeds", "2", "--budget", "20steps")
    one = replayed(*words, "--name", "one")
    three = replayed(*words, "--name", "three", "--workers", "3")
    assert three["complete"]
    assert [(s["commit"], s["value"], s["runs"]) for s in three["steps"]] == [
        (s["commit"], s["value"], s["runs"]) for s in one["steps"]
    ]
    events = (json.loads(line)["event"] for line in (tmp_path / "runs/three/ledger.jsonl").read_text().splitlines())
    assert [name for name in events if name in ("run_started", "measured")][:2] == ["run_started"] * 2


@pytest.mark.parametrize("point", [1, 5])
def test_resume_after_sigkill_completes_replay(point: int, target: Path, tmp_path: Path, replayed: Replayed) -> None:
    edit(target, GOOD)
    edit(target, ALSO_GOOD)
    seen = 0

    def kill(when: str, what: str) -> bool:
        nonlocal seen
        seen += when == "before" and what == "measured"
        return seen == point

    words = ["replay", "HEAD~2..HEAD", "--target", str(target), "--runs", str(tmp_path / "runs"), "--seeds", "2"]
    assert killed(lambda: main([*words, "--sandbox", "process"]), kill)
    data = replayed("HEAD~2..HEAD", "--target", target, "--seeds", "2")
    assert data["complete"]
    assert [step["runs"] for step in data["steps"]] == [2, 2, 2]
    ledger = tmp_path / "runs" / "replay-HEAD-2-to-HEAD" / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    assert sum('"measured"' in line for line in lines) == 6
    again = replayed("HEAD~2..HEAD", "--target", target, "--seeds", "2")
    assert again["steps"] == data["steps"], "a complete replay is shown, not run again"


def test_ctrl_c_ends_replay_after_running_run(target: Path, tmp_path: Path, replayed: Replayed) -> None:
    edit(target, GOOD)
    words = ["replay", "HEAD~1..HEAD", "--target", str(target), "--runs", str(tmp_path / "runs"), "--seeds", "200"]
    line = [sys.executable, "-m", "agent.cli", *words, "--sandbox", "process", "--device", "cpu"]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    ledger = tmp_path / "runs" / "replay-HEAD-1-to-HEAD" / "ledger.jsonl"
    end = time.monotonic() + 120
    while not (ledger.exists() and b'"measured"' in ledger.read_bytes()):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert b'"lost"' not in ledger.read_bytes()


@pytest.mark.parametrize(("answer", "words", "status"), [("n\n", [], 130), ("\n", [], 0), ("n\n", ["--yes"], 0)])
def test_terminal_is_asked_unless_yes(
    answer: str, words: list[str], status: int, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    edit(target, GOOD)
    monkeypatch.setattr(output.sys, "stdin", Terminal(answer))
    monkeypatch.setattr(output.sys, "stderr", Terminal())
    line = ["replay", "main", "--target", str(target), "--runs", str(tmp_path / "runs"), "--sandbox", "process"]
    assert main([*line, "--seeds", "1", *words]) == status
    assert (tmp_path / "runs" / "replay-main").exists() == (status == 0)


# --- branches without a ledger --------------------------------------------------------------------------------------


def test_branch_is_replayed_from_its_fork(target: Path, replayed: Replayed) -> None:
    base = git(target, "rev-parse", "HEAD")
    git(target, "checkout", "-qb", "ideas")
    first = edit(target, GOOD, subject="Raise the rate")
    (target / "notes.txt").write_text("no edit of train.py")
    git(target, "add", "-A")
    git(target, "commit", "-qm", "Write notes")
    second = edit(target, BAD, subject="Make it worse")
    data = replayed("ideas", "--target", target)
    assert [step["commit"] for step in data["steps"]] == [base, first, second]
    assert outcomes(data) == ["baseline", "reproduced", "not reproduced"]
    assert [step["recorded"] for step in data["steps"]] == [None, None, None]
    assert data["reproduced"] is False


def test_recorded_values_come_from_results_file(target: Path, tmp_path: Path, replayed: Replayed) -> None:
    base = git(target, "rev-parse", "HEAD")
    commit = edit(target, GOOD)
    rows = [
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription",
        f"{base[:7]}\t3.058000\t1.0\tkeep\tbaseline",
        f"{commit[:7]}\t3.008000\t1.0\tkeep\trate",
        "abc\t0.0\t\tcrash\t",
    ]
    (tmp_path / "results.tsv").write_text("\n".join(rows))
    data = replayed(f"{base}..HEAD", "--target", target, "--results", tmp_path / "results.tsv", "--check")
    assert [step["recorded"] for step in data["steps"]] == [3.058, 3.008]
    assert data["steps"][1]["recorded_gain"] == pytest.approx(0.05)
    assert outcomes(data) == ["baseline", "reproduced"]
    assert data["reproduced"] is True


def test_trailers_suffice_for_cloned_branch(target: Path, tmp_path: Path, replayed: Replayed) -> None:
    state = state_of(start(target, tmp_path / "runs", trials=8, policy="greedy", seed=3))
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(target), str(clone))
    git(clone, "fetch", "-q", "origin", "autoresearch/night:autoresearch/night")
    shutil.rmtree(tmp_path / "runs")
    data = replayed("autoresearch/night", "--target", clone, "--seeds", "1")
    assert [step["commit"] for step in data["steps"]] == [state.baseline, *(r.accepted for r in state.kept)]
    values = [r.verdict.value for r in state.kept if r.verdict]
    assert [step["recorded"] for step in data["steps"][1:]] == pytest.approx(values, abs=1e-6)
    assert [step["trial"] for step in data["steps"][1:]] == [r.number for r in state.kept]


def test_failing_commit_is_run_once(target: Path, replayed: Replayed) -> None:
    edit(target, ("import random", "import random\nraise ValueError('broken')"))
    data = replayed("HEAD~1..HEAD", "--target", target, "--check", status=1)
    assert outcomes(data) == ["baseline", "not reproduced"]
    assert "ValueError: broken" in data["steps"][1]["reason"]


def test_gain_is_positive_for_maximised_metric(tmp_path: Path, replayed: Replayed) -> None:
    target = make_bowl(tmp_path / "target", TRAIN.replace("{value() + noise:.6f}", "{10 - value() + noise:.6f}"))
    toml = (target / "target.toml").read_text()
    (target / "target.toml").write_text(toml.replace('name = "bowl"', 'name = "bowl"\ngoal = "maximize"'))
    git(target, "commit", "-qam", "Maximize")
    edit(target, GOOD)
    data = replayed("HEAD~1..HEAD", "--target", target)
    assert outcomes(data) == ["baseline", "reproduced"]
    assert data["steps"][1]["gain"] == pytest.approx(0.05, abs=0.01)


def test_trailers_are_read_from_last_paragraph(target: Path) -> None:
    git(target, "commit", "-q", "--allow-empty", "-m", "Subject\n\nTrial: 3\n\nbody\n\nTrial: 7\nGain: 0.5")
    repo = Repo(target)
    assert trailers(repo.commit(repo.head())) == {"Trial": "7", "Gain": "0.5"}


def test_main_branch_starts_at_first_commit(target: Path) -> None:
    edit(target, GOOD)
    steps = steps_of_branch(Repo(target), load_target(target)[0], "main", {})
    assert [step.subject for step in steps] == ["baseline", "Edit"]


# --- ablation -------------------------------------------------------------------------------------------------------


def test_ablation_makes_branch_without_useless_edit(target: Path, replayed: Replayed) -> None:
    git(target, "checkout", "-qb", "ideas")
    edit(target, GOOD, subject="Raise the rate")
    edit(target, BAD, subject="Make it worse")
    edit(target, ALSO_GOOD, subject="Deepen")
    data = replayed("ideas", "--target", target, "--ablate")
    assert [a["need"] for a in data["ablations"]] == ["holds", "does not hold", "holds"]
    assert data["ablations"][0]["loss"] == pytest.approx(0.05, abs=0.01)
    assert data["minimal"]["made"]
    assert data["minimal"]["left_out"] == [2]
    assert data["minimal"]["gain"] == pytest.approx(0.04, abs=0.01)
    log = git(target, "log", "--format=%s", "main..autoresearch/ideas-minimal").splitlines()
    assert log == ["Deepen", "Raise the rate"]
    text = git(target, "show", "autoresearch/ideas-minimal:train.py")
    assert [word in text for word in ("RATE = 0.1", "DEPTH = 6", "+ 0.04")] == [True, True, False]
    assert git(target, "rev-parse", "--abbrev-ref", "HEAD") == "ideas"
    assert sorted(refs_of(target, "replay-ideas")) == sorted(
        ["1001", "1002", "1003", "2000", "refs/heads/autoresearch/ideas-minimal", "refs/heads/ideas", "refs/heads/main"]
    )


def test_edit_under_later_edit_stays(target: Path, replayed: Replayed) -> None:
    edit(target, ("RATE = 0.01", "RATE = 0.05"))
    edit(target, ("RATE = 0.05", "RATE = 0.1"))
    data = replayed("HEAD~2..HEAD", "--target", target, "--ablate", "--seeds", "2")
    assert data["ablations"][0]["need"] == "cannot be left out"
    assert data["ablations"][1]["commit"] == data["steps"][1]["commit"], "without the last edit: the commit before it"
    assert data["minimal"] is None


def test_existing_minimal_branch_is_not_moved(target: Path, refused: Refused) -> None:
    edit(target, GOOD)
    git(target, "branch", "autoresearch/main-minimal")
    assert "autoresearch/main-minimal" in refused("HEAD~1..main", "--target", target, "--ablate")


# --- exact ----------------------------------------------------------------------------------------------------------


def test_exact_compares_bits_and_names_differences(tmp_path: Path, replayed: Replayed) -> None:
    bench = Bench(tmp_path, changes={"steps = 12": "steps = 6"})
    runs = tmp_path / "runs"
    cache = str(tmp_path / "cache")
    with OpenAIServer([start_badly(bench.folder)]) as server:
        start(
            bench.folder, runs, proposer="code", policy="greedy", calibrate=1, trials=1, seed=1, threads=1, cache=cache,
            llm_base_url=server.base_url,
        )  # fmt: skip
    data = replayed("night", "--exact", "--cache", cache, "--check")
    assert outcomes(data) == ["reproduced"] * 2, "the baseline, and an edit that was kept"
    assert all(step["shift"] == 0 for step in data["steps"])
    ledger = runs / "night" / "ledger.jsonl"
    value = data["steps"][0]["recorded"]
    ledger.write_text(ledger.read_text().replace(repr(value), repr(value + 1e-12)))
    trace = runs / "night" / "trials" / "0000" / "run-1" / "trace.jsonl"
    trace.write_text(trace.read_text().replace('"torch": "', '"torch": "0.'))
    data = replayed("night", "--exact", "--cache", cache, "--check", status=1)  # compared with the changed record
    assert data["steps"][0]["outcome"] == "not reproduced"
    assert "recorded" in data["differs"][0]
    assert "version of torch: 0." in data["differs"][1]


# --- invalid requests -----------------------------------------------------------------------------------------------


def test_invalid_requests_name_option_or_revision(target: Path, tmp_path: Path, refused: Refused) -> None:
    start(target, tmp_path / "runs", trials=1)
    there = ("--target", target)
    for words, message in (
        (["nihgt"], "mean 'night'"),
        (["nihgt", *there], "mean 'night'"),
        (["autoresearch/nihgt", *there], "mean 'autoresearch/night'"),
        (["night", "--seeds", "0"], "--seeds 0"),
        (["night", "--workers", "0"], "--workers 0"),
        (["night", "--workers", "2"], "--workers 2"),
        (["night", "--results", "x.tsv"], "--results"),
        (["HEAD..HEAD", *there], "no commit changes train.py"),
        (["0123456789abcdef..HEAD", *there], "'0123456789abcdef'"),
        (["HEAD", *there, "--results", "missing.tsv"], "--results missing.tsv"),
        (["night", "--exact"], "trace.jsonl"),
        (["HEAD", *there, "--exact"], "--exact"),
        (["night", "--exact", "--ablate"], "--ablate"),
    ):
        assert message in refused(*words), words


def test_missing_commits_and_target_are_reported(target: Path, tmp_path: Path, refused: Refused) -> None:
    start(target, tmp_path / "runs", trials=4, policy="greedy")
    shutil.rmtree(target)
    make_bowl(target, TRAIN + "# another history\n")
    assert "refs/autoresearch/night/*" in refused("night")
    shutil.rmtree(target)
    assert "--target" in refused("night")


def test_other_replay_of_same_name_is_refused(target: Path, replayed: Replayed, refused: Refused) -> None:
    edit(target, GOOD)
    replayed("HEAD~1..HEAD", "--target", target, "--seeds", "1")
    message = refused("HEAD~1..HEAD", "--target", target, "--budget", "7s")
    assert "other budget" in message
    assert "--name" in message
