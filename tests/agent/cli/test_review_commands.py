"""The commands branch, diff, export and log on one finished run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from nights import write_night
from sessions import start, state_of
from targets import git, make_bowl

from agent.cli.entry import main
from agent.ledger.state import State
from agent.repo.clean_branch import make_branch
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory

Said = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, State]:
    """Target, folder of runs, and state of a run with several kept edits."""
    folder = tmp_path_factory.mktemp("night")
    target = make_bowl(folder / "target")
    git(target, "config", "user.name", "Ada Example")
    git(target, "config", "user.email", "ada@example.org")
    state = state_of(start(target, folder / "runs", trials=14, policy="greedy", seed=3))
    assert len(state.kept) > 2
    return target, folder / "runs", state


@pytest.fixture
def said(night: tuple[Path, Path, State], capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command; its stdout and stderr."""

    def run(*words: object, status: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        found = main([*map(str, words), "--runs", str(night[1])])
        out, err = capsys.readouterr()
        assert found == status, err
        return out, err

    return run


# branch


def test_clean_branch_carries_the_users_name(night: tuple[Path, Path, State], said: Said) -> None:
    target, _, state = night
    before = git(target, "status", "--porcelain", "--branch")
    out, _ = said("branch", "night", "--name", "clean")
    assert out == "clean\n"
    assert git(target, "log", "--format=%an <%ae>", f"{state.baseline}..clean").splitlines() == [
        "Ada Example <ada@example.org>"
    ] * len(state.kept)
    assert git(target, "show", "clean:train.py") == git(target, "show", f"{state.head}:train.py")
    message = git(target, "log", "-1", "--format=%B", "clean")
    last = state.kept[-1]
    assert last.verdict is not None
    assert f"(trial {last.number} of session night)" in message.replace("\n", " ")
    assert "Proposer:" not in message
    assert git(target, "status", "--porcelain", "--branch") == before


def test_squash_makes_one_commit(night: tuple[Path, Path, State], said: Said) -> None:
    target, _, state = night
    said("branch", "night", "--squash", "--name", "squashed")
    assert git(target, "rev-list", "--count", f"{state.baseline}..squashed") == "1"
    assert git(target, "show", "squashed:train.py") == git(target, "show", f"{state.head}:train.py")
    message = git(target, "log", "-1", "--format=%B", "squashed")
    assert message.startswith(f"Apply {len(state.kept)} edits")
    assert message.count("\n- ") == len(state.kept)


def test_onto_newer_commit_merges_edits(night: tuple[Path, Path, State], said: Said) -> None:
    target, _, state = night
    text = git(target, "show", f"{state.baseline}:train.py").replace("import math", "# Of 2026.\nimport math")
    newer = Repo(target).build(state.baseline, {"train.py": text + "\n"}, "Go on", 1)
    said("branch", "night", "--onto", newer, "--name", "rebased")
    found = git(target, "show", "rebased:train.py")
    assert "# Of 2026." in found
    ours = [line for line in git(target, "show", f"{state.head}:train.py").splitlines() if line.startswith("RATE")]
    assert ours[0] in found
    assert git(target, "merge-base", "rebased", newer) == newer


def test_conflicting_edit_is_named(night: tuple[Path, Path, State], said: Said) -> None:
    target, _, state = night
    text = git(target, "show", f"{state.baseline}:train.py").replace("RATE = 0.01", "RATE = 0.02")
    text = text.replace("DEPTH = 4", "DEPTH = 5")
    other = Repo(target).build(state.baseline, {"train.py": text}, "Another way", 1)
    _, err = said("branch", "night", "--onto", other, "--name", "conflict", status=2)
    assert f"trial {state.kept[0].number}" in err
    assert "--pick" in err
    assert "conflict" not in git(target, "branch", "--list", "conflict")


def test_pick_takes_only_kept_trials(night: tuple[Path, Path, State], said: Said) -> None:
    target, _, state = night
    said("branch", "night", "--name", "picked", "--pick", state.kept[0].number)
    assert state.kept[0].candidate is not None
    assert git(target, "diff", "picked", state.kept[0].candidate) == ""
    reverted = next(r.number for r in state.finished if r.decision != "keep")
    _, err = said("branch", "night", "--name", "x", "--pick", reverted, status=2)
    assert f"--pick {reverted}" in err
    assert f"{state.kept[0].number}, " in err


def test_existing_branch_is_refused(night: tuple[Path, Path, State], said: Said) -> None:
    _, err = said("branch", "night", "--name", "main", status=2)
    assert "--name" in err
    assert "main exists" in err


@pytest.mark.parametrize("name", ["two words", "-f", "x..y", "@{-1}"])
def test_invalid_branch_name_is_refused(said: Said, name: str) -> None:
    _, err = said("branch", "night", f"--name={name}", status=2)
    assert f"--name {name!r}" in err


def test_missing_git_identity_is_refused(
    night: tuple[Path, Path, State], said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target, _, _ = night
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "none"))
    git(target, "config", "--unset", "user.name")
    try:
        _, err = said("branch", "night", "--name", "anonymous", status=2)
    finally:
        git(target, "config", "user.name", "Ada Example")
    assert "git config --global user.name" in err


def test_branch_without_kept_edit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = make_bowl(tmp_path / "target")
    directory = start(target, tmp_path / "runs", trials=1, policy="margin", seed=5)
    assert not state_of(directory).kept, "choose a seed whose first trial is reverted"
    assert main(["branch", "night", "--runs", str(tmp_path / "runs")]) == 2
    assert "no edit" in capsys.readouterr().err


def test_same_edits_give_same_commits(night: tuple[Path, Path, State]) -> None:
    target, _, state = night
    one, other = (make_branch(state, Repo(target), "night", name=f"same-{k}", when=7.0) for k in (1, 2))
    assert one.commit == other.commit


# diff


def test_diff_shows_values_and_lines(night: tuple[Path, Path, State], said: Said) -> None:
    _, _, state = night
    number = state.kept[0].number
    out, _ = said("diff", "night", "baseline", number)
    assert "-RATE = 0.01" in out
    assert out.startswith("baseline: val_bpb ")
    assert f"trial {number} against baseline: +" in out

    same, _ = said("diff", "night", "head", "head")
    assert "against" not in same
    assert "@@" not in same


def test_diff_json_has_gain_and_diff(night: tuple[Path, Path, State], said: Said) -> None:
    _, _, state = night
    first, last = state.kept[0], state.kept[-1]
    data = json.loads(said("diff", "night", first.number, last.number, "--json")[0])
    assert data["schema"] == "overnight.diff/1"
    assert (data["a"]["commit"], data["b"]["commit"]) == (first.candidate, last.candidate)
    assert data["gain"] == pytest.approx(data["a"]["value"] - data["b"]["value"])
    assert data["diff"].startswith(f"--- trial {first.number}\n+++ trial {last.number}\n@@ ")
    same = json.loads(said("diff", "night", "head", "head", "--json")[0])
    assert (same["gain"], same["gain_se"], same["diff"]) == (None, None, "")


def test_unknown_side_of_diff_is_named(night: tuple[Path, Path, State], said: Said) -> None:
    _, err = said("diff", "night", "head", 99, status=2)
    assert "'99'" in err
    assert "1 to 14" in err
    _, err = said("diff", "night", "head", "tail", status=2)
    assert "'tail'" in err


def test_moved_target_is_found_with_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = make_bowl(tmp_path / "target")
    start(target, tmp_path / "runs", trials=1)
    target.rename(tmp_path / "elsewhere")
    words = ["diff", "night", "0", "1", "--runs", str(tmp_path / "runs")]
    assert main(words) == 2
    assert "--target" in capsys.readouterr().err
    assert main([*words, "--target", str(tmp_path / "elsewhere")]) == 0


def test_clone_without_commits_is_refused(night: tuple[Path, Path, State], said: Said, tmp_path: Path) -> None:
    clone = make_bowl(tmp_path / "other")
    (clone / "train.py").write_text("# another history\n")
    git(clone, "commit", "-qam", "Another history")
    for words in (["diff", "night", "1", "2"], ["branch", "night", "--name", "lost"]):
        _, err = said(*words, "--target", clone, status=2)
        assert "refs/autoresearch/night/*" in err


# export


def test_export_matches_results_in_every_format(night: tuple[Path, Path, State], said: Said, tmp_path: Path) -> None:
    _, runs, state = night
    assert said("export", "night")[0] == (runs / "night" / "results.tsv").read_text()
    rows = list(csv.DictReader(io.StringIO(said("export", "night", "--format", "csv")[0])))
    assert [int(row["trial"]) for row in rows] == [r.number for r in state.finished]
    data = json.loads(said("export", "night", "--format", "json")[0])
    assert data["schema"] == "overnight.export/1"
    assert data["branch"] == {"name": "autoresearch/night", "head": state.head}
    assert [len(a["measurements"]) for a in data["attempts"]] == [len(r.runs) for r in state.finished]
    place = tmp_path / "night.tsv"
    assert said("export", "--output", place)[0] == ""
    assert place.read_text() == (runs / "night" / "results.tsv").read_text()
    _, err = said("export", "--output", tmp_path / "no" / "folder.tsv", status=3)
    assert "folder.tsv" in err


# log


def test_log_filters_by_status_source_text(night: tuple[Path, Path, State], said: Said) -> None:
    _, _, state = night
    kept = json.loads(said("log", "night", "--json", "--status", "keep")[0])
    assert [row["trial"] for row in kept] == [r.number for r in state.kept]
    assert json.loads(said("log", "night", "--json", "--source", "llm")[0]) == []
    found = json.loads(said("log", "--json", "--text", "depth")[0])
    assert found
    assert all("DEPTH" in row["subject"] for row in found)
    reverted = next(r for r in state.finished if r.decision == "revert")
    assert f"{reverted.proposal.subject[:20]}" in said("log", "night", "--source", reverted.proposal.source)[0]
    nothing = said("log", "night", "--source", "llm")[0]
    assert reverted.proposal.source in nothing


def test_log_searches_changed_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = state_of(RunDirectory(write_night(tmp_path / "jun12", 40).parent, "jun12"))
    record = next(r for r in state.finished if r.proposal.diff and r.decision != "keep")
    changed = next(row[1:] for row in record.proposal.diff.splitlines() if row.startswith("+") and row[1:2] != "+")
    assert main(["log", "jun12", "--text", changed, "--runs", str(tmp_path)]) == 0
    assert f"\n{record.number:5d}  " in capsys.readouterr().out
