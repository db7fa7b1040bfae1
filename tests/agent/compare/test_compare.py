"""Comparisons over a real target that trains for a fraction of a second."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sessions import check_whole, killed, state_of
from targets import TOML, git, make_bowl

from agent.cli.entry import main
from agent.compare.plan import make_plan
from agent.compare.runner import read_contrast, run_cells
from agent.compare.statistics import Cell, Contrast, mean_ranks, pair_tests, rows
from agent.compare.view import comparison_json, comparison_page
from agent.errors import UsageError
from agent.llm import client as llm
from agent.observers.protocol import Observer
from agent.rundir.directory import RunDirectory

FLAGS = ("--sandbox", "process", "--device", "cpu", "--threads", "1")


def command(tmp_path: Path, *words: str) -> int:
    target = tmp_path / "bowl"
    if not target.exists():
        make_bowl(target)
    return main(["compare", "--target", str(target), "--runs", str(tmp_path / "runs"), *FLAGS, *words])


def plan_of(tmp_path: Path, methods: str = "cma-es,random", seeds: int = 2, **settings: Any):
    flags = {
        "target": str(tmp_path / "bowl"), "runs": str(tmp_path / "runs"), "sandbox": "process", "device": "cpu",
        "threads": 1, "trials": 2, **settings,
    }  # fmt: skip
    flags = {name: value for name, value in flags.items() if value is not None}
    return make_plan(methods, seeds, "cmp", None, flags)


def quiet(_text: str) -> None:
    """Progress, to nobody."""


def test_methods_by_seeds_in_sessions_of_their_own(tmp_path, capsys):
    words = ("--methods", "cma-es,random,tpe", "--seeds", "2", "--trials", "3", "--tag", "cmp", "--json")
    assert command(tmp_path, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "overnight.compare/1"
    assert found["complete"]
    assert sorted(row["method"] for row in found["methods"]) == ["cma-es", "random", "tpe"]
    assert all(row["seeds"] == 2 and row["trials"] == 6 and row["sd"] is not None for row in found["methods"])
    assert {row["method"]: set(row["sources"]) for row in found["methods"]} == {
        "cma-es": {"cma"}, "random": {"random"}, "tpe": {"tpe"},
    }  # fmt: skip
    assert all(test["p"] is None and "too few" in test["note"] for test in found["tests"])
    for cell in found["cells"]:
        directory = RunDirectory(tmp_path / "runs", cell["tag"])
        check_whole(directory, tmp_path / "bowl", 3)
        assert state_of(directory).session.seed == cell["seed"]
        assert len(cell["best"]) == 4
        assert cell["best"] == sorted(cell["best"], reverse=True)
    home = tmp_path / "runs" / "cmp"
    lines = list(csv.DictReader((home / "compare.csv").open()))
    assert [float(line["best"]) for line in lines] == [cell["best"][-1] for cell in found["cells"]]
    page = (home / "compare.html").read_text()
    assert "0.9768" in page
    assert "arXiv 2603.24647" in page
    assert "too few seeds" in page

    assert command(tmp_path, "--tag", "cmp") == 0  # nothing is left to do, and the table is shown again
    shown = capsys.readouterr().out
    assert "too few seeds (2" in shown
    assert "theirs" in shown
    assert git(tmp_path / "bowl", "status", "--porcelain") == ""


def test_more_seeds_and_methods_may_be_added(tmp_path, capsys):
    words = ("--methods", "random", "--seeds", "1", "--trials", "1", "--tag", "cmp", "--csv")
    assert command(tmp_path, *words) == 0
    before = capsys.readouterr().out
    assert command(tmp_path, "--tag", "cmp", "--methods", "random,cma-es", "--seeds", "2", "--csv") == 0
    after = capsys.readouterr().out.splitlines()
    assert before.splitlines()[1] in after
    assert len(after) == 5


@pytest.mark.parametrize("kill_at", [1, 4, 9, 15])
def test_a_comparison_that_was_killed_goes_on_where_it_stood(tmp_path, kill_at):
    make_bowl(tmp_path / "bowl")
    runs = tmp_path / "runs"
    seen = 0

    def kill(when: str, _what: str) -> bool:
        nonlocal seen
        seen += when == "after"
        return seen == kill_at

    def work() -> bool:
        return run_cells(plan_of(tmp_path), runs, Observer, quiet)

    assert killed(work, kill)
    assert work()
    plan = plan_of(tmp_path)
    contrast = read_contrast(plan, runs)
    assert contrast.complete
    for cell in contrast.cells:
        check_whole(RunDirectory(runs, cell.tag), tmp_path / "bowl", 2)

    events = {cell.tag: len(RunDirectory(runs, cell.tag).ledger.read_bytes()) for cell in contrast.cells}
    assert work()
    assert events == {cell.tag: len(RunDirectory(runs, cell.tag).ledger.read_bytes()) for cell in contrast.cells}


def test_the_folder_of_a_session_that_never_began_is_no_hindrance(tmp_path):
    make_bowl(tmp_path / "bowl")
    plan = plan_of(tmp_path, "random", 1)
    empty = tmp_path / "runs" / plan.name("random", 0)
    empty.mkdir(parents=True)
    (empty / ".gitignore").write_text("*\n")
    assert run_cells(plan, tmp_path / "runs", Observer, quiet)


def test_the_budget_may_be_time_of_training(tmp_path):
    make_bowl(tmp_path / "bowl")
    plan = plan_of(tmp_path, "random", 1, trials=None, train_hours=0.5 / 3600)
    assert run_cells(plan, tmp_path / "runs", Observer, quiet)
    (cell,) = read_contrast(plan, tmp_path / "runs").cells
    assert cell.training_seconds > 0
    assert cell.complete, "a trial that would not fit is not started, and the session is complete all the same"


def test_ctrl_c_ends_after_the_running_trial_and_says_how_to_go_on(tmp_path):
    make_bowl(tmp_path / "bowl")
    words = ["--methods", "random", "--seeds", "2", "--trials", "500", "--tag", "cmp"]
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "compare", "--target", tmp_path / "bowl", "--runs", tmp_path / "runs",
         *FLAGS, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ledger = RunDirectory(tmp_path / "runs", "cmp-random-s0").ledger
    wait_for(lambda: ledger.exists() and b'"judged"' in ledger.read_bytes())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "overnight compare --tag cmp" in errors


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "cma-es,tpee", "--trials", "2"), "no method 'tpee'; did you mean tpe?"),
        (("--methods", "cma-es,grid", "--trials", "2"), "no method 'grid'; there are code, cma-es"),
        (("--methods", ",", "--trials", "2"), "name at least one of"),
        (("--seeds", "0", "--trials", "2"), "--seeds 0: a comparison needs at least 1 seed"),
        (("--seeds", "2"), "give the budget of each session: --trials N, or --train-hours H"),
        (("--trials", "2", "--tag", "a/b"), "--tag 'a/b'"),
        (("--trials", "2", "--policy", "greeedy"), "Did you mean 'greedy'?"),
    ],
)
def test_bad_input(tmp_path, capsys, words, message):
    assert command(tmp_path, *words) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*/compare.toml"))


def test_a_comparison_keeps_its_settings(tmp_path, capsys):
    assert command(tmp_path, "--methods", "random", "--seeds", "1", "--trials", "1", "--tag", "cmp") == 0
    assert command(tmp_path, "--tag", "cmp", "--trials", "9") == 2
    assert "--trials 9: comparison cmp was started with 1" in capsys.readouterr().err
    (tmp_path / "runs" / "mine").mkdir()
    (tmp_path / "runs" / "mine" / "notes.md").write_text("Mine.\n")
    assert command(tmp_path, "--tag", "mine", "--trials", "1") == 2
    assert "exists and is no comparison" in capsys.readouterr().err


def test_a_comparison_that_goes_on_is_left_alone(tmp_path, capsys):
    home = RunDirectory(tmp_path / "runs", "cmp")
    home.path.mkdir(parents=True)
    with home.lock():
        assert command(tmp_path, "--tag", "cmp", "--trials", "1") == 2
    assert "comparison cmp is already running" in capsys.readouterr().err
    assert not (home.path / "compare.toml").exists()


def test_a_model_that_is_missing_is_said_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(llm, "CONNECT_PATIENCE", 0.5)
    words = ("--methods", "random,centaur", "--trials", "1", "--seeds", "1", "--tag", "cmp")
    assert command(tmp_path, *words, "--llm-base-url", "http://127.0.0.1:9/v1") == 3
    assert not list((tmp_path / "runs").glob("cmp-*"))


# --- what the numbers mean ------------------------------------------------------------------------------------------


def contrast(finals: dict[str, list[float]], goal: str = "minimize", **cell: Any) -> Contrast:
    cells = [
        Cell(method, seed, f"{method}-{seed}", True, (1.0, value), **cell)
        for method, values in finals.items()
        for seed, value in enumerate(values)
    ]
    return Contrast("val_bpb", goal, tuple(finals), tuple(cells))  # type: ignore[arg-type]


def test_the_signed_rank_test_is_exact_and_paired():
    six = contrast({"a": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "b": [0.11, 0.22, 0.33, 0.44, 0.55, 0.66]})
    (found,) = pair_tests(six)
    assert found.p == pytest.approx(2 / 2**6)
    assert found.p_holm == found.p
    assert found.difference == pytest.approx(-0.035)


def test_few_seeds_and_equal_values_have_no_p_value():
    (few,) = pair_tests(contrast({"a": [0.1] * 5, "b": [0.2] * 5}))
    assert (few.p, few.note) == (None, "too few seeds: 5 of 6")
    (same,) = pair_tests(contrast({"a": [0.1] * 7, "b": [0.1] * 7}))
    assert (same.p, same.note) == (None, "no difference in any seed")


def test_p_values_are_corrected_for_all_pairs():
    values = [0.1 + 0.01 * k for k in range(8)]
    three = contrast({"a": values, "b": [v + 0.1 + 0.001 * k for k, v in enumerate(values)], "c": values[::-1]})
    for test in pair_tests(three):
        assert test.p is not None
        assert test.p_holm is not None
        assert test.p <= test.p_holm <= min(1.0, 3 * test.p)


@pytest.mark.parametrize(("goal", "first"), [("minimize", "a"), ("maximize", "b")])
def test_ranks_and_order_follow_the_goal(goal, first):
    found = contrast({"a": [1.0, 2.0], "b": [3.0, 2.0]}, goal)
    assert rows(found)[0].method == first
    assert sorted(mean_ranks(found).values()) == [1.25, 1.75]


def test_only_complete_sessions_count():
    cells = (Cell("a", 0, "a0", True, (1.0, 0.5)), Cell("a", 1, "a1", False, (1.0, 0.1)), Cell("b", 0, "b0"))
    found = Contrast("val_bpb", "minimize", ("a", "b"), cells)
    table = rows(found)
    assert [(row.method, row.mean, row.sd, row.rank) for row in table] == [
        ("a", 0.5, None, None),
        ("b", None, None, None),
    ]
    assert json.loads(json.dumps(comparison_json(found, "t"), allow_nan=False))["complete"] is False


def test_the_page_holds_no_script_and_escapes_names(tmp_path):
    make_bowl(
        tmp_path / "bowl", toml=TOML.replace('name = "bowl"', 'name = "bowl"\nmetric = "<script>alert(1)</script>"')
    )
    plan = plan_of(tmp_path)
    page = comparison_page(read_contrast(plan, tmp_path / "runs"), plan)
    assert "<script" not in page
    assert "0 of 4 sessions complete" in page


def test_an_unfinished_plan_is_told_apart_from_other_tags(tmp_path):
    make_bowl(tmp_path / "bowl")
    with pytest.raises(UsageError, match="a comparison needs"):
        plan_of(tmp_path, seeds=0)
    assert plan_of(tmp_path).cells == [("cma-es", 0), ("random", 0), ("cma-es", 1), ("random", 1)]
