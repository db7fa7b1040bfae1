"""Lists that others published, judged again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.entry import main
from agent.cli.judge import judge_published
from agent.errors import UsageError
from agent.judge.policy import policy_from
from agent.rundir.results import read_tsv

HEAD = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
ROWS = """aaaaaaa\t1.000000\t44.0\tkeep\tbaseline
bbbbbbb\t0.990000\t44.2\tkeep\traise the learning rate
ccccccc\t1.005000\t44.0\tdiscard\tswitch to GeLU
ddddddd\t0.000000\t0.0\tcrash\tdouble the width
eeeeeee\t0.989500\t44.1\tkeep\ttune the warmup
"""


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "results.tsv"
    path.write_text(HEAD + ROWS)
    return path


def decisions(path: Path, noise_sd: float, policy: str) -> list[str]:
    return [row["decision"] for row in judge_published(read_tsv(path), noise_sd, policy_from(policy))]


def test_greedy_keeps_what_was_published(published: Path) -> None:
    assert decisions(published, 0.001, "greedy") == ["keep", "keep", "revert", "revert", "keep"]


def test_a_gain_within_the_noise_does_not_stand(published: Path) -> None:
    found = decisions(published, 0.001, "margin")
    assert found[1] in ("keep", "undecided")
    assert found[2:] == ["revert", "revert", "revert"]


def test_without_noise_every_gain_is_real(published: Path) -> None:
    assert decisions(published, 0.0, "margin") == ["keep", "keep", "revert", "revert", "keep"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 must name the columns"),
        ("commit\tstatus\n", "it lacks val_bpb, memory_gb"),
        (HEAD, "holds no run that worked"),
        (HEAD + "a\tbig\t1\tkeep\tx\n", "line 2: val_bpb is 'big', which is no number"),
        (HEAD + "a\t1.0\t1\tkeep\tx\nb\tnan\t1\tkeep\tx\n", "line 3: val_bpb is 'nan', which is no number"),
        (HEAD + "a\t0.000000\t0\tcrash\tx\n", "holds no run that worked"),
        ("\x00\xff binary", "line 1 must name the columns"),
    ],
)
def test_what_is_no_list_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.tsv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=message):
        read_tsv(path)


def test_the_command(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", str(published), "--noise-sd", "0.001", "--policy", "margin", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["row"] for row in rows] == [2, 3, 4, 5, 6]
    assert main(["judge", str(published), "--noise-sd", "0.001", "--policy", "margin"]) == 0
    assert "of 2 published keeps" in capsys.readouterr().out
    assert main(["judge", str(published), "--noise-sd", "-1", "--policy", "margin"]) == 2
    assert "cannot be negative" in capsys.readouterr().err
    assert main(["judge", str(published), "--noise-sd", "nan", "--policy", "margin"]) == 2
    assert "--noise-sd nan: must be a finite number" in capsys.readouterr().err
    assert main(["judge", "nowhere.tsv", "--noise-sd", "1", "--policy", "margin"]) == 2
    assert "nowhere.tsv: No such file" in capsys.readouterr().err
