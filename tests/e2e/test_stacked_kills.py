"""Stacked sessions that die at every step, and with several workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ladder import GAINS, SETTINGS, WORTH, check_stacked, make_ladder
from sessions import killed, resume, start, state_of


def test_two_workers_find_the_gains(tmp_path: Path) -> None:
    target = make_ladder(tmp_path / "target")
    directory = start(target, tmp_path / "runs", **SETTINGS, workers=2, budget="20steps", threads=1)
    state = check_stacked(directory, target, len(WORTH))
    assert set(GAINS) >= {record.number for record in state.kept}
    assert state.kept


def test_interrupted_night_resumes_to_the_same_verdicts(tmp_path: Path) -> None:
    """The session dies at every kind of event, at before and after it is written."""
    target = make_ladder(tmp_path / "target")
    kinds = ["stacked", "run_started", "measured", "weighed", "candidate", "judged", "move", "published", "told"]
    plan = [(when, what) for what in kinds for when in ("before", "after")]
    deaths = 0
    work: Callable[[], object] = lambda: start(target, tmp_path / "runs", **SETTINGS)  # noqa: E731
    for when, what in plan:
        deaths += killed(work, _next(when, what))
        work = lambda: resume(tmp_path / "runs")  # noqa: E731
    directory = resume(tmp_path / "runs")
    assert deaths == len(plan)
    state = check_stacked(directory, target, len(WORTH))
    before = state_of(start(make_ladder(tmp_path / "other"), tmp_path / "runs", "other", **SETTINGS))
    assert [stack.edits for stack in state.stacks] == [stack.edits for stack in before.stacks]
    assert [record.verdict for record in state.records] == [record.verdict for record in before.records]


def _next(when: str, what: str) -> Callable[[str, str], bool]:
    return lambda now, event: (now, event) == (when, what)
