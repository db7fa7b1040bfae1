"""What a running session does now, derived from its events and progress messages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.ledger.events import Asked, Ended, Event, Lost, Observed, Resumed, RunStarted, ServerProblem
from agent.review.data.server import words_of
from agent.types import is_number

LOSSES = 400  # most points of the loss curve
OVER = "over"  # phase of a session that does nothing any more
COUNTS, FIGURES = ("trial", "running", "step"), ("loss", "progress", "tokens_per_second", "memory_gb")


@dataclass
class Activity:
    """What the session does now."""

    phase: str = ""
    trial: int = 0
    role: str = ""
    step: int | None = None
    loss: float | None = None
    progress: float | None = None  # share of the budget, 0 to 1
    tokens_per_second: float | None = None
    memory_gb: float | None = None
    seconds: float = 0.0  # since the phase began
    seconds_left: float | None = None
    losses: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)  # of the budget, 0 to 1, one for each loss
    running: int = 1  # runs in progress, this one included
    note: str = ""
    time: float = 0.0  # when it was written for other processes, in seconds since the epoch


def follow(activity: Activity, event: Event) -> Activity:
    """The activity after an event of the ledger."""
    match event:
        case RunStarted():
            return Activity("startup", event.trial, event.role, note=activity.note)
        case Observed():
            return Activity("model", event.trial + 1, note=activity.note)
        case Asked():
            return replace(activity, note="")  # the problem in the note is over
        case ServerProblem():
            return replace(activity, note=words_of(event))
        case Lost():
            return replace(activity, note=f"a run is lost and will be repeated: {event.reason}")
        case Resumed():
            return Activity()
        case Ended():
            return Activity(OVER)
    return activity


def advance(activity: Activity, phase: str, info: Mapping[str, Any]) -> None:
    """Apply one progress message. The message comes from untrusted code: values that are not numbers are ignored."""
    if phase == "note":
        activity.note = str(info.get("text", ""))
        return
    found = {name: value for name in info if (value := _finite(info[name])) is not None}
    if phase != activity.phase:
        activity.phase, activity.progress, activity.seconds_left = phase, None, None
    activity.role = str(info.get("role", activity.role))
    activity.seconds = found.get("seconds", 0.0)
    for name in COUNTS + FIGURES:
        if name in found:
            setattr(activity, name, int(found[name]) if name in COUNTS else found[name])
    if "seconds_left" in info:
        activity.seconds_left = found.get("seconds_left")
    if "loss" in found:
        activity.losses.append(found["loss"])
        activity.shares.append(activity.progress or 0.0)
        if len(activity.losses) > LOSSES:  # half the resolution, the same shape
            activity.losses, activity.shares = activity.losses[::2], activity.shares[::2]


def later(activity: Activity, seconds: float) -> Activity:
    """The same activity after some seconds without a message."""
    left = activity.seconds_left
    return replace(
        activity, seconds=activity.seconds + seconds, seconds_left=None if left is None else max(0.0, left - seconds)
    )


def _finite(value: Any) -> float | None:
    return float(value) if is_number(value) and abs(value) <= sys.float_info.max else None
