"""Reads what a trial printed and wrote. All of it is untrusted: an edit may have changed the code that wrote it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.rundir.directory import RunDirectory
from agent.trial.metric_line import is_not_finite, metric_token, read_number
from agent.types import Failure
from sandbox.output import clean
from sandbox.types import Collect, Outcome

CHECKPOINT = (Collect("model.safetensors", 8 << 30), Collect("model.json", 1 << 20))
REPORTS = (
    Collect("summary.json", 1 << 20),
    Collect("curve.jsonl", 4 << 20),
    Collect("trace.jsonl", 32 << 20),
    Collect("diagnostics.json", 1 << 16),
)
SHOWN = ("steps", "tokens", "train_loss", "parameters", "tokens_per_second", "train_seconds", "mfu")  # of summary.json
MOST = 1e15  # a larger reported number is an error, and would only fill tables and prompts
_NO_JSON = (ValueError, RecursionError)  # raised by json.loads; the second one for thousands of nested brackets


@dataclass(frozen=True)
class Score:
    """The value of a run with its metrics, or why there is none."""

    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None


def printed_value(log: Path, pattern: str, metric: str) -> Score:
    """The self-reported value: the token at the last match of ``pattern`` in a log, read as a whole."""
    token = metric_token(log.read_text(errors="replace") if log.exists() else "", pattern)
    if token is None:
        return Score(failure=Failure("crash", f"printed nothing that matches {pattern!r}"))
    value = read_number(token)
    if value is not None and math.isfinite(value):
        return Score(value)
    printed = f"printed {token[:40]!r} as its {metric}"
    if value is not None or is_not_finite(token):
        return Score(failure=Failure("diverged", printed))
    return Score(failure=Failure("invalid", f"cannot read the metric: {printed}, which is no number"))


def events(lines: list[str]) -> Iterator[dict[str, Any]]:
    """The events of the harness among all printed lines; of an event, its numbers and short texts."""
    for line in lines:
        if line.startswith('{"event"'):
            try:
                event = json.loads(line)
            except _NO_JSON:
                continue
            if isinstance(event, dict):
                numbers = {k: v for k, v in event.items() if isinstance(v, (int, float)) and abs(v) < 1e300}
                # JSON can spell what the sandbox removed from the line: escape sequences, line ends, lone surrogates
                texts = {
                    k: clean(v).encode(errors="replace").decode()
                    for k, v in event.items()
                    if isinstance(v, str) and len(v) < 200
                }
                if "event" in texts:
                    yield numbers | texts


def number(value: Any) -> float | None:
    """``value`` as a finite float, else None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def fingerprint(value: Any) -> str:
    """The reported hash of the initial weights: hexadecimal digits, or "" for anything else."""
    return value if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{1,64}", value) else ""


def summary(path: Path | None) -> dict[str, Any]:
    """summary.json of the harness; {} if it is missing or is no JSON object."""
    try:
        data = json.loads(path.read_text()) if path else {}
    except (OSError, *_NO_JSON):
        return {}
    return data if isinstance(data, dict) else {}


def out_of_memory(outcome: Outcome, limit: float) -> Failure:
    """The failure of a job that ran out of memory; ``limit`` is its host memory in GB."""
    gpu = [problem for problem in outcome.problems if problem.startswith("used") and "GPU" in problem]
    return Failure("oom", f"out of memory ({'; '.join(gpu) or f'limit {limit:g} GB'})")


def forget_checkpoints(directory: RunDirectory, trial: int, kept: Collection[str]) -> None:
    """Delete the checkpoints of a trial's runs, except those of the run paths in ``kept``."""
    for path in directory.trial(trial).glob(f"run-*/{CHECKPOINT[0].name}"):
        if str(path.parent.relative_to(directory.path)) not in kept:
            path.unlink()
