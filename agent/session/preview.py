"""What a session would do: for ``overnight run --dry-run``."""

from __future__ import annotations

from collections.abc import Callable

from agent import text
from agent.rundir.directory import NOTES
from agent.session.setup import new_session
from agent.settings import Settings


def preview(settings: Settings, say: Callable[[str], None]) -> list[tuple[str, str]]:
    """Check everything that a start checks, and return the plan as names and texts. No run directory is made.

    Raises:
        UsageError, EnvironmentProblem: as ``start``.
    """
    parts, directory, notes = new_session(settings, say)
    policy = f"{parts.policy.name}: at least one run per trial that can be measured"
    target, training = parts.target, ""
    most = "" if target.score == "trusted" else "at most "
    if settings.trials is not None and target.budget.kind == "seconds":
        seconds = target.budget.amount * (parts.calibration + settings.trials)
        training = f"{most}{text.duration(seconds)} with one run per trial"
    lines = {
        "run": f"{directory.path}, branch autoresearch/{directory.tag}",
        "target": f"{target.path} at {parts.repo.head()[:10]}, {target.goal} {target.metric}",
        "proposer": settings.proposer,
        "sandbox": f"{parts.sandbox.name}, {parts.device.model or parts.device.kind}",
        "python": target.python,
        "notes": "none yet" if notes == NOTES else "your notes.md",
        "one run": f"{most}{target.budget}" if most else f"{target.budget} of training",
        "baseline": text.count(parts.calibration, "run"),
        "policy": policy if settings.trials != 0 else "",
        "ends": _end(settings),
        "training": training,
    }
    return [(name, words) for name, words in lines.items() if words]


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
