"""What a trial printed and reported, read with distrust: the code that wrote it may have been edited by anyone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from agent.rundir.directory import RunDirectory
from agent.types import Failure
from sandbox.output import clean
from sandbox.types import Collect, Outcome

CHECKPOINT = (Collect("model.safetensors", 8 << 30), Collect("model.json", 1 << 20))
REPORTS = (Collect("summary.json", 1 << 20), Collect("curve.jsonl", 4 << 20), Collect("trace.jsonl", 32 << 20))
MOST = 1e15  # that a report can sensibly speak of: a larger number would only fill tables and prompts
_NO_JSON = (ValueError, RecursionError)  # of json.loads; the latter for ten thousand brackets


def events(lines: list[str]) -> Iterator[dict[str, Any]]:
    """The harness's events among whatever else was printed."""
    for line in lines:
        if line.startswith('{"event"'):
            try:
                event = json.loads(line)
            except _NO_JSON:
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                yield {k: _cleaned(v) for k, v in event.items() if isinstance(v, (int, float, str)) and _plain(v)}


def _plain(value: float | str) -> bool:
    return len(value) < 200 if isinstance(value, str) else abs(value) < 1e300


def _cleaned(value: Any) -> Any:
    """Text out of JSON may hold again what was taken out of the line: escape sequences, line ends, half surrogates."""
    return clean(value).encode(errors="replace").decode() if isinstance(value, str) else value


def number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def fingerprint(value: Any) -> str:
    """What the harness writes of initial weights: hexadecimal digits, or nothing."""
    return value if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{1,64}", value) else ""


def summary(path: Path | None) -> dict[str, Any]:
    """What the harness says of its run: information, from the untrusted side."""
    try:
        data = json.loads(path.read_text()) if path else {}
    except (OSError, *_NO_JSON):
        return {}
    return data if isinstance(data, dict) else {}


def out_of_memory(outcome: Outcome, limit: float) -> Failure:
    """What is said of a job that ran out of memory; ``limit`` is the machine's memory that it had, in GB."""
    gpu = [problem for problem in outcome.problems if problem.startswith("used") and "GPU" in problem]
    return Failure("oom", f"out of memory ({'; '.join(gpu) or f'limit {limit:g} GB'})")


def forget_checkpoints(directory: RunDirectory, trial: int, kept: Collection[str]) -> None:
    """Delete the checkpoints of a trial's runs, except those of the run paths in ``kept``."""
    for path in directory.trial(trial).glob(f"run-*/{CHECKPOINT[0].name}"):
        if str(path.parent.relative_to(directory.path)) not in kept:
            path.unlink()
