"""What a session shows while it works: a live panel on a terminal, one plain line per event anywhere else.

A view never ends a session: whatever goes wrong while drawing is dropped, and the night goes on without a picture.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from agent.ledger import Event, State
from agent.types import Measurement, Record, from_json
from agent.views import text
from agent.views.log import reason
from agent.views.night import Activity, night_panel

LOSSES = 400  # kept for the sparkline


class View(Protocol):
    """What the session tells while it works. Used as a context manager around it."""

    def event(self, event: Event, state: State) -> None:
        """After each event of the ledger."""
        ...

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        """Now and then within a phase: startup, training, scoring, model, or note (a text for people)."""
        ...

    def __enter__(self) -> Any: ...
    def __exit__(self, *_: object) -> None: ...


class SilentView:
    """Shows nothing."""

    def event(self, event: Event, state: State) -> None:
        return

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        return

    def __enter__(self) -> SilentView:
        return self

    def __exit__(self, *_: object) -> None:
        return


class Several:
    """Views side by side. What goes wrong in one of them is dropped."""

    def __init__(self, *views: View):
        self._views = views
        self._stack = ExitStack()

    def __enter__(self) -> Several:
        for view in self._views:
            self._stack.enter_context(view)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def event(self, event: Event, state: State) -> None:
        for view in self._views:
            with suppress(Exception):
                view.event(event, state)

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        for view in self._views:
            with suppress(Exception):
                view.progress(phase, info)


class LiveView:
    """Draws on ``console``: live where it is a terminal, in plain lines where it is not."""

    def __init__(self, console: Console):
        self.console = console
        self.state = State()
        self.activity = Activity()
        self._seen = time.monotonic()
        self._noted = ""
        self._last: RenderableType = Text()
        self._live: Live | None = None

    def __enter__(self) -> LiveView:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            # stdout is data: it is left alone, and only what goes to the panel's own stream is kept above the panel
            self._live = Live(console=self.console, get_renderable=self._draw, refresh_per_second=4,
                              redirect_stdout=False, redirect_stderr=self.console.stderr)  # fmt: skip
            try:
                self._live.start()
            except Exception:
                self._live = None
        return self

    def __exit__(self, *_: object) -> None:
        live, self._live = self._live, None
        if live is not None:
            try:
                live.stop()
            except Exception:
                return

    def event(self, event: Event, state: State) -> None:
        self.state = state
        try:
            self._seen = time.monotonic()
            self.activity = follow(self.activity, event)
            if event["event"] == "lost":
                self._note(self.activity.note)
            if self._live is None and (line := plain_line(event, state)):
                self.console.print(Text(line), soft_wrap=True, highlight=False)
        except Exception:
            return

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        try:
            self._seen = time.monotonic()
            if phase == "note":
                self._note(str(info.get("text", "")))
            else:
                advance(self.activity, phase, info)
        except Exception:
            return

    def _note(self, words: str) -> None:
        new, self._noted, self.activity.note = words != self._noted, words, words
        if new and words and self._live is None:
            self.console.print(Text(f"note: {text.line(words)}"), soft_wrap=True, highlight=False)

    def _draw(self) -> RenderableType:
        """Called by the drawing thread, several times a second, so that clocks move between messages."""
        try:
            recent = max(0, min(6, self.console.height - 14))
            waited = time.monotonic() - self._seen
            activity = Activity(**vars(self.activity))
            activity.seconds += waited
            if activity.seconds_left is not None:
                activity.seconds_left = max(0.0, activity.seconds_left - waited)
            self._last = night_panel(self.state, activity, time.time(), recent)
        except Exception:
            return self._last
        return self._last


def follow(activity: Activity, event: Event) -> Activity:
    """What the ledger says that begins: a run, or the wait for an idea."""
    kind, note = event["event"], activity.note
    if kind == "run_started":
        return Activity("startup", int(event["trial"]), str(event["role"]), note=note)
    if kind == "told":
        return Activity("model", int(event["trial"]) + 1, note=note)
    if kind == "asked":
        return replace(activity, note="")  # whatever stood in the way is over
    if kind == "lost":
        return replace(activity, note=f"a run was lost to the machine: {event['reason']}")
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


def plain_line(event: Event, state: State) -> str:
    """One line for a file or a pipe; "" for events that say nothing to people."""
    kind = event["event"]
    session = state.session
    metric, planned = text.line(str(session.get("metric", "value"))), session.get("trials")
    if kind == "session":
        return f"run {text.line(str(session.get('tag', '')))}: {text.line(str(session.get('proposer', '')))}, " + (
            text.count(planned, "trial") if planned else "no bound on trials"
        )
    if kind == "measured" and event["trial"] == 0:
        return _baseline_line(from_json(Measurement, event["measurement"]), metric, state)
    if kind in ("judged", "asked"):
        record = state.of_trial(int(event["trial"]))
        if record is not None and (record.verdict is not None or record.proposal.ending):
            return trial_line(record, metric, planned)
    if kind == "resumed":
        done = len(state.finished)
        within = planned and done <= planned
        return f"resumed after {f'{done} of {planned} trials' if within else text.count(done, 'trial')}"
    if kind == "ended":
        return text.line(f"ended: {event['reason']}")
    return ""


def _baseline_line(run: Measurement, metric: str, state: State) -> str:
    runs = sum(1 for m in state.baseline_runs if m.role != "test")
    if run.role == "test":
        found = text.number(run.value) if run.value is not None else text.line(run.reason)
        return f"baseline on the test split  {found}"
    found = f"{metric} {text.number(run.value, run.self_reported)}" if run.status == "ok" else run.status
    why = f": {text.line(run.reason)}" if run.status != "ok" else ""
    return f"calibration run {runs}  {found}{why}  ({text.duration(sum(run.seconds.values()))})"


def trial_line(record: Record, metric: str, planned: int | None) -> str:
    """``trial 7/60  keep  val_bpb 1.0334  +0.0037 ± 0.0011  Widen the MLP``."""
    # a run that was resumed may go on beyond the number it was started with
    where = f"trial {record.number}/{planned}" if planned and record.number <= planned else f"trial {record.number}"
    subject = text.line(record.proposal.subject, 100)
    verdict = record.verdict
    if record.status != "ok" or verdict is None:
        return f"{where}  {record.status}  {text.line(reason(record), 160)}" + (f"  [{subject}]" if subject else "")
    reported = any(run.self_reported for run in record.runs)
    value = f"{metric} {text.number(verdict.value, reported)}"
    return f"{where}  {record.decision}  {value}  {text.gain(verdict.gain, verdict.gain_se)}  {subject}"


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
