"""A session seen from outside: what the files of its run directory say now."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from rich.console import RenderableType
from rich.text import Text

from agent import text
from agent.ledger.events import Event
from agent.ledger.recovery import LedgerTail
from agent.ledger.state import State, StateBuilder
from agent.observers.activity import OVER, Activity, follow, later
from agent.observers.heartbeat import read_heartbeat
from agent.observers.panel import night_panel
from agent.review.data.attempt import end_of
from agent.review.data.runs import condition
from agent.review.data.summary import summarize
from agent.review.terminal.runs import condition_text
from agent.review.terminal.status import heartbeat_text, noise_words, time_text
from agent.rundir.directory import RunDirectory
from agent.settings import NEED_MODEL
from sandbox.tools import output_of

GPU_REFRESH = 3.0  # seconds between two calls of nvidia-smi
LOG_LINES, LOG_BYTES = 3, 8192  # shown of session.log, and read
FIXED_LINES = 11  # of the panel: border, phase, bar, figures


class Watched:
    """Follows the ledger, progress.json and session.log of a session; reads only what was added."""

    def __init__(self, directory: RunDirectory):
        self.directory = directory
        self._tail = LedgerTail(directory.ledger, self._take)
        self._last = Activity()
        self._gpu: tuple[float, str] = (float("-inf"), "")

    def state(self) -> State:
        """The fold of the readable ledger lines."""
        self._tail.look()
        return self._tail.builder.state()

    @property
    def damage(self) -> list[str]:
        """One text for each ledger line that cannot be read."""
        return self._tail.damage

    def _take(self, builder: StateBuilder, event: Event) -> None:
        builder.apply(event)
        self._last = follow(self._last, event)

    def activity(self, state: State, now: float) -> Activity:
        """The activity at ``now``, by the newer of heartbeat and ledger; its ``time`` is that of the last write."""
        found = read_heartbeat(self.directory.progress)
        if found.time < state.last_time:
            found = replace(self._last, time=state.last_time)
        return later(found, max(0.0, now - found.time))

    def picture(self, width: int, height: int) -> RenderableType:
        """The panel for a terminal of ``width`` × ``height`` characters; ``height`` 0: without a limit."""
        state, now = self.state(), time.time()
        running = self.directory.running()
        activity = self.activity(state, now)
        if not running:
            activity = Activity(OVER, note=state.ended or f"`{self.directory.command('resume')}` continues it")
        rows = self._rows(state, activity, now, running)
        free = (height or 40) - FIXED_LINES - len(rows)
        fits = free >= 6 and width >= 50 and activity.losses
        chart = (min(width - 30, 100), min(6, free // 2)) if fits else (min(48, width - 18), 0)
        logged = self._log(LOG_LINES if free - chart[1] > 8 else 0)
        recent = max(0, min(8, free - chart[1] - 3 - len(logged)))
        foot = "q quits, the session continues" if running and height else ""
        badge = condition_text(condition(state, running))
        return night_panel(state, activity, now, recent, rows, chart, badge, foot, logged)

    def _rows(self, state: State, activity: Activity, now: float, running: bool) -> list[tuple[str, Text]]:
        summary = summarize(state)
        rows = [("noise", Text(noise_words(summary))), ("time", time_text(summary))]
        if self.damage:
            what = self.damage[0].removeprefix(f"{self.directory.path}/")
            more = f"; and {text.count(len(self.damage) - 1, 'other line')}" if len(self.damage) > 1 else ""
            rows.insert(0, ("damaged", text.safe(what + more, "yellow")))
        if not running:
            return rows
        if state.session.proposer in NEED_MODEL:
            name = next((r.proposal.model for r in reversed(state.records) if r.proposal.model), "")
            doing = "answering" if activity.phase == "model" else "idle"
            doing = "unreachable; the session waits" if "model server" in activity.note else doing
            rows.append(("model", text.safe(" · ".join(part for part in (name, doing) if part))))
        if gpu := self.gpu(state):
            rows.append(("gpu", Text(gpu)))
        return [*rows, ("heartbeat", heartbeat_text(max(0.0, now - activity.time)))]

    def gpu(self, state: State) -> str:
        """Memory, load and temperature of the session's GPU; "" without one."""
        device = state.session.device or "cpu"
        if device != "cpu" and time.monotonic() - self._gpu[0] > GPU_REFRESH:
            words = gpu_words(device)
            self._gpu = (time.monotonic(), words)
        return self._gpu[1]

    def _log(self, count: int) -> list[Text]:
        lines = end_of(self.directory.log, LOG_BYTES).splitlines()[-count:] if count else []
        return [text.safe(re.sub(r"^\S+ (\S{8})\S* INFO", r"\1", line), "dim") for line in lines]


def gpu_words(device: str) -> str:
    """Memory, load and temperature of a GPU from nvidia-smi; "" if nvidia-smi fails."""
    query = "memory.used,memory.total,utilization.gpu,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    command += ["-i", device] if device.startswith("GPU-") else []
    try:
        used, total, load, heat = map(float, output_of(*command, seconds=5.0).partition("\n")[0].split(","))
    except ValueError:
        return ""
    return f"{used / 1024:.1f} of {total / 1024:.0f} GiB · {load:.0f} % busy · {heat:.0f} °C"
