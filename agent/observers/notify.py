"""Messages to people during a night, through Apprise: its end, trouble, a new best.

An address (``ntfy://…``, ``slack://…``, ``mailto://…``) often holds a secret. It is read from ``OVERNIGHT_NOTIFY`` or
from a file, never from a flag or a setting, which other users of the machine and run.toml would show; and it reaches
neither a log nor a child process. What cannot be delivered costs the night nothing.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent import text
from agent.errors import EnvironmentProblem, OvernightError, UsageError
from agent.ledger.events import Asked, Event, Moved
from agent.ledger.state import State
from agent.review.data.summary import Summary, summarize

VARIABLE = "OVERNIGHT_NOTIFY"
INTERVAL = 600.0  # seconds between two messages of a new best; the end and trouble are told at once
AT_EXIT = 20.0  # seconds that the last message may take
WAITING = "waiting for the model server"
log = logging.getLogger("overnight.notify")

Send = Callable[[str, str, str], bool]  # kind (info, success, warning, failure), title, body → delivered?


def make_notifier(setting: str, tag: str, minutes: float) -> Notifier | None:
    """From the setting ``notify``: None where it is empty.

    Raises:
        UsageError: no address is there, or one is not understood. Addresses are not repeated.
        EnvironmentProblem: Apprise is not installed, or the file cannot be read.
    """
    if not setting:
        return None
    return Notifier(apprise_sender(addresses(setting)), tag, minutes * 60)


def addresses(setting: str) -> list[str]:
    """``env`` reads the variable and takes it out of the environment; anything else is a file with one a line."""
    if "://" in setting:
        raise UsageError(
            f"notify: an address may hold a secret, and settings can be read by others. Put it into the environment "
            f"variable {VARIABLE} and say env, or into a file and name that."
        )
    if setting == "env":
        given = os.environ.pop(VARIABLE, "")
        found = [word for word in given.replace(",", " ").split() if word]
        if not found:
            raise UsageError(f"notify = env: {VARIABLE} is not set. It holds Apprise addresses, such as ntfy://topic.")
        return found
    path = Path(setting).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise EnvironmentProblem(f"--notify {path}: {error.strerror}. It has one Apprise address a line.") from None
    except UnicodeDecodeError:
        raise EnvironmentProblem(f"--notify {path}: this is no text. It has one Apprise address a line.") from None
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise UsageError(f"notify: {path} holds no address. It has one Apprise address a line, such as ntfy://topic.")
    return found


def apprise_sender(urls: list[str]) -> Send:
    """A function that sends to all of them."""
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it names addresses in what it says
    asset = apprise.AppriseAsset(app_id="Overnight", app_desc="Overnight", async_mode=False, secure_logging=True)
    service = apprise.Apprise(asset=asset)
    for number, url in enumerate(urls, start=1):
        if not service.add(url):
            raise UsageError(f"notify: address {number} of {len(urls)} is none that Apprise understands.")

    def send(kind: str, title: str, body: str) -> bool:
        return bool(
            service.notify(
                body=body, title=title, notify_type=apprise.NotifyType(kind), body_format=apprise.NotifyFormat.TEXT
            )
        )

    return send


class Notifier:
    """A view that sends messages, from a thread of its own: a slow service delays nothing."""

    def __init__(self, send: Send, tag: str, patience: float, clock: Callable[[], float] = time.monotonic):
        self._send, self._tag, self._patience, self._clock = send, tag, patience, clock
        self._queue: queue.Queue[tuple[str, str, str] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="notify")
        self._told_best = float("-inf")
        self._best: str | None = None  # a new best that waits for its turn
        self._waiting: float | None = None  # since when there is no model
        self._state = State()

    def __enter__(self) -> Notifier:
        self._thread.start()
        return self

    def __exit__(self, *found: object) -> None:
        error = next((item for item in found if isinstance(item, BaseException)), None)
        body = outcome(summarize(self._state))
        if error is None:
            self._queue.put(("success", "ended", f"{text.line(self._state.ended or 'ended')}\n{body}"))
        else:
            known = isinstance(error, OvernightError)
            why = text.line(str(error), 500) if known else f"{type(error).__name__}: see session.log"
            self._queue.put(("failure", "stopped", f"{why}\n{body}"))
        self._queue.put(None)
        self._thread.join(AT_EXIT)

    def event(self, event: Event, state: State) -> None:
        self._state = state
        if isinstance(event, Asked):
            self._waiting = None
        elif isinstance(event, Moved):
            record = state.of_trial(event.trial)
            subject = text.line(record.proposal.subject, 100) if record else ""
            self._best = f"trial {event.trial}: {subject}\n{outcome(summarize(state))}"
        self._tell_best()

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        if phase == "note" and WAITING in (note := str(info.get("text", ""))):
            self._wait(note)
        self._tell_best()

    def _tell_best(self) -> None:
        """At most one in a while: of several, the newest."""
        if self._best is not None and self._clock() - self._told_best >= INTERVAL:
            self._told_best = self._clock()
            self._queue.put(("info", "new best", self._best))
            self._best = None

    def _wait(self, note: str) -> None:
        now = self._clock()
        if self._waiting is None:
            self._waiting = now
        if now - self._waiting >= self._patience:
            self._waiting = float("inf")  # told once, until there is an answer again
            self._queue.put(("warning", "stuck", text.line(note, 500)))

    def _work(self) -> None:
        while (message := self._queue.get()) is not None:
            kind, title, body = message
            try:
                done = self._send(kind, f"overnight {self._tag}: {title}", body.replace("@", "(at)"))
            except Exception as error:  # of a library for a hundred services
                log.warning("a message (%s) failed: %s", title, type(error).__name__)
                continue
            if not done:
                log.warning("a message (%s) was not delivered", title)


def outcome(summary: Summary) -> str:
    """One line: trials, keeps, the gain."""
    done = f"{summary.kept} of {text.count(summary.trials, 'trial')} kept"
    if summary.gain is None or summary.best is None:
        return done
    best = f"{text.line(summary.metric)} {text.number(summary.best.value, summary.self_reported)}"
    return f"{done}; {best}, {text.gain(summary.gain, summary.gain_se)} against the baseline"
