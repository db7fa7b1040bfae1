"""`run --dry-run`, notes for the model, and what a session says before and after it works."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from openai_server import OpenAIServer
from sessions import start, state_of
from targets import TOML, git, make_bowl

from agent.cli.entry import main
from agent.rundir.directory import NOTES, RunDirectory

NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "target")


def options(target: Path, *more: str) -> list[str]:
    return ["run", "--target", str(target), "--runs", str(target.parent / "runs"), "--sandbox", "process",
            "--policy", "greedy", "--trials", "1", "--tag", "night", *more]  # fmt: skip


def test_dry_run_prints_plan_and_starts_nothing(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = git(target, "for-each-ref")
    assert main(options(target, "--proposer", "cma-es", "--dry-run")) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if " run  " not in line)
    assert {"run", "target", "proposer", "sandbox", "notes", "baseline", "policy", "ends", "training"} <= lines.keys()
    assert lines["baseline"] == "1 run"
    assert "1 trial" in lines["ends"]
    assert not (target.parent / "runs").exists()
    assert git(target, "for-each-ref") == before


def test_first_command_of_init_costs_one_run(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "copy"), "--from", str(target / "train.py")]) == 2
    (target / "target.toml").unlink()
    assert main(["init", str(tmp_path / "copy"), "--from", str(target)]) == 0
    command = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("next "))
    words = [*shlex.split(command)[2:], "--runs", str(tmp_path / "runs"), "--sandbox", "process", "--tag", "first"]
    assert main(words) == 0
    state = state_of(RunDirectory(tmp_path / "runs", "first"))
    assert (state.ended, len(state.baseline_runs), state.records) == ("the baseline is measured", 1, ())
    resume = ["resume", "first", "--runs", str(tmp_path / "runs")]
    assert main(resume) == 0
    assert "no trial is left" in capsys.readouterr().err
    assert main([*resume, "--trials", "2"]) == 0
    state = state_of(RunDirectory(tmp_path / "runs", "first"))
    assert (state.session.policy, len(state.baseline_runs), len(state.finished)) == ("confirm", 3, 2)


def test_dry_run_refuses_what_run_refuses(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(target, "--llm-base-url", NOWHERE, "--dry-run")) == 3
    (target / "train.py").write_text("changed\n")
    assert main(options(target, "--proposer", "cma-es", "--dry-run")) == 2
    assert "train.py" in capsys.readouterr().err


def test_limit_on_gpu_hours_without_gpu_is_named(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--proposer", "cma-es", "--dry-run", "--device", "cpu", "--gpu-hours", "1")
    assert main(options(target, *words)) == 0
    assert "--gpu-hours 1 has no effect" in "".join(capsys.readouterr())


@pytest.mark.parametrize("place", ["target", "elsewhere"])
def test_notes_reach_first_prompt(target: Path, place: str) -> None:
    folder = target if place == "target" else target.parent
    (folder / "notes.md").write_text("Leave DEPTH alone.\n")
    words = [] if place == "target" else ["--notes", str(folder / "notes.md")]
    with OpenAIServer(["no diff"] * 3) as server:
        assert main(options(target, "--llm-base-url", server.base_url, *words)) == 0
        asked = json.dumps(server.chats)
    assert "Leave DEPTH alone." in asked
    assert RunDirectory(target.parent / "runs", "night").notes.read_text() == "Leave DEPTH alone.\n"


def test_placeholder_of_notes_is_never_sent(target: Path) -> None:
    (target / "notes.md").write_text(NOTES)
    with OpenAIServer(["no diff"] * 3) as server:
        assert main(options(target, "--llm-base-url", server.base_url)) == 0
        asked = json.dumps(server.chats)
    assert not [line for line in NOTES.splitlines() if line and json.dumps(line)[1:-1] in asked]


def test_linked_notes_and_missing_file(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret").write_text("secret\n")
    (target / "notes.md").symlink_to(tmp_path / "secret")
    directory = start(target, tmp_path / "runs", trials=1, policy="greedy", calibrate=1)
    assert directory.notes.read_text() == NOTES
    assert main(options(target, "--proposer", "cma-es", "--tag", "other", "--notes", "none")) == 2
    assert "--notes" in capsys.readouterr().err


def test_notes_in_target_toml_need_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = make_bowl(tmp_path / "target", toml=TOML + '\n[run]\nnotes = "/etc/hostname"\n')
    assert main(options(target, "--proposer", "cma-es")) == 2
    assert "[run] notes" in capsys.readouterr().err


def test_missing_model_server_is_found_before_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "gpt"
    assert main(["init", str(target), "--preset", "demo"]) == 0
    cache = tmp_path / "cache"
    assert main(options(target, "--llm-base-url", NOWHERE, "--cache", str(cache))) == 3
    assert "model server" in capsys.readouterr().err
    assert not cache.exists()


def test_closing_line_names_resume_first(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(target, "--proposer", "cma-es")) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("overnight resume night --trials 11")


def test_resume_of_finished_run_needs_no_server(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer(["no diff"] * 3) as server:
        assert main(options(target, "--llm-base-url", server.base_url)) == 0
    ledger = RunDirectory(target.parent / "runs", "night").ledger
    before = ledger.read_bytes()
    assert main(["resume", "night", "--runs", str(target.parent / "runs")]) == 0
    assert "--trials" in capsys.readouterr().err
    assert ledger.read_bytes() == before


def test_full_stderr_does_not_end_a_session(target: Path) -> None:
    command = [sys.executable, "-m", "agent.cli"]
    again = ["resume", "night", "--runs", str(target.parent / "runs"), "--trials", "2"]
    for words in (options(target, "--proposer", "cma-es"), again):
        with Path("/dev/full").open("w") as full:
            assert subprocess.run([*command, *words], stderr=full).returncode == 0
    assert len(state_of(RunDirectory(target.parent / "runs", "night")).finished) == 2


def test_resume_names_changed_settings(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(target, "--proposer", "cma-es")) == 0
    capsys.readouterr()
    words = ["--trials", "2", "--hours", "3", "--proposer", "cma-es"]
    assert main(["resume", "night", "--runs", str(target.parent / "runs"), *words]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("changed settings: ")]
    assert lines == ["changed settings: trials from 1 to 2; hours from unset to 3.0"]


def test_resume_names_no_change_that_is_refused_or_secret(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(target, "--proposer", "cma-es")) == 0
    resume = ["resume", "night", "--runs", str(target.parent / "runs"), "--trials", "2"]
    capsys.readouterr()
    assert main([*resume, "--policy", "bogus"]) == 2
    assert "changed settings" not in capsys.readouterr().err
    relative = os.path.relpath(target)
    assert main([*resume, "--target", relative, "--llm-base-url", "http://user:secret@127.0.0.1:9/v1"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("changed settings: ")]
    assert len(lines) == 1
    assert "target" not in lines[0]
    assert "http://127.0.0.1:9/v1" in lines[0]
    assert "secret" not in lines[0]


def test_prepare_without_data_is_no_error(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--target", str(target)]) == 0
    assert "nothing to prepare" in capsys.readouterr().err
    assert main(["prepare", "--target", str(target), "--data", "x.txt"]) == 2
