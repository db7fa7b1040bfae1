"""What a trial printed and reported, read with distrust: the code that wrote it may have been edited by anyone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def events(lines: list[str]) -> Iterator[dict[str, Any]]:
    """The harness's events among whatever else was printed."""
    for line in lines:
        if line.startswith('{"event"'):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                yield {k: v for k, v in event.items() if isinstance(v, (int, float, str)) and _plain(v)}


def _plain(value: float | str) -> bool:
    return len(value) < 200 if isinstance(value, str) else abs(value) < 1e300


def number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def summary(path: Path | None) -> dict[str, Any]:
    """What the harness says of its run: information, from the untrusted side."""
    try:
        data = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def decisive_line(log: str) -> str:
    """The line of a log that says why: the exception at the end of a traceback, else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith('{"event"')]
    return ([line for line in lines if is_error(line)] or lines or [""])[-1][:300]


def is_error(line: str) -> bool:
    return bool(re.match(r"[\w.]*(Error|Exception|Interrupt|Exit)\b", line))
