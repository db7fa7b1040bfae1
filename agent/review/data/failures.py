"""The lines of a log that say why an attempt failed. The code that failed wrote them: shown, never believed."""

from __future__ import annotations

from pathlib import Path

from agent.curves import inside
from agent.text import decisive_lines
from agent.types import Record

TAIL_BYTES = 64 << 10


def failure_lines(record: Record, run_dir: Path | None = None) -> list[str]:
    """At most ``MOST`` lines of the failed run's log, the exception and the place it came from first; [] for none."""
    run = next((run for run in record.runs if run.status != "ok"), None)
    if run is None:
        return []
    log = run.log_tail
    if not log and run_dir is not None and run.trace:
        log = _tail(inside(run_dir, run.trace) / "train.log")
    return decisive_lines(log)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
