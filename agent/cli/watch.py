"""``overnight watch TAG``: a session as it works, seen from outside.

It reads files of the run directory and nothing else: whatever becomes of the watcher, the session does not notice.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from agent import text
from agent.cli.output import say
from agent.cli.runs import existing
from agent.ledger.events import Event, NotAnEvent, decode
from agent.ledger.recovery import apply_sound
from agent.ledger.state import State, StateBuilder
from agent.observers.activity import Activity, follow
from agent.observers.heartbeat import read_heartbeat
from agent.observers.panel import night_panel
from agent.review.data.runs import condition
from agent.review.data.summary import summarize
from agent.review.terminal.runs import condition_text
from agent.review.terminal.status import heartbeat_text, noise_words, time_text
from agent.rundir.directory import RunDirectory
from agent.settings import NEED_MODEL

REFRESH = 0.5  # seconds
GPU_REFRESH = 3.0  # seconds between two questions to nvidia-smi
LOG_LINES = 3


def watch(tag: str | None, runs: str) -> int:
    """Draw until q, Ctrl-C or the end of the session; one picture where stdout is no terminal."""
    directory = existing(runs, tag)
    watched = Watched(directory)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    if console.is_terminal and not console.is_dumb_terminal and directory.running():
        try:
            with keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
                while directory.running():
                    live.update(watched.picture(*console.size), refresh=True)
                    if pressed(REFRESH) in ("q", "Q", "\x03", "\x1b"):
                        break
        except KeyboardInterrupt:
            pass
    picture = watched.picture(console.width, 0)
    for problem in watched.damage:
        say(problem)
    console.print(picture)
    return 0


@contextmanager
def keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key and returns it; "" without one, or without a keyboard."""
    try:
        import termios
        import tty

        stdin = sys.stdin.fileno()
        before = termios.tcgetattr(stdin)
    except (ImportError, OSError, ValueError, termios.error):
        yield no_key
        return

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([stdin], [], [], seconds)
        return os.read(stdin, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(stdin)
        yield pressed
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


class Watched:
    """What the files of a run say now."""

    def __init__(self, directory: RunDirectory):
        self.directory = directory
        self.damage: list[str] = []  # what cannot be read of the ledger, a text for each line of it
        self._builder, self._read, self._lines = StateBuilder(), 0, 0
        self._last: Activity = Activity()
        self._gpu: tuple[float, str] = (float("-inf"), "")

    def state(self) -> State:
        """The fold of the ledger, or of what is left of it; only what was added since the last call is read."""
        try:
            with self.directory.ledger.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return self._builder.state()
        data = data[: data.rfind(b"\n") + 1]
        if torn(data):  # then closed by a line feed: damage only once something follows it
            data = data[: data.rfind(b"\n", 0, -1) + 1]
        self.damage += apply_sound(data, str(self.directory.ledger), self._lines + 1, self._builder, self._take)
        self._read, self._lines = self._read + len(data), self._lines + data.count(b"\n")
        return self._builder.state()

    def _take(self, event: Event) -> None:
        self._builder.apply(event)
        self._last = follow(self._last, event)

    def activity(self, state: State, now: float) -> tuple[float, Activity]:
        """When the session last wrote anything, and what it does: the newer of the heartbeat and the ledger."""
        moment, activity = read_heartbeat(self.directory.progress)
        if moment < state.last_time:
            moment, activity = state.last_time, self._last
        waited = max(0.0, now - moment)
        activity.seconds += waited
        if activity.seconds_left is not None:
            activity.seconds_left = max(0.0, activity.seconds_left - waited)
        return moment, activity

    def picture(self, width: int, height: int) -> RenderableType:
        """Fit for a terminal of that size; ``height`` 0 is as high as it likes."""
        state, now = self.state(), time.time()
        running = self.directory.running()
        seen, activity = self.activity(state, now)
        if not running:
            activity = Activity("over", note=state.ended or f"overnight resume {self.directory.tag} goes on")
        rows = self._rows(state, activity, now, seen, running)
        free = (height or 40) - 11 - len(rows)  # what the fixed lines leave
        chart = (max(20, min(width - 30, 100)), min(6, free // 2)) if free >= 6 and activity.losses else (0, 0)
        logged = self._log(LOG_LINES if free - chart[1] > 8 else 0, width)
        recent = max(0, min(8, free - chart[1] - 3 - len(logged)))
        return night_panel(
            state, activity, now, recent, rows, chart, condition_text(condition(state, running)),
            "q quits, the session goes on" if running and height else "", logged,
        )  # fmt: skip

    def _rows(self, state: State, activity: Activity, now: float, seen: float, running: bool) -> list[tuple[str, Text]]:
        summary = summarize(state)
        rows = [("noise", Text(noise_words(summary))), ("time", time_text(summary))]
        if self.damage:
            what = self.damage[0].removeprefix(f"{self.directory.path}/")
            more = f"; and {text.count(len(self.damage) - 1, 'other line')}" if len(self.damage) > 1 else ""
            rows.insert(0, ("damaged", text.safe(what + more, "yellow")))
        if running and state.session.proposer in NEED_MODEL:
            name = next((r.proposal.model for r in reversed(state.records) if r.proposal.model), "")
            doing = "answering" if activity.phase == "model" else "not needed now"
            doing = "not there; the session waits for it" if "model server" in activity.note else doing
            rows.append(("model", text.safe(" · ".join(part for part in (name, doing) if part))))
        if running and (gpu := self._gpu_words(state.session.device or "cpu")):
            rows.append(("gpu", Text(gpu)))
        return [*rows, ("heartbeat", heartbeat_text(max(0.0, now - seen)))] if running else rows

    def _gpu_words(self, device: str) -> str:
        if device == "cpu":
            return ""
        asked, words = self._gpu
        if time.monotonic() - asked > GPU_REFRESH:
            words = gpu_words(device)
            self._gpu = (time.monotonic(), words)
        return words

    def _log(self, count: int, width: int) -> list[Text]:
        """The last lines of session.log."""
        lines = tail(self.directory.log, count) if count else []
        return [text.safe(re.sub(r"^\S+ (\S{8})\S* INFO", r"\1", line), "dim", width - 4) for line in lines]


def torn(data: bytes) -> bool:
    """Whether the last of some whole lines breaks off."""
    if not data:
        return False
    try:
        decode(data[data.rfind(b"\n", 0, -1) + 1 : -1])
    except NotAnEvent:
        return False
    except ValueError:
        return True
    return False


def gpu_words(device: str) -> str:
    """Memory, load and temperature of a GPU, by nvidia-smi; "" where it says nothing."""
    query = "memory.used,memory.total,utilization.gpu,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    command += ["-i", device] if device.startswith("GPU-") else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL)
        used, total, load, heat = (float(cell) for cell in done.stdout.splitlines()[0].split(","))
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return ""
    return f"{used / 1024:.1f} of {total / 1024:.0f} GiB · {load:.0f} % busy · {heat:.0f} °C"


def tail(path: Path, count: int, most: int = 8192) -> list[str]:
    """The last lines of a file; [] if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []
