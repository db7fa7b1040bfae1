"""``overnight promote`` of whole runs: settings, resume after SIGKILL, refusals, and the branch of what held."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sessions import killed, start, state_of
from targets import TOML, TRAIN, git, make_bowl

from agent.cli.entry import main
from agent.ledger.state import State
from agent.replay.promote import prepare
from agent.rundir.directory import RunDirectory

Promoted = Callable[..., dict[str, Any]]
# the gain of RATE grows with SIZE, and that of DEPTH turns into a loss
SIZED = TRAIN.replace("# --- end", "SIZE = 1\n# --- end").replace(
    "0.05 * math.log10(RATE / 0.1) ** 2 + 0.002 * (DEPTH - 6) ** 2",
    "0.05 * SIZE * math.log10(RATE / 0.1) ** 2 + 0.01 * (2 - SIZE) * (DEPTH - 6) ** 2",
)
BOUNDS = '\n[search]\nconstraints = ["SIZE <= DEPTH"]\n\n[[hyperparameters]]\nname = "SIZE"\nlow = 1\nhigh = 2\n'


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, State]:
    """A target and a folder with run ``night``, which kept changes of RATE and DEPTH only."""
    folder = tmp_path_factory.mktemp("promote")
    target = make_bowl(folder / "target", SIZED, TOML + BOUNDS)
    edits = [
        ("RATE = 0.01  # best at 0.1", "RATE = 0.1"),
        ("DEPTH = 4  # best at 6", "DEPTH = 6"),
    ]
    (target / "ideas").mkdir()
    for number, (old, new) in enumerate(edits):
        (target / "ideas" / f"edit-{number}.md").write_text(
            f'+++\nname = "Edit {number}"\ncategory = "optimiser"\napplies = "Always."\ncost = "None."\n'
            f'interactions = []\nsource = "a test"\nexpected = 0.5\n+++\nSet it.\n\n'
            f"```diff\n--- a/train.py\n+++ b/train.py\n@@ ... @@\n-{old}\n+{new}\n```\n"
        )
    git(target, "add", "-A")
    git(target, "commit", "-qm", "Ideas")
    directory = start(target, folder / "runs", proposer="ideas", policy="margin", calibrate=5, trials=2)
    state = state_of(directory)
    assert len(state.kept) == 2, [(r.proposal.reason, r.verdict) for r in state.records]
    return target, folder / "runs", state


@pytest.fixture
def promoted(night: tuple[Path, Path, State], capsys: pytest.CaptureFixture[str]) -> Promoted:
    def run(*words: str | Path, status: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        line = ["promote", "night", *map(str, words), "--json", "--runs", str(night[1]), "--sandbox", "process"]
        found = main([*line, "--device", "cpu"])
        out, err = capsys.readouterr()
        assert found == status, err
        data: dict[str, Any] = json.loads(out) if out else {"message": err}
        return data

    return run


def test_edits_hold_or_reverse_at_each_setting(
    night: tuple[Path, Path, State], promoted: Promoted, capsys: pytest.CaptureFixture[str]
) -> None:
    target, runs, state = night
    before = git(target, "status", "--porcelain"), git(target, "rev-parse", "HEAD")
    data = promoted("--set", "SIZE=1,4", "--budget", "20s,40s", "--seeds", "4")
    assert data["complete"]
    assert [(s["values"], s["budget"]) for s in data["settings"]] == [
        ({"SIZE": size}, budget) for size in (1, 4) for budget in ("20s", "40s")
    ]
    by_edit = [{f["edit"]: f["outcome"] for f in setting["findings"]} for setting in data["settings"]]
    rate, depth = 1, 2
    if "RATE" not in state.kept[0].proposal.diff:
        rate, depth = 2, 1
    assert by_edit[0][rate] == "holds"
    assert by_edit[0][depth] == "holds"
    assert by_edit[2][rate] == "holds"
    assert by_edit[2][depth] == "reverses"
    assert {"whole branch", "held together"} <= set(by_edit[2])
    assert data["held"] == [state.kept[rate - 1].number]
    assert (git(target, "status", "--porcelain"), git(target, "rev-parse", "HEAD")) == before
    page = (runs / "promote-night" / "promote.html").read_text()
    assert "promotion of night" in page
    assert "night-minimal" not in page, "only an ablation makes that branch"

    assert main(["branch", "night", "--only-held", "--runs", str(runs)]) == 0
    message = git(target, "log", "-1", "--format=%B", "autoresearch/night-held")
    assert "SIZE=4, 40s" in message.replace("\n", " ")
    text = git(target, "show", "autoresearch/night-held:train.py")
    assert [line for line in ("RATE = 0.1", "DEPTH = 4", "SIZE = 1") if line not in text] == []
    capsys.readouterr()
    assert main(["branch", "night", "--only-held", "--runs", str(runs)]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert "autoresearch/night-held exists" in message


def test_seeds_are_equal_on_both_sides(night: tuple[Path, Path, State], promoted: Promoted) -> None:
    promoted("1", "--budget", "21s", "--seeds", "3", "--name", "pairs")
    runs = state_of(RunDirectory(night[1], "pairs")).runs.values()
    assert len({tuple(run.seed for run in found) for found in runs}) == 1
    recorded = {run.seed for found in night[2].runs.values() for run in found}
    assert not recorded & {run.seed for found in runs for run in found}


def test_ablation_compares_with_the_branch(promoted: Promoted) -> None:
    data = promoted("--ablate", "--set", "SIZE=4", "--seeds", "3", "--name", "cut")
    outcomes = {f["edit"]: f["outcome"] for f in data["settings"][0]["findings"]}
    assert sorted(outcomes[edit] for edit in (1, 2)) == ["holds", "reverses"]


@pytest.fixture(scope="module")
def half_done(night: tuple[Path, Path, State], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The ledger of a promotion that was killed during its sixth run, and nothing else of its folder."""
    words = ["promote", "night", "--set", "SIZE=2", "--seeds", "4", "--name", "half", "--runs", str(night[1])]
    seen = []

    def kill(when: str, what: str) -> bool:
        seen.append(when + what)
        return seen.count("beforemeasured") > 5

    assert killed(lambda: main([*words, "--sandbox", "process", "--device", "cpu"]), kill)
    directory = RunDirectory(tmp_path_factory.mktemp("half"), "half")
    directory.path.mkdir()
    shutil.copy(night[1] / "half" / "ledger.jsonl", directory.ledger)
    return directory


def test_watch_shows_progress_from_the_ledger(half_done: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    with half_done.lock():
        assert main(["watch", "--runs", str(half_done.path.parent)]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert [
        word for word in ("half running", "5 of at most", "SIZE=2, 20s", "gain in session", " ± ") if word not in words
    ] == []
    assert main(["watch", "half", "--runs", str(half_done.path.parent)]) == 0
    assert "interrupted" in capsys.readouterr().out


def test_live_page_shows_promotion_under_way(half_done: RunDirectory) -> None:
    pages = pytest.importorskip("agent.web.pages").Pages(half_done.path.parent)
    assert 'href="/run/half"' in pages.runs()
    page = pages.run("half")
    assert page is not None
    assert [
        word for word in ("Promotion of night", "SIZE=2", "cannot tell", 'data-tag="half"') if word not in page
    ] == []
    assert "half" in pages.stamps()
    with half_done.lock():
        now = pages.now("half")
        assert "5 of at most" in now
        assert "in progress" in now
        assert "at SIZE=2" in now
    assert "interrupted" in pages.now("half")


def test_promotion_is_named_by_commands_for_runs(half_done: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", half_done.tag, "--runs", str(half_done.path.parent)]) == 2
    assert f"overnight watch {half_done.tag}" in capsys.readouterr().err
    assert main(["list", "--runs", str(half_done.path.parent)]) == 0
    assert half_done.tag in capsys.readouterr().err


def test_report_writes_page_of_promotion(half_done: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "half", "--runs", str(half_done.path.parent)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == half_done.path / "promote.html"
    assert "Promotion of night" in page.read_text()


def test_request_to_stop_ends_one_promotion_only(
    night: tuple[Path, Path, State], promoted: Promoted, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--set", "SIZE=2", "--seeds", "2", "--name", "stopped")
    promoted(*words, "--max-hours", "1e-9", status=130)
    directory = RunDirectory(night[1], "stopped")
    with directory.lock():
        assert main(["stop", "stopped", "--runs", str(night[1])]) == 0
    assert directory.stop_asked() == "after"
    assert promoted(*words)["complete"]


def test_resume_after_sigkill_completes_promotion(night: tuple[Path, Path, State], promoted: Promoted) -> None:
    words = ["promote", "night", "--set", "SIZE=2", "--seeds", "2", "--name", "killed", "--runs", str(night[1])]
    seen = []

    def kill(when: str, what: str) -> bool:
        seen.append(what)
        return when == "after" and seen.count("measured") > 4

    assert killed(lambda: main([*words, "--sandbox", "process", "--device", "cpu"]), kill)
    data = promoted("--set", "SIZE=2", "--seeds", "2", "--name", "killed")
    assert data["complete"]
    whole = promoted("--set", "SIZE=2", "--seeds", "2", "--name", "whole")
    assert data["settings"] == whole["settings"]
    promoted("--set", "SIZE=1", "--name", "killed", status=2)


def test_no_time_left_is_incomplete_and_continues(promoted: Promoted) -> None:
    words = ("--set", "SIZE=2", "--seeds", "2", "--name", "short")
    assert not promoted(*words, "--max-hours", "1e-9", status=130)["complete"]
    assert promoted(*words)["complete"]


def test_smaller_budget_is_allowed_and_said(
    night: tuple[Path, Path, State], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--budget", "5s", "--max-hours", "1e-9", "--name", "small", "--sandbox", "process", "--device", "cpu"]
    assert main(["promote", "night", *words, "--runs", str(night[1])]) == 130
    assert "--budget 5s is smaller" in capsys.readouterr().err


def test_branch_without_ledger_is_refused(night: tuple[Path, Path, State], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", "main", "--budget", "40s", "--runs", str(night[1])]) == 2
    assert "'main' is no session" in capsys.readouterr().err


def test_edit_that_the_setting_replaces_has_no_effect(promoted: Promoted) -> None:
    data = promoted("--set", "DEPTH=8", "--seeds", "2", "--name", "replaced")
    assert "no effect" in {f["outcome"] for f in data["settings"][0]["findings"]}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], "--set"),
        (["--set", "SIZE=5"], "SIZE <= DEPTH"),
        (["--set", "WIDTH=5"], "WIDTH"),
        (["--set", "SIZE=2.5"], "--set SIZE=2.5"),
        (["--set", "SIZE=2", "--set", "SIZE=3"], "SIZE"),
        (["--budget", "soon"], "--budget"),
        (["77", "--budget", "40s"], "77"),
        (["--budget", "40s", "--seeds", "1"], "--seeds"),
        (["--budget", "40s", "--name", "../x"], "--name '../x'"),
    ],
)
def test_wrong_arguments_name_the_option(words: list[str], names: str, promoted: Promoted) -> None:
    message = promoted(*words, status=2)["message"]
    assert names in message
    assert "guarantee" not in message


@pytest.mark.parametrize("ablate", [False, True])
def test_edit_named_twice_is_compared_once(night: tuple[Path, Path, State], ablate: bool) -> None:
    settings = {"target": str(night[0]), "sandbox": "process", "device": "cpu"}
    prepared = prepare(
        night[1], str, "night", edits=["2", "1", "2"], budgets="40s", ablate=ablate, name="twice", **settings
    )
    assert [c.edit.trial for c in prepared.plan.stages[0].comparisons] == [1, 2, None]


def test_branch_without_promotion_is_refused(
    night: tuple[Path, Path, State], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("no-such", "../x"):
        assert main(["branch", "night", "--only-held", name, "--runs", str(night[1])]) == 2
        assert "--only-held" in capsys.readouterr().err
