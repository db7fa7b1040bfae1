"""Sends a run to one tracker: as a process beside a session, or once for ``overnight export``.

    python -m agent.observers.trackers.follow RUN_DIRECTORY TOOL:PLACE

The ledger is the queue: nothing is held in memory, and a tracker that was down receives the rest once it answers. The
process ends after the ledger's last event when its stdin closes, which also happens when the session is killed. It
prints the number of trials that the tracker holds after each one, or ``!`` and a problem.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent import text
from agent.errors import UsageError
from agent.files import acquire
from agent.ledger.events import Event, Observed
from agent.ledger.recovery import LedgerTail
from agent.ledger.state import State, StateBuilder
from agent.llm.api_keys import scrub
from agent.observers.trackers.entries import about, entry_of, point_of
from agent.observers.trackers.track import Track, Tracker

LOOK = 1.0  # seconds between looks at the ledger
MOST_TRIES = 3  # of one trial, by a tracker that answers: then it is left out until the next start
LONGEST_PAUSE = 60.0  # seconds between attempts to reach a tracker


class Follower:
    """Sends each trial once the proposer has received its outcome.

    Args:
        directory: of the run.
        track: the tracker.
        pause: waits so many seconds before another attempt; False if there is to be none.
        report: receives the number of trials that the tracker holds, or the text of a problem.
    """

    def __init__(
        self, directory: Path, track: Track, pause: Callable[[float], bool], report: Callable[[int | str], None]
    ):
        self.problem = ""  # the last one
        self.stopped = False  # whether nothing more is sent
        self.held = 0  # trials that the tracker holds, the baseline included
        self._directory, self._track, self._pause, self._report = directory, track, pause, report
        self._tail = LedgerTail(directory / "ledger.jsonl", self._apply)
        self._tracker: Tracker | None = None
        self._points: list[tuple[float, dict[str, float]]] = []  # the session's series: some trackers begin it again
        self._tries: Counter[int] = Counter()  # of each trial, by a tracker that answered

    def look(self) -> None:
        """Send what was added to the ledger."""
        self._tail.look()

    def send_rest(self) -> None:
        """Send the finished trials whose outcome the proposer never received, since the session was killed."""
        state = self._tail.builder.state()
        for record in state.finished:
            if record.number not in state.observed:
                self._attempt(lambda number=record.number: self._write(number, state))  # type: ignore[misc]

    def finish(self) -> None:
        """Close the tracker."""
        self._attempt(self._close)

    @property
    def missing(self) -> int:
        """Number of trials that the tracker refused, or that it does not hold yet."""
        return len(self._tail.builder.observed) - self.held

    def _apply(self, builder: StateBuilder, event: Event) -> None:
        builder.apply(event)
        if isinstance(event, Observed):
            state = builder.state()
            self._points.append((state.last_time, point_of(state)))
            self._attempt(lambda: self._write(event.trial, state))

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do ``work``, again after each failure, until it succeeds or there is no time left."""
        seconds = 1.0
        while not self.stopped:
            try:
                work()
                return
            except Exception as error:  # of any of four libraries
                with suppress(Exception):
                    self._close()
                self._tracker = None  # what it holds is asked again: a request that failed may have been carried out
                self.problem = text.line(scrub(f"{type(error).__name__}: {error}"), 300)
                self._report(self.problem)
            self.stopped = not self._pause(seconds)
            seconds = min(LONGEST_PAUSE, 2 * seconds)

    def _write(self, number: int, state: State) -> None:
        if self._tracker is None:
            self._tracker = self._track.open(about(state))
        if number not in self._tracker.held and self._tries[number] < MOST_TRIES:
            self._tries[number] += 1
            self._tracker.trial(entry_of(number, state, self._directory))
            self._tracker.held.add(number)
        while (step := self._tracker.points) < len(self._points):
            self._tracker.point(step, *self._points[step])
            self._tracker.points += 1
        self.held = len(self._tracker.held)
        self._report(self.held)

    def _close(self) -> None:
        if self._tracker is not None:
            self._tracker.close()


def send_run(directory: Path, track: Track) -> tuple[int, str]:
    """Send a past run.

    Returns:
        The number of trials that the tracker holds now, with the baseline, and why it lacks others ("" if it does not).

    Raises:
        UsageError: the session of the run sends it at this moment.
    """

    def pause(seconds: float) -> bool:
        again = seconds < 1 << MOST_TRIES  # so that a trial that is refused does not hold up the others
        time.sleep(seconds if again else 0)
        return again

    with _alone(directory, track, wait=False):
        follower = Follower(directory, track, pause, lambda _news: None)
        follower.look()
        follower.send_rest()
        follower.finish()
    return follower.held, follower.problem if follower.stopped or follower.missing > 0 else ""


@contextmanager
def _alone(directory: Path, track: Track, wait: bool) -> Iterator[None]:
    """Only one process writes a run to a tracker; two would each write what the other has not written yet."""
    with (directory / f".{track.tool}.lock").open("a") as file:
        if not acquire(file, math.inf if wait else 0.0):
            raise UsageError(f"{directory}: its session sends it to {track.tool} now.")
        yield


def main() -> None:
    """Follow a session until stdin closes. Arguments: run directory, tracker, seconds that are left then."""
    directory, (tool, _, place) = Path(sys.argv[1]), sys.argv[2].partition(":")
    news = os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # the libraries print
        os.dup2(nothing, stream)
    os.nice(10)
    over = threading.Event()

    def listen() -> None:
        sys.stdin.buffer.read()
        over.set()
        time.sleep(float(sys.argv[3]))
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()

    def report(found: int | str) -> None:
        with suppress(OSError):  # the session was killed
            print(found if isinstance(found, int) else f"!{found}", file=news)

    with _alone(directory, track := Track(tool, place), wait=True):
        follower = Follower(directory, track, lambda seconds: not over.wait(seconds), report)
        last = False
        while not last and not follower.stopped:
            last = over.wait(LOOK)  # one more look after the end
            follower.look()
        follower.finish()


if __name__ == "__main__":
    main()
