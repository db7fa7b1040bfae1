"""Policies ``greedy`` and ``margin``, the check of the baseline, and rules that all policies share."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agent.errors import OvernightError, UsageError
from agent.judge.gain import without_screening_run
from agent.judge.noise import Noise
from agent.judge.policy import (
    NAMES,
    RETRIES,
    History,
    MeasureNext,
    Policy,
    check_baseline,
    default_calibration,
    in_words,
    judge,
    needs_noise,
    policy_from,
)
from agent.types import Measurement, Verdict

GREEDY, MARGIN = Policy("greedy"), Policy("margin")


def run(value: float | None, role: Any = "incumbent", **fields: Any) -> Measurement:
    return Measurement("c", role, 0, "cpu", "ok" if value is not None else "crash", value, **fields)


def history(before: list[float | None], after: list[float | None], sd: float | None = 1.0, **fields: Any) -> History:
    roles = ["screen"] + ["confirm"] * 9
    return History(
        fields.pop("goal", "minimize"),
        "old",
        "new",
        tuple(run(v, "calibrate") for v in before),
        tuple(run(v, role) for v, role in zip(after, roles, strict=False)),
        Noise(sd, 10 if sd is not None else 0),
        **fields,
    )


def verdict(step: Verdict | MeasureNext) -> Verdict:
    assert isinstance(step, Verdict), step
    return step


def test_default_policy_comes_first() -> None:
    assert NAMES == ("confirm", "margin", "greedy", "stacked")
    assert Policy().name == NAMES[0]


def test_unknown_policy_names_nearest() -> None:
    with pytest.raises(UsageError, match="'greedy'"):
        policy_from("gredy")
    with pytest.raises(UsageError, match="confirm, margin, greedy"):
        policy_from("zzz")
    assert policy_from("margin", keep_simpler=True).keep_simpler


def test_default_calibration_by_policy() -> None:
    assert default_calibration(GREEDY, None) == 1
    assert default_calibration(MARGIN, 10) == 4
    assert default_calibration(Policy("confirm"), None) == 3
    assert [needs_noise(Policy(name)) for name in NAMES] == [True, True, False, True]


@pytest.mark.parametrize("name", NAMES)
def test_candidate_runs_first(name: str) -> None:
    assert judge(history([5.0] * 5, []), Policy(name)) == MeasureNext("new", "screen", "first run")


@pytest.mark.parametrize("name", NAMES)
def test_failed_run_reverts_without_value(name: str) -> None:
    found = verdict(judge(history([5.0] * 5, [None]), Policy(name)))
    assert (found.decision, found.value, found.gain) == ("revert", None, None)
    assert found.reason == "crash"


@pytest.mark.parametrize("name", NAMES)
def test_failed_repeat_reverts(name: str) -> None:
    assert verdict(judge(history([5.0] * 5, [1.0, None]), Policy(name))).decision == "revert"


@pytest.mark.parametrize("name", NAMES)
def test_incumbent_that_always_fails_is_an_error(name: str) -> None:
    step = judge(history([], [1.0]), Policy(name))
    assert isinstance(step, MeasureNext)
    assert step.role == "incumbent"
    with pytest.raises(OvernightError, match="old"):
        judge(history([None] * (RETRIES + 1), [1.0]), Policy(name))


@pytest.mark.parametrize(("after", "decision"), [(4.99, "keep"), (5.0, "revert"), (5.01, "revert")])
def test_greedy_keeps_every_lower_value(after: float, decision: str) -> None:
    assert verdict(judge(history([5.0], [after], sd=None), GREEDY)).decision == decision


@pytest.mark.parametrize("name", ["confirm", "margin"])
def test_unknown_noise_is_an_error_naming_calibrate(name: str) -> None:
    with pytest.raises(UsageError, match="--calibrate"):
        judge(history([5.0], [4.0], sd=None), Policy(name))


def test_margin_keeps_gain_above_t_quantile() -> None:
    bar = 1.8125 * (1 + 1 / 4) ** 0.5  # t(0.95, 10)
    assert verdict(judge(history([5.0] * 4, [5 - bar + 0.01]), MARGIN)).decision == "revert"
    kept = verdict(judge(history([5.0] * 4, [5 - bar - 0.01]), MARGIN))
    assert kept.decision == "keep"
    assert kept.gain_se == pytest.approx(1.25**0.5)


def test_margin_repeats_incumbent_with_one_run() -> None:
    step = judge(history([5.0], [0.0]), MARGIN)
    assert isinstance(step, MeasureNext)
    assert (step.commit, step.role) == ("old", "incumbent")


def test_margin_keeps_simpler_tie_only_if_asked() -> None:
    simpler = Policy("margin", keep_simpler=True)
    tie = history([5.0] * 4, [5.1], simpler_by=12)
    assert verdict(judge(tie, simpler)).decision == "keep"
    assert verdict(judge(tie, MARGIN)).decision == "revert"
    assert verdict(judge(history([5.0] * 4, [5.1]), simpler)).decision == "revert"
    assert verdict(judge(history([5.0] * 4, [8.0], simpler_by=12), simpler)).decision == "revert"


def test_memory_growth_needs_twice_the_gain() -> None:
    def with_memory(gb: float) -> History:
        plain = history([5.0] * 4, [2.5])
        before = tuple(dataclasses.replace(r, peak_memory_gb=10.0) for r in plain.incumbent_runs)
        after = tuple(dataclasses.replace(r, peak_memory_gb=gb) for r in plain.candidate_runs)
        return dataclasses.replace(plain, incumbent_runs=before, candidate_runs=after)

    assert verdict(judge(with_memory(12.0), MARGIN)).decision == "keep"
    assert verdict(judge(with_memory(13.0), MARGIN)).decision == "revert"


def test_screening_run_leaves_the_estimate() -> None:
    runs = (run(1.0, "screen"), run(2.0, "confirm"), run(2.2, "reserve"))
    assert without_screening_run(runs) == runs[1:]
    assert without_screening_run(runs[:1]) == runs[:1]
    assert without_screening_run((runs[0], run(None, "incumbent"))) == (runs[0], run(None, "incumbent"))


def test_stable_baseline_passes() -> None:
    for name in NAMES:
        check_baseline([run(1.50), run(1.51), run(1.49)], Policy(name))
        check_baseline([run(1.5)] * 4, Policy(name))
    check_baseline([run(1.5)], GREEDY)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.5, None, None], "2 of 3"),
        ([1.5, None], "--calibrate"),
        ([1.5, 3.0, 1.4], "--budget"),
        ([], "--calibrate"),
    ],
)
def test_unusable_baseline_is_an_error(values: list[float | None], message: str) -> None:
    with pytest.raises(OvernightError, match=message):
        check_baseline([run(value) for value in values], Policy("confirm"))


@pytest.mark.parametrize(("probability", "shown"), [(0.949, "94 %"), (0.99, "99 %"), (0.9951, "over 99 %")])
def test_probability_is_rounded_down(probability: float, shown: str) -> None:
    assert in_words(probability).endswith(shown)


def test_small_memory_growth_never_counts() -> None:
    runs = [
        Measurement("c", "screen", 0, "cpu", "ok", value, peak_memory_gb=gb) for value, gb in ((5.0, 0.01), (4.0, 0.05))
    ]
    history = History("minimize", "old", "new", (runs[0],) * 3, (runs[1],), Noise(0.4, 1000))
    found = judge(history, Policy("margin"))
    assert isinstance(found, Verdict)
    assert found.decision == "keep"
