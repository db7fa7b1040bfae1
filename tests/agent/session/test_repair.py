"""Edits that fail before training go back to a scripted model, in whole sessions over the bowl."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai_server import Answer, OpenAIServer
from sessions import check_whole, killed, refs_of, resume, start, state_of
from targets import TOML, TRAIN, git, make_bowl

from agent.cli.entry import main
from agent.ledger.events import Repaired
from agent.ledger.journal import read
from agent.patch.apply import unified_diff
from agent.review.data.attempt import details_of, show_json
from agent.review.data.night import night_of
from agent.review.data.status import status_json
from agent.rundir.directory import RunDirectory

SMOKE_TOML = TOML.replace('score = "stdout"', 'score = "stdout"\nsmoke = ["python", "train.py", "--smoke"]')
GOOD = "return 2.9 + 0.05"
CRASH = "return boom(2.9)\n\n\ndef other():\n    return 2.9 + 0.05"


def reply(new: str, subject: str = "Lower the bowl") -> str:
    diff = unified_diff(TRAIN, TRAIN.replace("return 3.0 + 0.05", new), "train.py")
    return f"Category: optimiser\nSubject: {subject}\nRationale: It may help.\n\n```diff\n{diff}```\n"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "target")


def session(target: Path, runs: Path, server: OpenAIServer, **settings: object) -> RunDirectory:
    usual = {"proposer": "code", "trials": 1, "policy": "greedy"}
    return start(target, runs, **{**usual, "llm_base_url": server.base_url, **settings})


def test_repaired_edit_is_kept_in_same_trial(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer([reply(CRASH), reply(GOOD)]) as server:
        directory = session(target, tmp_path / "runs", server)
    state = state_of(directory)
    (record,) = state.records
    assert (record.decision, record.status, record.revision) == ("keep", "ok", 1)
    (repair,) = record.repairs
    assert [run.status for run in repair.runs] == ["crash"]
    assert "boom" in repair.proposal.diff
    assert sorted(refs_of(target))[:2] == ["0001", "0001.r1"]
    asked = server.chats[1]["messages"]
    assert [message["role"] for message in asked] == ["user", "assistant", "user"]
    assert "NameError: name 'boom' is not defined" in asked[2]["content"]
    assert f">{TRAIN[: TRAIN.index('return 3.0')].count(chr(10)) + 1:>5}      return boom(2.9)" in asked[2]["content"]
    assert str(tmp_path) not in asked[2]["content"]
    for name in ("prompt.md", "reply.md"):
        assert (directory.trial(1) / "repair-1" / name).is_file()
    check_whole(directory, target, 1)
    night = night_of(state, {})
    assert status_json(night)["repaired"] == 1
    assert night.usage["calls"] == 2
    shown = show_json(details_of(record, state, directory.path))
    assert shown["repairs"] == 1
    assert shown["versions"][0]["measurements"][0]["status"] == "crash"
    for command in (["log"], ["show"], ["status"]):
        words = [*command, "night", *(["1"] if command == ["show"] else []), "--runs", str(tmp_path / "runs")]
        assert main(words) == 0
        assert "repair" in capsys.readouterr().out


def test_repairs_end_at_their_number(target: Path, tmp_path: Path) -> None:
    crashes = [reply(CRASH.replace("boom", f"boom{k}")) for k in range(5)]
    for most in (0, 1, 2):
        with OpenAIServer(crashes) as server:
            directory = session(target, tmp_path / "runs", server, tag=f"most{most}", repairs=most)
        (record,) = state_of(directory).records
        assert (record.decision, record.status, len(record.repairs)) == ("revert", "crash", most)
        assert len(server.chats) == 1 + most
        assert f"boom{most}" in record.runs[0].reason


def test_unusable_repair_ends_trial_with_its_failure(target: Path, tmp_path: Path) -> None:
    with OpenAIServer([reply(CRASH)], at_end=Answer(text="I cannot.")) as server:
        directory = session(target, tmp_path / "runs", server)
    (record,) = state_of(directory).records
    assert record.status == "crash"
    assert [repair.proposal.ending for repair in record.repairs] == ["patch_rejected"]
    check_whole(directory, target, 1)


def test_same_program_is_no_repair(target: Path, tmp_path: Path) -> None:
    with OpenAIServer([reply(CRASH)], at_end=Answer(text=reply(CRASH))) as server:
        directory = session(target, tmp_path / "runs", server)
    (record,) = state_of(directory).records
    assert [repair.proposal.ending for repair in record.repairs] == ["duplicate"]


def test_failure_late_in_training_is_not_repaired(target: Path, tmp_path: Path) -> None:
    make_bowl(tmp_path / "short", toml=TOML.replace("seconds = 20", "seconds = 2"))
    slow = "import time; time.sleep(1); return boom(2.9)"
    with OpenAIServer([reply(slow)]) as server:
        directory = session(tmp_path / "short", tmp_path / "runs", server)
    assert not state_of(directory).records[0].repairs
    assert len(server.chats) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_resume_after_kill_in_repair_completes_it(target: Path, tmp_path: Path, moment: str) -> None:
    with OpenAIServer([reply(CRASH)], at_end=Answer(text=reply(GOOD))) as server:
        assert killed(
            lambda: session(target, tmp_path / "runs", server),
            lambda when, what: (when, what) == (moment, "repaired"),
        )
        directory = resume(tmp_path / "runs")
    (record,) = state_of(directory).records
    assert (record.decision, len(record.repairs)) == ("keep", 1)
    repairs = [event for event in read(directory.ledger) if isinstance(event, Repaired)]
    assert len(repairs) == 1
    prompts = [chat["messages"] for chat in server.chats]
    assert len(prompts) == (3 if moment == "before" else 2)
    assert prompts[1] == prompts[-1], "the repeated request is the same"
    assert server.chats[1]["seed"] == server.chats[-1]["seed"]
    check_whole(directory, target, 1)


def test_out_of_memory_goes_back_with_sizes(target: Path, tmp_path: Path) -> None:
    greedy = "held = bytearray(64 * 2**30); return 2.9 + 0.05"
    with OpenAIServer([reply(greedy), reply(GOOD)]) as server:
        directory = session(target, tmp_path / "runs", server, trials=1)
    (record,) = state_of(directory).records
    assert record.repairs[0].runs[0].status == "oom"
    assert record.decision == "keep"
    remark = server.chats[1]["messages"][2]["content"]
    assert "GB of memory" in remark
    assert "1 GB" in remark


def test_smoke_command_fails_without_training(target: Path, tmp_path: Path) -> None:
    train = TRAIN.replace("noise =", "if '--smoke' in sys.argv:\n    raise SystemExit(value() > 4)\nnoise =")
    train = train.replace("import random", "import random\nimport sys")
    make_bowl(tmp_path / "own", train=train, toml=SMOKE_TOML)
    high = train.replace("return 3.0 + 0.05", "return 5.0 + 0.05")
    bad = f"Subject: High\n\n```diff\n{unified_diff(train, high, 'train.py')}```\n"
    with OpenAIServer([bad, bad]) as server:
        smoked = session(tmp_path / "own", tmp_path / "runs", server, repairs=0)
        unsmoked = session(tmp_path / "own", tmp_path / "runs", server, repairs=0, smoke="off", tag="off")
    (run,) = state_of(smoked).records[0].runs
    assert (run.status, list(run.seconds)) == ("crash", ["smoke"])
    assert run.reason.endswith("(smoke test)")
    (run,) = state_of(unsmoked).records[0].runs
    assert (run.status, list(run.seconds)) == ("ok", ["training"])
    assert "smoke tests" in status_json(night_of(state_of(smoked), {}))["split"]


def test_search_method_gets_failure_without_repair(target: Path, tmp_path: Path) -> None:
    train = TRAIN.replace("noise =", "if '--smoke' in sys.argv and RATE != 0.01:\n    raise SystemExit(1)\nnoise =")
    make_bowl(tmp_path / "own", train=train.replace("import random", "import random\nimport sys"), toml=SMOKE_TOML)
    directory = start(tmp_path / "own", tmp_path / "runs", trials=2)
    for record in state_of(directory).records:
        assert (record.status, record.repairs) == ("crash", ())
        assert [list(run.seconds) for run in record.runs] == [["smoke"]]
    assert git(tmp_path / "own", "status", "--porcelain") == ""


@pytest.mark.parametrize("value", ["never", "-3", "0", "nan"])
def test_bad_smoke_setting_names_the_option(target: Path, tmp_path: Path, value: str) -> None:
    with pytest.raises(Exception, match="--smoke"):
        start(target, tmp_path / "runs", smoke=value)
