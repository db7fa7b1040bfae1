"""``overnight compare`` over a real target that trains for a fraction of a second."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import budgets
import pytest
from sessions import check_whole, killed, nothing, state_of
from targets import TOML, git, make_bowl

from agent.cli.entry import main
from agent.compare.plan import Plan, make_plan
from agent.compare.runner import read_comparison, run_cells
from agent.compare.view import comparison_page
from agent.observers.protocol import Observer
from agent.rundir.directory import RunDirectory

FLAGS = ("--sandbox", "process", "--device", "cpu", "--threads", "1")


@pytest.fixture
def bowl(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "bowl")


def compare(bowl: Path, *words: str) -> int:
    return main(["compare", "--target", str(bowl), "--runs", str(bowl.parent / "runs"), *FLAGS, *words])


def plan_of(bowl: Path, methods: str = "cma-es,random", seeds: int = 2, **settings: Any) -> Plan:
    flags = {
        "target": str(bowl), "runs": str(bowl.parent / "runs"), "sandbox": "process", "device": "cpu", "threads": 1,
        "trials": 2, **settings,
    }  # fmt: skip
    return make_plan(methods, seeds, "cmp", None, {name: value for name, value in flags.items() if value is not None})


def test_each_method_and_seed_is_one_session(bowl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--methods", "cma-es,random", "--seeds", "2", "--trials", "3", "--tag", "cmp", "--json")
    assert compare(bowl, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "overnight.compare/1"
    assert found["complete"]
    assert sorted(row["method"] for row in found["methods"]) == ["cma-es", "random"]
    assert all(row["seeds"] == 2 and row["trials"] == 6 and row["sd"] is not None for row in found["methods"])
    assert {row["method"]: set(row["sources"]) for row in found["methods"]} == {"cma-es": {"cma"}, "random": {"random"}}
    assert all(test["p"] is None and test["note"] for test in found["tests"])
    runs = bowl.parent / "runs"
    for cell in found["cells"]:
        directory = RunDirectory(runs, cell["tag"])
        check_whole(directory, bowl, 3)
        assert state_of(directory).session.seed == cell["seed"]
        assert len(cell["best"]) == 4
        assert cell["best"] == sorted(cell["best"], reverse=True)
    lines = list(csv.DictReader((runs / "cmp" / "compare.csv").open()))
    assert [float(line["best"]) for line in lines] == [cell["best"][-1] for cell in found["cells"]]
    page = (runs / "cmp" / "compare.html").read_text()
    assert "arXiv 2603.24647" in page
    assert git(bowl, "status", "--porcelain") == ""

    ledgers = [RunDirectory(runs, cell["tag"]).ledger.read_bytes() for cell in found["cells"]]
    assert compare(bowl, "--tag", "cmp") == 0
    assert "theirs" in capsys.readouterr().out
    assert ledgers == [RunDirectory(runs, cell["tag"]).ledger.read_bytes() for cell in found["cells"]], "nothing to do"
    assert compare(bowl, "--tag", "cmp", "--methods", "random,cma-es,tpe", "--seeds", "3", "--csv") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 9, "methods and seeds can be added"
    assert compare(bowl, "--tag", "cmp", "--trials", "9") == 2, "settings cannot change"
    assert "--trials 9" in capsys.readouterr().err


@pytest.mark.parametrize("kill_at", [1, 15])
def test_resume_after_sigkill_completes_comparison(bowl: Path, kill_at: int) -> None:
    runs = bowl.parent / "runs"
    seen = 0

    def kill(when: str, _what: str) -> bool:
        nonlocal seen
        seen += when == "after"
        return seen == kill_at

    def work() -> bool:
        return run_cells(plan_of(bowl), runs, Observer, nothing)

    assert killed(work, kill)
    assert work()
    comparison = read_comparison(plan_of(bowl), runs)
    assert comparison.complete
    for cell in comparison.cells:
        check_whole(RunDirectory(runs, cell.tag), bowl, 2)


def test_folder_of_unstarted_session_is_replaced(bowl: Path) -> None:
    plan = plan_of(bowl, "random", 1)
    empty = bowl.parent / "runs" / plan.name("random", 0)
    empty.mkdir(parents=True)
    (empty / ".gitignore").write_text("*\n")
    assert run_cells(plan, bowl.parent / "runs", Observer, nothing)


def test_budget_can_be_training_time(bowl: Path) -> None:
    plan = plan_of(bowl, "random", 1, trials=None, train_hours=0.5 / 3600)
    assert run_cells(plan, bowl.parent / "runs", Observer, nothing)
    (cell,) = read_comparison(plan, bowl.parent / "runs").cells
    assert cell.training_seconds > 0
    assert cell.complete, "the session is complete although the next trial does not fit into the budget"


def test_ctrl_c_ends_comparison_after_running_trial(bowl: Path) -> None:
    words = ["--methods", "random", "--seeds", "2", "--trials", "500", "--tag", "cmp"]
    runs = bowl.parent / "runs"
    line = [sys.executable, "-m", "agent.cli", "compare", "--target", bowl, "--runs", runs, *FLAGS, *words]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ledger, end = RunDirectory(runs, "cmp-random-s0").ledger, time.monotonic() + budgets.PROGRAM_SECONDS
    while not (ledger.exists() and b'"judged"' in ledger.read_bytes()):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=budgets.PROGRAM_SECONDS)
    assert process.returncode == 130
    assert "overnight compare --tag cmp" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "cma-es,tpee", "--trials", "2"), "Did you mean 'tpe'?"),
        (("--methods", "cma-es,grid", "--trials", "2"), "'grid' is not one of"),
        (("--methods", ",", "--trials", "2"), "--methods"),
        (("--seeds", "0", "--trials", "2"), "--seeds 0"),
        (("--seeds", "2"), "--train-hours"),
        (("--trials", "2", "--tag", "a/b"), "--tag 'a/b'"),
        (("--trials", "2", "--policy", "greeedy"), "'greedy'"),
        (("--trials", "1", "--tag", "mine"), "--tag"),
    ],
)
def test_invalid_options_are_named(
    bowl: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    (bowl.parent / "runs" / "mine").mkdir(parents=True)
    (bowl.parent / "runs" / "mine" / "notes.md").write_text("Mine.\n")
    assert compare(bowl, *words) == 2
    assert message in capsys.readouterr().err
    assert not list((bowl.parent / "runs").glob("*/compare.toml"))


@pytest.mark.parametrize("text", ["", "seeds = 2\n"])
def test_damaged_plan_is_named(bowl: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    place = bowl.parent / "runs" / "cmp" / "compare.toml"
    place.parent.mkdir(parents=True)
    place.write_text(text)
    assert compare(bowl, "--tag", "cmp", "--trials", "1") == 2
    assert f"{place} is not the plan of a comparison" in capsys.readouterr().err
    assert place.read_text() == text


def test_running_comparison_is_refused(bowl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = RunDirectory(bowl.parent / "runs", "cmp")
    home.path.mkdir(parents=True)
    with home.lock():
        assert compare(bowl, "--tag", "cmp", "--trials", "1") == 2
    assert "cmp" in capsys.readouterr().err
    assert not (home.path / "compare.toml").exists()


def test_missing_model_is_reported_before_any_session(bowl: Path) -> None:
    words = ("--methods", "random,centaur", "--trials", "1", "--seeds", "1", "--tag", "cmp")
    assert compare(bowl, *words, "--llm-base-url", "http://127.0.0.1:9/v1") == 3
    assert not list((bowl.parent / "runs").glob("cmp-*"))


def test_page_has_no_script_and_escapes_names(tmp_path: Path) -> None:
    toml = TOML.replace('name = "bowl"', 'name = "bowl"\nmetric = "<script>alert(1)</script>"')
    plan = plan_of(make_bowl(tmp_path / "bowl", toml=toml))
    page = comparison_page(read_comparison(plan, tmp_path / "runs"), plan)
    assert "<script" not in page
    assert "0 of 4 sessions complete" in page


def test_sessions_are_ordered_by_seed(bowl: Path) -> None:
    assert plan_of(bowl).cells == [("cma-es", 0), ("random", 0), ("cma-es", 1), ("random", 1)]


def test_accuracy_has_no_published_val_bpb_and_one_list_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = TOML.replace("[target]", '[target]\nmetric = "accuracy"\ngoal = "maximize"')
    bowl = make_bowl(tmp_path / "bowl", toml=toml)
    words = ("--methods", "cma-es,random", "--seeds", "1", "--trials", "1", "--tag", "cmp")
    assert compare(bowl, *words, "--json") == 0
    out = capsys.readouterr().out
    assert json.loads(out)["paper"] == []
    runs = tmp_path / "runs"
    assert "2603.24647" not in (runs / "cmp" / "compare.html").read_text()
    assert main(["list", "--runs", str(runs), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["comparison"] for row in rows] == ["cmp", "cmp"]
    assert main(["list", "--runs", str(runs)]) == 0
    table = capsys.readouterr().out
    assert "cmp: 2 sessions" in table
    assert "cmp-random-s0" not in table
