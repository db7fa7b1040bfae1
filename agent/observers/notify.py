"""Notifications during a session, through Apprise: the end, problems, new bests.

An address (``ntfy://…``, ``slack://…``, ``mailto://…``) often holds a secret. It comes from ``OVERNIGHT_NOTIFY`` or
from a file: other users can read command lines and run.toml. No log and no child process receives it. A failed delivery
does not affect the session.
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
from agent.ledger.events import Asked, Event, Moved, Published, ServerProblem
from agent.ledger.state import State
from agent.observers.protocol import Observer
from agent.review.data.server import words_of
from agent.review.data.summary import Summary, summarize

VARIABLE = "OVERNIGHT_NOTIFY"
INTERVAL = 600.0  # seconds between two messages about a new best; the end and problems are sent at once
AT_EXIT = 20.0  # seconds that the last message may take
WAITING = "waiting for the model server"
log = logging.getLogger("overnight.notify")

Send = Callable[[str, str, str], bool]  # kind (info, success, warning, failure), title, body → delivered?


def make_notifier(setting: str, tag: str, minutes: float) -> Notifier | None:
    """The notifier for the setting ``notify``; None if it is empty.

    Raises:
        UsageError: there is no valid address. The message never repeats an address.
        EnvironmentProblem: Apprise is not installed, or the file cannot be read.
    """
    return Notifier(apprise_sender(addresses(setting)), tag, minutes * 60) if setting else None


def addresses(setting: str) -> list[str]:
    """``env`` reads the variable and removes it from the environment; any other setting is a file, one per line."""
    if "://" in setting:
        raise UsageError(
            f"--notify: an address may hold a secret and settings are readable by others. Put the address into the "
            f"environment variable {VARIABLE} and use --notify env, or into a file and name the file."
        )
    if setting == "env":
        lines = os.environ.pop(VARIABLE, "").replace(",", " ").split()
        where = f"environment variable {VARIABLE} is not set"
    else:
        path = Path(setting).expanduser()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            raise EnvironmentProblem(f"--notify {path}: {reason}. Write one Apprise address per line.") from None
        where = f"{path} holds no address"
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise UsageError(f"--notify {setting}: {where}. Use Apprise addresses, such as ntfy://topic.")
    return found


def apprise_sender(urls: list[str]) -> Send:
    """A function that sends to all addresses."""
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its messages contain addresses
    asset = apprise.AppriseAsset(app_id="Overnight", app_desc="Overnight", async_mode=False, secure_logging=True)
    service = apprise.Apprise(asset=asset)
    for number, url in enumerate(urls, start=1):
        if not service.add(url):
            raise UsageError(f"--notify: Apprise does not understand address {number} of {len(urls)}.")

    def send(kind: str, title: str, body: str) -> bool:
        format = apprise.NotifyFormat.TEXT
        return bool(service.notify(body=body, title=title, notify_type=apprise.NotifyType(kind), body_format=format))

    return send


class Notifier(Observer):
    """Sends messages from its own thread, so that a slow service does not delay the session.

    Args:
        patience: seconds without a model server before a message.
    """

    def __init__(self, send: Send, tag: str, patience: float, clock: Callable[[], float] = time.monotonic):
        self._send, self._tag, self._patience, self._clock = send, tag, patience, clock
        self._queue: queue.Queue[tuple[str, str, str] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="notify")
        self._best_sent = float("-inf")
        self._best: str | None = None  # message about a new best, held back by INTERVAL
        self._waiting: float | None = None  # start of the wait for the model server
        self._state = State()

    def __enter__(self) -> Notifier:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
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
        elif isinstance(event, Moved | Published):
            record = state.of_trial(event.trial)
            subject = text.line(record.proposal.subject, 100) if record else ""
            self._best = f"trial {event.trial}: {subject}\n{outcome(summarize(state))}"
        elif isinstance(event, ServerProblem):
            self._queue.put(("warning", "model server", words_of(event)))
        self._send_best()

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        note, now = text.line(str(info.get("text", "")), 500), self._clock()
        if phase == "note" and WAITING in note:
            self._waiting = now if self._waiting is None else self._waiting
            if now - self._waiting >= self._patience:
                self._waiting = float("inf")  # one message until the server answers again
                self._queue.put(("warning", "stuck", note))
        self._send_best()

    def _send_best(self) -> None:
        """Send the newest best, at most one message per INTERVAL."""
        if self._best is not None and self._clock() - self._best_sent >= INTERVAL:
            self._best_sent = self._clock()
            self._queue.put(("info", "new best", self._best))
            self._best = None

    def _work(self) -> None:
        while (message := self._queue.get()) is not None:
            kind, title, body = message
            try:
                if not self._send(kind, f"overnight {self._tag}: {title}", body.replace("@", "(at)")):
                    log.warning("a message (%s) was not delivered", title)
            except Exception as error:  # Apprise has plugins for a hundred services
                log.warning("a message (%s) failed: %s", title, type(error).__name__)


def outcome(summary: Summary) -> str:
    """One line: trials, keeps, gain."""
    done = f"{summary.kept} of {text.count(summary.trials, 'trial')} kept"
    if summary.gain is None or summary.best is None:
        return done
    best = f"{text.line(summary.metric)} {text.number(summary.best.value, summary.self_reported)}"
    return f"{done}; {best}, {text.gain(summary.gain, summary.gain_se)} against the baseline"
