"""``overnight replay`` of runs, branches and ranges: resumed, exact, ablated, checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_target import Bench, start_badly
from openai_server import OpenAIServer
from sessions import killed, refs_of, start, state_of
from targets import TRAIN, git, make_bowl

from agent.cli.entry import main
from agent.ledger.journal import read
from agent.replay.steps import steps_of_branch, trailers
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory
from agent.target import load_target

Replayed = Callable[..., dict[str, Any]]
GOOD = ("RATE = 0.01", "RATE = 0.1")  # gains 0.05, which is 25 standard deviations of a run
ALSO_GOOD = ("DEPTH = 4", "DEPTH = 6")  # gains 0.008
BAD = ("0.002)", "0.002) + 0.04")  # of the noise: 0.04 worse
USELESS = ('"""Finds its own minimum."""', '"""Finds its own minimum, in other words."""')


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
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*words: str | Path, status: int = 2) -> str:
        capsys.readouterr()
        found = main(["replay", *map(str, words), "--runs", str(tmp_path / "runs"), "--sandbox", "process"])
        out, err = capsys.readouterr()
        assert (found, out) == (status, ""), err
        return err.splitlines()[-1].removeprefix("overnight: ")

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


# runs with a ledger


def test_a_run_is_replayed_in_order(target: Path, tmp_path: Path, replayed: Replayed) -> None:
    before = start(target, tmp_path / "runs", trials=14, policy="greedy", calibrate=3, seed=3)
    state = state_of(before)
    assert len(state.kept) > 1
    head, status = git(target, "rev-parse", "HEAD"), git(target, "status", "--porcelain")
    data = replayed("night", "--seeds", "3")
    assert data["schema"] == "overnight.replay/1"
    assert data["complete"]
    assert [step["commit"] for step in data["steps"]] == [state.baseline, *(r.accepted for r in state.kept)]
    assert [step["trial"] for step in data["steps"][1:]] == [r.number for r in state.kept]
    assert [step["recorded"] for step in data["steps"][1:]] == [r.verdict.value for r in state.kept if r.verdict]
    assert all(step["runs"] == 3 for step in data["steps"])
    assert data["total"]["outcome"] == "reproduced"
    assert data["total"]["gain"] > 0.01
    assert data["noise_dof"] > 2 * len(data["steps"])
    assert (git(target, "rev-parse", "HEAD"), git(target, "status", "--porcelain")) == (head, status)
    page = (tmp_path / "runs" / "replay-night" / "replay.html").read_text()
    assert state.kept[0].accepted is not None
    assert state.kept[0].accepted[:9] in page


def test_commits_are_run_beside_each_other(target: Path, tmp_path: Path, replayed: Replayed) -> None:
    edit(target, GOOD)
    edit(target, ALSO_GOOD)
    words = ("main", "--target", target, "--seeds", "2", "--budget", "20steps")
    one = replayed(*words, "--name", "one")
    three = replayed(*words, "--name", "three", "--workers", "3")
    assert three["complete"]
    assert [(s["commit"], s["value"], s["runs"]) for s in three["steps"]] == [
        (s["commit"], s["value"], s["runs"]) for s in one["steps"]
    ]
    names = [e["event"] for e in read(tmp_path / "runs" / "three" / "ledger.jsonl")]
    begun = [name for name in names if name in ("run_started", "measured")]
    assert begun[:2] == ["run_started"] * 2, "the second began before the first had ended"


def test_workers_need_a_budget_or_a_gpu_that_they_do_not_share(target: Path, refused: Callable[..., str]) -> None:
    edit(target, GOOD)
    said = refused("main", "--target", target, "--workers", "2", "--device", "cpu")
    assert said.startswith("--workers 2: runs beside each other take each other's processor, and the budget is ")
    said = refused("main", "--target", target, "--workers", "0", "--device", "cpu")
    assert said == "--workers 0: must be at least 1."


def test_replayed_runs_have_seeds_that_no_recorded_run_had(target: Path, tmp_path: Path, replayed: Replayed) -> None:
    start(target, tmp_path / "runs", trials=6, policy="greedy", calibrate=3)
    replayed("night")
    old = {run.seed for runs in state_of(RunDirectory(tmp_path / "runs", "night")).runs.values() for run in runs}
    new = [run.seed for runs in state_of(RunDirectory(tmp_path / "runs", "replay-night")).runs.values() for run in runs]
    assert len(set(new)) == len(new)
    assert not old & set(new)


def test_a_replay_is_not_listed_as_a_run(
    target: Path, tmp_path: Path, replayed: Replayed, capsys: pytest.CaptureFixture[str]
) -> None:
    start(target, tmp_path / "runs", trials=1)
    replayed("night", "--seeds", "1")
    assert main(["list", "--json", "--runs", str(tmp_path / "runs")]) == 0
    assert [run["tag"] for run in json.loads(capsys.readouterr().out)] == ["night"]


@pytest.mark.parametrize("point", [1, 2, 5])
def test_a_replay_that_was_killed_goes_on(point: int, target: Path, tmp_path: Path, replayed: Replayed) -> None:
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
    again = replayed("HEAD~2..HEAD", "--target", target, "--seeds", "2")
    assert again["steps"] == data["steps"], "a replay that is complete is shown, not run again"


# branches without a ledger


def test_a_branch_starts_where_it_left_main(target: Path, replayed: Replayed) -> None:
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


def test_published_values_are_taken_from_a_results_file(target: Path, tmp_path: Path, replayed: Replayed) -> None:
    base = git(target, "rev-parse", "HEAD")
    commit = edit(target, GOOD)
    table = tmp_path / "results.tsv"
    rows = [
        f"{base[:7]}\t3.058000\t1.0\tkeep\tbaseline",
        f"{commit[:7]}\t3.008000\t1.0\tkeep\trate",
        "abc\t0.0\t\tcrash\t",
    ]
    table.write_text("\n".join(["commit\tval_bpb\tmemory_gb\tstatus\tdescription", *rows]))
    data = replayed(f"{base}..HEAD", "--target", target, "--results", table)
    assert [step["recorded"] for step in data["steps"]] == [3.058, 3.008]
    assert data["steps"][1]["recorded_gain"] == pytest.approx(0.05)
    assert outcomes(data) == ["baseline", "reproduced"]


def test_a_session_branch_without_its_ledger(target: Path, tmp_path: Path, replayed: Replayed) -> None:
    """Trailers are enough: what a push of the branch alone brings to another machine."""
    state = state_of(start(target, tmp_path / "runs", trials=14, policy="greedy", seed=3))
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(target), str(clone))
    git(clone, "fetch", "-q", "origin", "autoresearch/night:autoresearch/night")
    shutil.rmtree(tmp_path / "runs")
    data = replayed("autoresearch/night", "--target", clone, "--seeds", "2")
    assert [step["commit"] for step in data["steps"]] == [state.baseline, *(r.accepted for r in state.kept)]
    values = [r.verdict.value for r in state.kept if r.verdict]
    assert [step["recorded"] for step in data["steps"][1:]] == pytest.approx(values, abs=1e-6)
    assert [step["trial"] for step in data["steps"][1:]] == [r.number for r in state.kept]


def test_a_commit_that_fails_does_not_reproduce_and_is_run_once(target: Path, replayed: Replayed) -> None:
    edit(target, ("import random", "import random\nraise ValueError('broken')"))
    data = replayed("HEAD~1..HEAD", "--target", target, "--check", status=1)
    assert outcomes(data) == ["baseline", "not reproduced"]
    assert "ValueError: broken" in data["steps"][1]["reason"]


def test_check_passes_where_the_branch_reproduces(target: Path, replayed: Replayed) -> None:
    edit(target, GOOD)
    assert replayed("HEAD~1..HEAD", "--target", target, "--check")["reproduced"] is True


def test_where_higher_is_better(tmp_path: Path, replayed: Replayed) -> None:
    target = make_bowl(tmp_path / "target", TRAIN.replace("{value() + noise:.6f}", "{10 - value() + noise:.6f}"))
    (target / "target.toml").write_text(
        (target / "target.toml").read_text().replace('name = "bowl"', 'name = "bowl"\ngoal = "maximize"')
    )
    git(target, "commit", "-qam", "Maximize")
    edit(target, GOOD)
    data = replayed("HEAD~1..HEAD", "--target", target)
    assert outcomes(data) == ["baseline", "reproduced"]
    assert data["steps"][1]["gain"] == pytest.approx(0.05, abs=0.01)


def test_trailers_are_those_of_the_last_paragraph(target: Path) -> None:
    git(target, "commit", "-q", "--allow-empty", "-m", "Subject\n\nTrial: 3\n\nbody\n\nTrial: 7\nGain: 0.5")
    repo = Repo(target)
    assert trailers(repo.commit(repo.head())) == {"Trial": "7", "Gain": "0.5"}


def test_the_base_of_a_branch_that_never_left_main_is_its_first_commit_with_the_file(target: Path) -> None:
    edit(target, GOOD)
    repo = Repo(target)
    steps = steps_of_branch(repo, load_target(target)[0], "main", {})
    assert [step.subject for step in steps] == ["baseline", "Edit"]


# ablation


def test_an_edit_that_does_nothing_is_cut(target: Path, replayed: Replayed) -> None:
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
    assert "RATE = 0.1" in text
    assert "DEPTH = 6" in text
    assert "+ 0.04" not in text
    assert git(target, "rev-parse", "--abbrev-ref", "HEAD") == "ideas"
    assert sorted(refs_of(target, "replay-ideas")) == sorted(
        ["1001", "1002", "1003", "2000", "refs/heads/autoresearch/ideas-minimal", "refs/heads/ideas", "refs/heads/main"]
    )


def test_an_edit_that_others_build_on_stays(target: Path, replayed: Replayed) -> None:
    edit(target, ("RATE = 0.01", "RATE = 0.05"))
    edit(target, ("RATE = 0.05", "RATE = 0.1"))
    data = replayed("HEAD~2..HEAD", "--target", target, "--ablate", "--seeds", "2")
    assert data["ablations"][0]["need"] == "cannot be left out"
    assert data["ablations"][1]["commit"] == data["steps"][1]["commit"], "without the last: what was there before it"
    assert data["minimal"] is None


def test_a_branch_of_that_name_is_not_touched(target: Path, refused: Callable[..., str]) -> None:
    edit(target, GOOD)
    git(target, "branch", "autoresearch/main-minimal")
    message = refused("HEAD~1..main", "--target", target, "--ablate")
    assert message.startswith("branch autoresearch/main-minimal exists. Rename or delete it first")


# exactly


def test_exact_gives_the_same_bits_or_says_what_differs(tmp_path: Path, replayed: Replayed) -> None:
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
    data = replayed("night", "--exact", "--cache", cache, "--check", status=1)  # held against what was changed
    assert data["steps"][0]["outcome"] == "not reproduced"
    assert "recorded" in data["differs"][0]
    assert "version of torch: 0." in data["differs"][1]


def test_exact_needs_traces(target: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    start(target, tmp_path / "runs", trials=1)
    assert "no run in" in refused("night", "--exact")
    assert "Leave --exact out." in refused("night", "--exact")
    assert refused("HEAD", "--target", target, "--exact").startswith("--exact needs the schedule traces of a run")
    assert refused("night", "--exact", "--ablate") == "--exact follows what is recorded: it does not go with --ablate."


# bad input


def test_what_cannot_be_replayed(target: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    start(target, tmp_path / "runs", trials=1)
    assert refused("nihgt").startswith(f"'nihgt' is no run in {tmp_path / 'runs'} (nearest: night)")
    assert "Nearest: night, autoresearch/night" in refused("nihgt", "--target", target)
    assert refused("night", "--seeds", "0") == "--seeds 0: must be at least 1."
    assert refused("night", "--results", "x.tsv").startswith("--results: run night has recorded values")
    assert "no commit changes train.py" in refused("HEAD..HEAD", "--target", target)
    gone = refused("0123456789abcdef..HEAD", "--target", target)
    assert gone.startswith("'0123456789abcdef' is no commit of")
    assert "was the base fetched?" in gone
    assert refused("HEAD", "--target", target, "--results", "missing.tsv") == "--results missing.tsv: no such file."


def test_commits_that_were_pruned(target: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    start(target, tmp_path / "runs", trials=6, policy="greedy")
    shutil.rmtree(target)
    make_bowl(target, TRAIN + "# another history\n")
    message = refused("night")
    assert "is not in" in message
    assert "Fetch refs/autoresearch/night/*" in message
    shutil.rmtree(target)
    assert refused("night").endswith("is not there any more. Name its folder with --target.")


def test_another_replay_of_the_same_name(target: Path, replayed: Replayed, refused: Callable[..., str]) -> None:
    edit(target, GOOD)
    replayed("HEAD~1..HEAD", "--target", target, "--seeds", "1")
    message = refused("HEAD~1..HEAD", "--target", target, "--budget", "7s")
    assert message.endswith("holds a replay with other budget. Name a new one: --name NAME.")
