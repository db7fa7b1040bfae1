"""The lines of a log that say why an attempt failed. The code that failed wrote them: shown, never believed."""

from __future__ import annotations

import re
from pathlib import Path

from agent.types import Record
from agent.views.curves import inside
from agent.views.text import clean

MOST = 8  # lines
TAIL_BYTES = 64 << 10
_EVENT = re.compile(r'^\s*\{"event"')
_ERROR = re.compile(r"^[\w.]*(Error|Exception|Interrupt|Exit|Warning)\b|out of memory|Killed|Segmentation fault|assert")


def failure_lines(record: Record, run_dir: Path | None = None) -> list[str]:
    """At most ``MOST`` lines of the failed run's log, the exception and the place it came from first; [] for none."""
    run = next((run for run in record.runs if run.status != "ok"), None)
    if run is None:
        return []
    log = run.log_tail
    if not log and run_dir is not None and run.trace:
        log = _tail(inside(run_dir, run.trace) / "train.log")
    return decisive_lines(log)


def decisive_lines(log: str) -> list[str]:
    """The last traceback from its last frame on; without one, the lines around the last that look like an error."""
    lines = [line.rstrip() for line in clean(log).split("\n") if line.strip() and not _EVENT.match(line)]
    frames = [k for k, line in enumerate(lines) if re.match(r'\s+File ".*", line \d+', line)]
    if frames:
        return _cut(lines[frames[-1] :])
    errors = [k for k, line in enumerate(lines) if _ERROR.search(line)]
    return _cut(lines[errors[-1] :]) if errors else _cut(lines[-MOST // 2 :])


def _cut(lines: list[str]) -> list[str]:
    return [line if len(line) <= 300 else line[:299] + "…" for line in lines[:MOST]]


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
