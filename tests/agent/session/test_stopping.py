"""When a session ends: bounds, trials that do not fit, and the breaker."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_server import Answer, OpenAIServer
from sessions import check_whole, resume, start, state_of
from targets import TRAIN, make_bowl

from agent.ledger.state import State
from agent.patch.apply import unified_diff
from agent.rundir.directory import RunDirectory
from agent.session.stopping import Cost, EndOfNight, Stuck, breaker, expected_cost, reason_to_end
from agent.settings import Settings, parse_until
from agent.target import load_target
from agent.types import Measurement, Proposal, Record, Verdict

NIGHT = datetime(2026, 1, 2, 22, 15)


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("07:30", datetime(2026, 1, 3, 7, 30)),
        ("22:16", datetime(2026, 1, 2, 22, 16)),
        ("22:15", datetime(2026, 1, 3, 22, 15)),
    ],
)
def test_until_is_next_occurrence(text: str, until: datetime) -> None:
    assert parse_until(text, NIGHT) == until


def test_model_ends_session_at_its_tokens_or_cost() -> None:
    used = Proposal("code", "llm", "p", "d", usage={"tokens_in": 900_000.0, "tokens_out": 100_000.0})
    state = State(records=(replace(record(1), proposal=used), record(2)))
    assert reason(state, max_tokens_total=1_000_001) == ""
    assert "1,000,000 tokens" in reason(state, max_tokens_total=1_000_000)
    prices = {"price_in": 1.0, "price_out": 10.0}
    assert reason(state, max_cost=1.91, **prices) == ""
    assert "1.90" in reason(state, max_cost=1.9, **prices)
    rough = replace(used, usage={**used.usage, "estimated": 1.0})
    assert "estimated" in reason(State(records=(replace(record(1), proposal=rough),)), max_tokens_total=1_000_000)


def test_session_ends_at_its_gpu_hours() -> None:
    gpu = replace(run(1800, startup=900, scoring=900), device="GPU-a")
    state = State(records=(record(1),), runs={"c": (gpu, replace(gpu, role="test"), run(99_999, "crash"))})
    assert reason(state, gpu_hours=4.0) == ""
    assert reason(state, gpu_hours=1.0) == "1 hour on GPUs is over"
    assert "on GPUs" in reason(state, gpu_hours=1.5)


class NoRequest:
    """A Stopper without a request of the user."""

    def asked(self) -> str:
        return ""


def run(training: float, status: str = "ok", reason: str = "", **seconds: float) -> Measurement:
    value = 3.0 if status == "ok" else None
    return Measurement(
        "c", "screen", 1, "cpu", cast(Any, status), value, seconds={"training": training, **seconds}, reason=reason
    )


def record(number: int, *runs: Measurement, **fields: Any) -> Record:
    verdict = Verdict("revert", 3.0, 3.0, 0.0, None, 1, 1, 0, "")
    return replace(Record(number, Proposal("code", "llm", "p", "d"), "c", runs, verdict=verdict, ended=0.0), **fields)


def reason(state: State, **settings: Any) -> str:
    return EndOfNight(Settings(**settings), cast(Any, NoRequest())).before(state, len(state.finished) + 1)


def test_session_ends_at_its_bounds() -> None:
    state = State(records=(record(1), record(2)), runs={"c": (run(1800), run(1900))})
    assert reason(state) == ""
    assert reason(state, trials=3) == ""
    assert reason(state, trials=2) == "all 2 trials done"
    assert reason(state, train_hours=1.0) == "1 hour of training is over"
    assert reason(state, train_hours=2.0) == ""
    assert reason(state, hours=1e-12) == "1e-12 hours are over"


# a trial that would not fit


def test_expected_cost_is_median_of_trials() -> None:
    runs = (run(300, startup=20, scoring=10), run(302, startup=24, scoring=12), run(9000, startup=22, scoring=11))
    failed = (run(1, "crash"), run(2, "crash"), replace(run(7), role="test"))
    state = State(records=(record(1, asking=5), record(2, asking=7), record(3, asking=400)), runs={"c": runs + failed})
    assert expected_cost(state) == Cost(302 + 22 + 11 + 7, 302, 302 + 22 + 11)


@pytest.mark.parametrize(
    ("toml", "known"), [(('score = "trusted"', ""), 20.0), (('score = "stdout"', "pattern = 'v: (.)'"), 0.0)]
)
def test_expected_cost_before_first_run_is_budget(tmp_path: Path, toml: tuple[str, ...], known: float) -> None:
    text = '[target]\neditable = ["train.py"]\ntrain = ["python"]\n' + "\n".join(toml) + "\n[budget]\nseconds = 20\n"
    (tmp_path / "target.toml").write_text(text)
    assert expected_cost(State(), load_target(tmp_path)[0]).trial == known
    assert expected_cost(State()) == Cost(0, 0)


COST = Cost(trial=360, training=300, run=350)


@pytest.mark.parametrize(
    ("settings", "elapsed", "until_left", "ends"),
    [
        ({"hours": 1.0}, 3240, None, ""),
        ({"hours": 1.0}, 3241, None, "5 min 59 s are left of 1 hour, and a trial takes about 6 min 00 s"),
        ({"hours": 1.0}, 3600, None, "1 hour is over"),
        ({"until": "07:30"}, 0, 361, ""),
        ({"until": "07:30"}, 0, 59, "59 s are left until 07:30, and a trial takes about 6 min 00 s"),
        ({"until": "07:30"}, 0, -1, "it is 07:30"),
        ({"train_hours": 1.0}, 0, None,
         "4 min 00 s are left of 1 hour of training, and a trial takes about 5 min 00 s"),
        ({"train_hours": 1.1}, 0, None, ""),
        ({"gpu_hours": 0.1}, 0, None, ""),  # the runs were on a CPU
        ({"hours": 2.0, "trials": 1}, 7000, None, "the one trial is done"),
        ({}, 1e9, None, ""),
    ],
)  # fmt: skip
def test_trial_that_does_not_fit_is_not_started(
    settings: dict[str, Any], elapsed: float, until_left: float | None, ends: str
) -> None:
    state = State(records=(record(1),), runs={"c": (run(3360), replace(run(9999), role="test"))})
    assert reason_to_end(state, Settings(**settings), COST, elapsed, until_left) == ends


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0.01, 24))
def test_started_trials_end_before_the_bound(elapsed: float, trial: float, hours: float) -> None:
    if not reason_to_end(State(), Settings(hours=hours), Cost(trial, trial), elapsed):
        assert elapsed + trial <= hours * 3600 + 1e-6


def test_session_ends_when_no_trial_fits(tmp_path: Path) -> None:
    slow = TRAIN.replace("\nnoise =", "import time\n\ntime.sleep(0.5)\nnoise =")
    target = make_bowl(tmp_path / "target", slow)
    directory = start(target, tmp_path / "runs", policy="greedy", calibrate=1, trials=500, hours=3 / 3600)
    state = state_of(directory)
    assert "a trial takes about" in str(state.ended) or "hours are over" in str(state.ended)
    resume(tmp_path / "runs", hours=1.0, trials=len(state.records))  # an idea may have come too late for its run
    check_whole(directory, target, len(state.records))


# the breaker


def failed(number: int, reason: str = "CUDA error", status: str = "crash") -> Record:
    return record(number, run(1, status, reason))


def tripped(records: list[Record], limit: int = 3, resumed_at: int = 0) -> bool:
    return bool(breaker(State(records=tuple(records), resumed_at=resumed_at), limit))


def test_breaker_trips_on_equal_failures() -> None:
    same = [failed(n) for n in (1, 2, 3)]
    assert tripped(same)
    assert tripped([record(0, run(1)), *same])
    assert not tripped(same[:2])
    assert not tripped([*same, record(4, run(1))]), "a successful trial since"
    assert not tripped([same[0], record(2, run(1)), *same[1:]])
    assert not tripped(same, limit=0)
    assert not tripped([*same[:2], failed(3, "another error")])
    assert not tripped([*same[:2], failed(3, status="oom")])
    assert tripped([failed(n, f"trained for {n}.5 s, allowed 3 s", "over_budget") for n in (1, 22, 333)])
    ended = [Record(n, Proposal("code", "llm", "p", "", ending="patch_rejected", reason="no diff")) for n in (1, 2, 3)]
    assert tripped(ended)
    assert breaker(State(records=tuple(same)), 1).startswith("the last trial failed: crash")


def test_breaker_restarts_after_resume() -> None:
    same = [failed(n) for n in range(1, 7)]
    assert not tripped(same[:3], resumed_at=3)
    assert not tripped(same[:5], resumed_at=3)
    assert tripped(same, resumed_at=3)


def test_equal_failures_stop_session(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    edits = [TRAIN.replace("import math", f"import math\nimport gone  # {k}") for k in range(20)]
    edits = [text.replace("def value():", f"K = {k}\n\n\ndef value():") for k, text in enumerate(edits)]
    replies = [f"Subject: Edit\n\n```diff\n{unified_diff(TRAIN, text, 'train.py')}```\n" for text in edits]
    settings = {"proposer": "code", "trials": 7, "repairs": 0, "breaker": 3}
    with OpenAIServer(replies, at_end=Answer(text="no")) as server:
        with pytest.raises(Stuck, match=r"3 trials.*No module named 'gone'"):
            start(target, tmp_path / "runs", llm_base_url=server.base_url, **settings)
        directory = RunDirectory(tmp_path / "runs", "night")
        assert "overnight show night 3" in str(state_of(directory).ended)
        check_whole(directory, target, 3)
        with pytest.raises(Stuck):
            resume(tmp_path / "runs")
        resume(tmp_path / "runs", breaker=0)
    check_whole(directory, target, 7)
