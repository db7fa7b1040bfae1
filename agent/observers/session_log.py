"""session.log of a session, for people: one line per event of the ledger, notes, and warnings of all libraries.

A log that cannot be written (full disk) loses its lines and affects nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from agent import text
from agent.errors import OvernightError
from agent.ledger.events import Event, Lost, ServerProblem
from agent.ledger.state import State
from agent.llm.api_keys import scrub
from agent.observers.lines import log_line
from agent.observers.protocol import Observer
from agent.rundir.detach import arrived, detached

OWN = "overnight"  # name of the logger of events
MOST_BYTES, OLD_FILES = 5 << 20, 3  # session.log, session.log.1 to .3


class SessionLog(Observer):
    """Writes session.log."""

    def __init__(self, path: Path):
        self._path = path
        self._logger = logging.Logger(OWN, logging.INFO)  # not registered: sessions in one process stay apart
        self._handler: RotatingFileHandler | None = None
        self._note = ""

    def __enter__(self) -> SessionLog:
        with suppress(OSError):
            self._handler = _Handler(self._path, maxBytes=MOST_BYTES, backupCount=OLD_FILES, encoding="utf-8")
        if detached():
            stream = self._handler.stream if self._handler else None
            arrived(stream.fileno() if stream else None)
        if self._handler is None:
            return self
        self._handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._handler.addFilter(lambda record: record.name == OWN or record.levelno >= logging.WARNING)
        for logger in (self._logger, logging.getLogger()):
            logger.addHandler(self._handler)
        logging.captureWarnings(True)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        handler, self._handler = self._handler, None
        if handler is None:
            return
        if isinstance(error, OvernightError):
            self._logger.error("%s", text.line(str(error)))
        elif error is not None:
            self._logger.error("the session crashed", exc_info=error)
        logging.captureWarnings(False)
        for logger in (self._logger, logging.getLogger()):
            logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()

    def event(self, event: Event, state: State) -> None:
        level = logging.WARNING if isinstance(event, Lost | ServerProblem) else logging.INFO
        self._logger.log(level, "%s", log_line(event, state))

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        if phase == "note" and (note := text.line(str(info.get("text", "")))) != self._note:
            self._note = note
            self._logger.warning("note: %s", note)


class _Handler(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a full disk: the line is lost and the session continues."""


class _Formatter(logging.Formatter):
    """Local time with its offset; other loggers' names before their messages; API keys removed."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.name != OWN:
            record.message = f"{record.name}: {text.line(record.message)}"
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(record.created))
