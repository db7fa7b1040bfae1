"""What a session would do: for ``overnight run --dry-run``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent import text
from agent.rundir.directory import NOTES
from agent.session.parts import Parts, assemble
from agent.session.setup import check_repository, new_run, notes_of
from agent.settings import Settings


def preview(settings: Settings, say: Callable[[str], None]) -> list[tuple[str, str]]:
    """Check everything that a start checks, and return the plan as names and texts. No run directory is made.

    Raises:
        UsageError, EnvironmentProblem: as ``start``.
    """
    settings, directory = new_run(settings)
    has_notes = notes_of(settings) != NOTES
    parts = assemble(settings, say)
    check_repository(parts.repo, settings.tag)
    parts.caution(say)
    return list(_lines(parts, str(directory.path), has_notes))


def _lines(parts: Parts, place: str, has_notes: bool) -> Iterator[tuple[str, str]]:
    settings, target = parts.settings, parts.target
    yield "run", f"{place}, branch autoresearch/{settings.tag}"
    yield "target", f"{target.path} at {parts.repo.head()[:10]}, {target.goal} {target.metric}"
    yield "proposer", settings.proposer
    yield "sandbox", f"{parts.sandbox.name}, {parts.device.model or parts.device.kind}"
    if target.python:
        yield "python", target.python
    yield "notes", "your notes.md" if has_notes else "none yet"
    bound = f"{target.budget} of training" if target.score == "trusted" else f"at most {target.budget}"
    yield "one run", bound
    yield "baseline", text.count(parts.calibration, "run")
    if settings.trials != 0:
        yield "policy", f"{parts.policy.name}: at least one run per trial that can be measured"
    yield "ends", _end(settings)
    seconds = target.budget.wall_seconds if target.budget.kind == "seconds" else 0.0
    if settings.trials is not None and seconds:
        most = "" if target.score == "trusted" else "at most "
        whole = seconds * (parts.calibration + settings.trials)
        yield "training", f"{most}{text.duration(whole)} with one run per trial"


def _end(settings: Settings) -> str:
    bounds = [
        "after the baseline" if settings.trials == 0 else "",
        f"after {text.count(settings.trials, 'trial')}" if settings.trials else "",
        f"after {settings.hours:g} h" if settings.hours else "",
        f"at {settings.until}" if settings.until else "",
        f"after {settings.train_hours:g} h of training" if settings.train_hours else "",
        f"after {text.count(settings.gpu_hours, 'GPU-hour')}" if settings.gpu_hours else "",
    ]
    return ", or ".join(filter(None, bounds)) or "when it is stopped: overnight stop, or Ctrl-C"
