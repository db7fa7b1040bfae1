"""session.log of a run: one line per event of the ledger, notes, and the warnings of everything that is used.

It is for people who want to know in the morning what happened at three. Programs read the ledger. A log that cannot be
written (the disk is full) costs its lines and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from agent.detach import arrived, detached
from agent.errors import OvernightError
from agent.keys import scrub
from agent.ledger import Event, State
from agent.types import Measurement, from_json
from agent.views import text
from agent.views.live import plain_line

MOST_BYTES, OLD_FILES = 5 << 20, 3  # session.log, session.log.1 to .3


class SessionLog:
    """A view that writes session.log."""

    def __init__(self, path: Path):
        self._path = path
        self._logger = logging.Logger("overnight", logging.INFO)  # of its own: two sessions in a process keep apart
        self._handler: RotatingFileHandler | None = None
        self._note = ""

    def __enter__(self) -> SessionLog:
        try:
            self._handler = _Handler(self._path, maxBytes=MOST_BYTES, backupCount=OLD_FILES, encoding="utf-8")
        except OSError:
            if detached():
                arrived(None)
            return self
        self._handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._logger.addHandler(self._handler)
        self._warnings = _Warnings(self._handler)
        logging.getLogger().addHandler(self._warnings)
        logging.captureWarnings(True)
        if detached():
            stream = self._handler.stream
            arrived(stream.fileno() if stream else None)
        return self

    def __exit__(self, *found: object) -> None:
        handler, self._handler = self._handler, None
        if handler is None:
            return
        error = next((item for item in found if isinstance(item, BaseException)), None)
        if isinstance(error, OvernightError):
            self._logger.error("%s", text.line(str(error)))
        elif error is not None:
            self._logger.error("the session broke off", exc_info=error)
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(self._warnings)
        self._logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()

    def event(self, event: Event, state: State) -> None:
        level = logging.WARNING if event["event"] == "lost" else logging.INFO
        self._logger.log(level, "%s", log_line(event, state))

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        if phase == "note" and (note := text.line(str(info.get("text", "")))) != self._note:
            self._note = note
            self._logger.warning("note: %s", note)


class _Handler(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk: the line is lost, the night goes on."""


class _Warnings(logging.Handler):
    """Passes on what libraries warn of, from any logger."""

    def __init__(self, to: logging.Handler):
        super().__init__(logging.WARNING)
        self._to = to

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = f"{record.name}: {text.line(record.getMessage())}", ()
        self._to.handle(record)


class _Formatter(logging.Formatter):
    """Local time with its offset, and no secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(record.created))


def log_line(event: Event, state: State) -> str:
    """One event in one line: its kind, its trial, and what it says."""
    kind = str(event["event"])
    where = f"trial {event['trial']}" if "trial" in event else ""
    words = _words(event, state)
    return "  ".join(part for part in (f"{kind:<11}", where, words) if part).rstrip()


def _words(event: Event, state: State) -> str:
    kind = event["event"]
    if kind == "asked":
        proposal = event["proposal"]
        subject = text.line(str(proposal.get("subject") or ""), 100)
        ending, why = proposal.get("ending"), text.line(str(proposal.get("reason") or ""), 200)
        return f"{ending}: {why}" if ending else f"{proposal.get('source', '')}: {subject}"
    if kind == "candidate":
        return str(event["commit"])[:12]
    if kind == "run_started":
        return f"{event['role']}  {str(event['commit'])[:12]}  {event['trace']}"
    if kind == "measured":
        return _measured(from_json(Measurement, event["measurement"]), str(state.session.get("metric", "value")))
    if kind == "judged":
        verdict = event["verdict"]
        gain = text.gain(verdict["gain"], verdict["gain_se"])
        why = text.line(str(verdict["reason"]), 200)
        return f"{verdict['decision']}  {text.number(verdict['value'])}  {gain}  {why}"
    if kind == "moved":
        return f"head is {str(event['commit'])[:12]}"
    if kind in ("lost", "ended"):
        return text.line(str(event["reason"]), 300)
    return plain_line(event, state)


def _measured(run: Measurement, metric: str) -> str:
    found = f"{text.line(metric)} {text.number(run.value, run.self_reported)}" if run.status == "ok" else run.status
    why = f": {text.line(run.reason, 200)}" if run.reason else ""
    times = ", ".join(f"{phase} {text.duration(seconds)}" for phase, seconds in run.seconds.items())
    return f"{run.role}  {found}{why}" + (f"  ({times})" if times and run.role != "test" else "")
