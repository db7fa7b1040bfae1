"""The progress of a replay: a bar on a terminal, and one line per run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from agent import text
from agent.replay.steps import Step
from agent.types import Measurement


class ReplayProgress(Progress):
    """Shows each run; ``total`` is the number of planned runs.

    Only ``progress`` is called from the threads of workers. It changes nothing but the bar, which rich locks.
    """

    def __init__(self, console: Console, metric: str, total: int):
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._metric, self._total, self._done, self._run = metric, total, 0, ""
        self._all = self.add_task("", total=total)

    def begins(self, step: Step, run: int, runs: int) -> None:
        self._run = _name(step, run, runs)
        self.update(self._all, description=self._run)

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        loss = info.get("loss")
        words = f"{self._run}: {phase}" + (f", loss {loss:.3f}" if isinstance(loss, float) else "")
        self.update(self._all, description=words)

    def measured(self, step: Step, run: int, runs: int, found: Measurement) -> None:
        self._done += 1
        self.update(self._all, completed=self._done, total=max(self._total, self._done))
        value = text.number(found.value, found.self_reported)
        words = f"{self._metric} {value}" if found.value is not None else found.status
        followed = next((old.value for old in step.runs if old.seed == found.seed), step.recorded)  # with --exact
        recorded = f" (recorded {text.number(followed)})" if followed is not None else ""
        spent = text.duration(sum(found.seconds.values()))
        line = f"{_name(step, run, runs)}  {words}{recorded}  {spent}  {step.subject}"
        self.console.print(Text(text.line(line, 160)), soft_wrap=True)


def _name(step: Step, run: int, runs: int) -> str:
    return f"step {step.number}, run {run} of {runs}"
