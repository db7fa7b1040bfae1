"""The observer that runs one process for each tracker beside the session."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.ledger.events import Event
from agent.ledger.state import State
from agent.llm.api_keys import without_keys
from agent.observers.protocol import Observer
from agent.observers.trackers.track import Track

log = logging.getLogger("overnight.track")
AT_EXIT = 20.0  # seconds that a tracker may take once the session has ended


class Trackers(Observer):
    """Runs ``follow`` for each tracker, and kills it if it is not done ``AT_EXIT`` seconds after the session."""

    def __init__(self, tracks: Sequence[Track], directory: Path):
        self._tracks, self._directory = tracks, directory.resolve()
        self._children: list[_Child] = []
        self._settled = 0

    def __enter__(self) -> Trackers:
        self._children = [_Child(track, self._directory) for track in self._tracks]
        return self

    def event(self, event: Event, state: State) -> None:
        self._settled = len(state.observed)

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + AT_EXIT + 1  # the process ends itself after AT_EXIT
        for child in self._children:
            child.session_ended()
        for child in self._children:
            child.end(deadline)
            if (missing := self._settled - child.held) > 0:
                log.warning(
                    "%s lacks %d of %d trials, the baseline included. `overnight export %s --track %s` sends them.",
                    child.track.tool, missing, self._settled, self._directory.name, child.track,
                )  # fmt: skip


class _Child:
    """One process. Its first problem is a warning."""

    def __init__(self, track: Track, directory: Path):
        self.track = track
        self.held = 0  # trials that the tracker holds
        self._problem = ""
        words = ["-P", "-m", "agent.observers.trackers.follow", str(directory), str(track), str(AT_EXIT)]
        self._process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, start_new_session=True, env=without_keys(os.environ),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True, name="track")
        self._reader.start()

    def session_ended(self) -> None:
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()

    def end(self, deadline: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with the helpers of its library
        self._process.wait()
        self._reader.join(5)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith("!") and not self._problem:
                self._problem = line[1:].strip()
                log.warning("%s: %s. It is tried again until the session ends.", self.track.tool, self._problem)
            elif line.strip().isdigit():
                self.held = int(line)
