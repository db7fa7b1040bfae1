"""Files that `overnight clean` removes and keeps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from nights import write_night

from agent.cli.entry import main
from agent.rundir.directory import RunDirectory


def files(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file() and p.name != "lock"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Six trials; the third has a transcript and a checkpoint."""
    run = write_night(tmp_path / "runs" / "jun12", trials=6)
    for name in ("notes.md", "results.tsv", "session.log", "report.html"):
        (run / name).write_text(name)
    trial = run / "trials" / "0003"
    (trial / "prompt.md").write_text("prompt")
    (trial / "2-reply.md").write_text("reply")
    trace = trial / "run-1"
    trace.mkdir(exist_ok=True)
    (trace / "model.safetensors").write_bytes(b"x" * 3_000_000)
    (trace / "model.json").write_text("{}")
    (trace / "trace.jsonl").write_text("{}\n")
    (trace / "result.json").write_text("{}")
    return run


def clean(run: Path, *words: str) -> int:
    return main(["clean", run.name, "--runs", str(run.parent), *words])


def test_clean_keeps_files_that_commands_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(run)
    assert clean(run) == 0
    after = files(run)
    assert "freed" in capsys.readouterr().err
    assert after == {name: before[name] for name in after}
    gone = {Path(name).name for name in before.keys() - after.keys()}
    assert gone == {"model.safetensors", "model.json", "train.log", "trace.jsonl", "prompt.md", "2-reply.md"}
    assert {"ledger.jsonl", "run.toml", "notes.md", "results.tsv", "session.log", "report.html"} <= after.keys()
    assert {"proposal.diff", "curve.jsonl", "result.json"} <= {Path(name).name for name in after}
    for words in (["status"], ["log", "--all"], ["show", "3"]):
        assert main([words[0], run.name, *words[1:], "--runs", str(run.parent)]) == 0
    capsys.readouterr()
    assert clean(run) == 0
    assert capsys.readouterr().err == "session jun12: nothing to remove\n"


def test_clean_selects_by_size_and_age(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(run)
    assert clean(run, "--larger-than", "1", "--older-than", "1") == 0
    assert files(run) == before
    weights = run / "trials/0003/run-1/model.safetensors"
    long_ago = time.time() - 2 * 86400
    os.utime(weights, (long_ago, long_ago))
    assert clean(run, "--larger-than", "1", "--older-than", "1", "--dry-run") == 0
    printed = capsys.readouterr()
    assert printed.out.split() == ["3,000,000", str(weights)]
    assert "would free 1 file, 3.0 MB (checkpoints 3.0 MB)" in printed.err
    assert files(run) == before
    assert clean(run, "--larger-than", "1", "--older-than", "1") == 0
    assert before.keys() - files(run).keys() == {str(weights.relative_to(run))}


def test_running_session_refuses_clean(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(run)
    with RunDirectory(run.parent, run.name).lock():
        assert clean(run) == 2
        assert "overnight stop" in capsys.readouterr().err
        assert clean(run, "--dry-run") == 0
    assert files(run) == before


def test_clean_keeps_files_of_open_trials(tmp_path: Path) -> None:
    run = write_night(tmp_path / "runs" / "half", trials=3, ended=False)
    trace = run / "trials" / "0003" / "run-1"
    trace.mkdir(exist_ok=True)
    (trace / "model.safetensors").write_bytes(b"x")
    assert clean(run) == 0
    assert (trace / "model.safetensors").exists()


def test_clean_does_not_follow_links(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "train.log").write_text("mine")
    (run / "trials" / "0003" / "run-9").symlink_to(mine)
    (run / "trials" / "0003" / "link.md").symlink_to(mine / "train.log")
    assert clean(run) == 0
    assert (mine / "train.log").read_text() == "mine"
    assert (run / "trials" / "0003" / "link.md").is_symlink()
