"""`overnight judge`: a policy applied to a published results.tsv."""

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


def test_greedy_policy_keeps_published_keeps(published: Path) -> None:
    assert decisions(published, 0.001, "greedy") == ["keep", "keep", "revert", "revert", "keep"]


def test_gain_within_noise_is_reverted(published: Path) -> None:
    found = decisions(published, 0.001, "margin")
    assert found[1] in ("keep", "undecided")
    assert found[2:] == ["revert", "revert", "revert"]


def test_zero_noise_keeps_every_gain(published: Path) -> None:
    assert decisions(published, 0.0, "margin") == ["keep", "keep", "revert", "revert", "keep"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1"),
        ("commit\tstatus\n", "val_bpb, memory_gb"),
        (HEAD, "results.tsv"),
        (HEAD + "a\tbig\t1\tkeep\tx\n", "line 2: val_bpb .*'big'"),
        (HEAD + "a\t1.0\t1\tkeep\tx\nb\tnan\t1\tkeep\tx\n", "line 3: val_bpb .*'nan'"),
        (HEAD + "a\t0.000000\t0\tcrash\tx\n", "results.tsv"),
        (HEAD + "a\t1.0\t1\tkept\tx\n", "line 2: unknown status 'kept'"),
        ("\x00\xff binary", "line 1"),
    ],
)
def test_malformed_tsv_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.tsv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=message):
        read_tsv(path)


def test_command_prints_json_and_table(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["judge", str(published), "--noise-sd", "0.001", "--policy", "margin"]
    assert main([*words, "--json"]) == 0
    assert [row["row"] for row in json.loads(capsys.readouterr().out)] == [2, 3, 4, 5, 6]
    assert main(words) == 0
    assert "of 2 published keeps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "noise", "part"),
    [(None, "-1", "--noise-sd -1"), (None, "nan", "--noise-sd nan"), ("nowhere.tsv", "1", "nowhere.tsv")],
)
def test_wrong_file_or_noise_is_named(
    published: Path, capsys: pytest.CaptureFixture[str], file: str | None, noise: str, part: str
) -> None:
    assert main(["judge", file or str(published), "--noise-sd", noise]) == 2
    assert part in capsys.readouterr().err


def test_answers_name_reference_and_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.tsv"
    values = {"a": 0.9979, "b": 0.9860, "c": 0.9855, "d": 0.9838, "e": 0.9900}
    lines = [f"{name * 7}\t{value}\t44.0\tkeep\tedit {name}\n" for name, value in values.items()]
    path.write_text(HEAD + "".join(lines))
    assert main(["judge", str(path), "--noise-sd", "0.0008", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    answers = ["baseline", "clear", "within the noise", "worth a second run", "not better"]
    assert [row["answer"] for row in rows] == answers
    assert [row["over"] for row in rows] == [None, 2, 3, 4, 5]
    assert rows[4]["reason"].startswith("not better")
    assert main(["judge", str(path), "--noise-sd", "0.0008"]) == 0
    last = capsys.readouterr().out
    assert "of 4 published keeps: 1 clear, 1 worth a second run, 1 within the noise, 1 not better" in last
