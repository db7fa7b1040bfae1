"""Start-up and loading of an edit are bounded by a multiple of the baseline's own."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from bench_target import Bench

from agent.trial.usual import LOADING, PROCESSOR, UNKNOWN, Usual, usual_of
from agent.types import Measurement

RUN = Measurement("base", "calibrate", 1, "cpu", "ok", 2.0, {PROCESSOR: 4.0, LOADING: 0.5}, {"startup": 5.0})


def test_bounds_are_multiples_of_the_longest_calibration_run() -> None:
    slower = dataclasses.replace(RUN, seconds={"startup": 50.0}, metrics={PROCESSOR: 40.0, LOADING: 8.0})
    usual = usual_of([RUN, slower])
    assert usual == Usual(startup=150.0, processor=120.0, loading=24.0)


def test_short_start_ups_have_a_margin() -> None:
    assert usual_of([RUN]) == Usual(startup=25.0, processor=14.0, loading=6.5)
    assert usual_of([dataclasses.replace(RUN, device="GPU-1")]).loading == 10.5


def test_failed_runs_and_old_ledgers_give_no_bound() -> None:
    edited = dataclasses.replace(RUN, role="screen")
    failed = dataclasses.replace(RUN, status="crash", value=None)
    assert usual_of([edited, failed]) == UNKNOWN
    old = usual_of([dataclasses.replace(RUN, metrics={})])
    assert old.startup < old.processor == old.loading == math.inf


@pytest.mark.parametrize(
    ("usual", "reason"),
    [(Usual(startup=1.0), "startup took more than"), (Usual(processor=1.0), "of processor time")],
)
def test_start_up_beyond_the_bound_times_out(usual: Usual, reason: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.usual = usual
    run = bench.measure(("    run.begin(model)\n", "    while True:\n        pass\n"))
    assert (run.status, run.value) == ("timeout", None)
    assert reason in run.reason
