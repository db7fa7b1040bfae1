"""What a running session is doing now, followed from its events and progress reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.ledger.events import Asked, Event, Lost, RunStarted, Told

LOSSES = 400  # kept for the sparkline


def follow(activity: Activity, event: Event) -> Activity:
    """What the ledger says that begins: a run, or the wait for an idea."""
    match event:
        case RunStarted():
            return Activity("startup", event.trial, event.role, note=activity.note)
        case Told():
            return Activity("model", event.trial + 1, note=activity.note)
        case Asked():
            return replace(activity, note="")  # whatever stood in the way is over
        case Lost():
            return replace(activity, note=f"a run was lost to the machine: {event.reason}")
    return activity


def advance(activity: Activity, phase: str, info: Mapping[str, Any]) -> None:
    """Take one progress message in. Its numbers come from the untrusted side: what is no number is left out."""
    if phase != activity.phase:
        activity.phase, activity.seconds, activity.progress, activity.seconds_left = phase, 0.0, None, None
    activity.trial = int(info.get("trial", activity.trial))
    activity.role = str(info.get("role", activity.role))
    activity.running = int(info.get("running", activity.running))
    for name in ("loss", "progress", "tokens_per_second", "memory_gb"):
        if (value := _finite(info.get(name))) is not None:
            setattr(activity, name, value)
    if (step := _finite(info.get("step"))) is not None:
        activity.step = int(step)
    activity.seconds = _finite(info.get("seconds")) or 0.0
    if "seconds_left" in info:
        activity.seconds_left = _finite(info["seconds_left"])
    if (loss := _finite(info.get("loss"))) is not None:
        activity.losses.append(loss)
        if len(activity.losses) > LOSSES:
            activity.losses = activity.losses[::2]  # halve the resolution, keep the shape


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


@dataclass
class Activity:
    """What the session is doing now, as its progress messages tell."""

    phase: str = ""
    trial: int = 0
    role: str = ""
    step: int | None = None
    loss: float | None = None
    progress: float | None = None
    tokens_per_second: float | None = None
    memory_gb: float | None = None
    seconds: float = 0.0
    seconds_left: float | None = None
    losses: list[float] = field(default_factory=list)
    running: int = 1  # runs under way, this one included
    note: str = ""
