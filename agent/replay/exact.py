"""Schedule traces of recorded runs: what ``replay --exact`` follows, and where two runs start to differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.curves import read_curve
from agent.errors import UsageError
from agent.replay.steps import Step
from agent.settings import MOST_THREADS
from agent.text import line
from agent.trial.outputs import number
from agent.types import Measurement

TRACE = "trace.jsonl"
LONGEST_HEADER = 1 << 16  # characters


def traced(step: Step, source: Path) -> list[tuple[Measurement, Path]]:
    """The recorded runs of a step that can be followed exactly: each with its schedule in the run directory."""
    runs = [(run, source / run.trace / TRACE) for run in step.runs if run.trace and run.value is not None]
    return [(run, schedule) for run, schedule in runs if schedule.is_file()]


def header_of(trace: Path) -> dict[str, Any]:
    """The first line of a trace, which the trial wrote: seed, budget, device, threads, versions.

    Raises:
        UsageError: the line is not a JSON object.
    """
    with trace.open(encoding="utf-8", errors="replace") as file:
        first = file.readline(LONGEST_HEADER)
    try:
        return msgspec.json.decode(first, type=dict[str, Any])
    except (ValueError, RecursionError):
        raise UsageError(f"{trace} does not begin with the header of a schedule.") from None


def recorded_schedule(steps: Sequence[Step], source: Path) -> tuple[int, int]:
    """Threads of the recorded runs, which fix the order of additions, and training steps of the longest trace.

    Raises:
        UsageError: no trace is left, or it names no number of threads.
    """
    traces = [schedule for step in steps for _, schedule in traced(step, source)]
    if not traces:
        raise UsageError(
            f"no run in {source} has kept its schedule ({TRACE}), which --exact follows. "
            f'A target with score = "stdout" writes none. Leave --exact out.'
        )
    threads = number(header_of(traces[0]).get("threads"))
    if threads is None or not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"{traces[0]} names no number of threads.")
    texts = (trace.read_text(encoding="utf-8", errors="replace") for trace in traces)
    return int(threads), max(text.count('"progress"') for text in texts)


def differences(
    steps: Sequence[Step], source: Path, runs: Mapping[str, Sequence[Measurement]], directory: Path
) -> Iterator[str]:
    """What differs between the recorded and the replayed run of the first step whose bits differ."""
    pairs = (
        (step, recorded, old, replayed)
        for step in steps
        for replayed in runs.get(step.commit, ())
        for recorded, old in traced(step, source)
        if recorded.seed == replayed.seed and replayed.value not in (None, recorded.value)
    )
    for step, recorded, old, replayed in pairs:
        new = directory / replayed.trace / TRACE
        yield f"step {step.number}, seed {replayed.seed}: {recorded.value!r} recorded, {replayed.value!r} replayed"
        if new.is_file():
            yield header_differences(header_of(old), header_of(new))
        if recorded.initial_hash and recorded.initial_hash != replayed.initial_hash:
            yield "the weights differ before the first training step"
        elif (first := _first_loss(old.parent, new.parent)) is not None:
            yield f"the losses differ from training step {first} on"
        return


def header_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The fields in which two trace headers differ, made harmless for a terminal."""
    flat = []
    for header in (old, new):
        versions = header.get("versions")
        known = versions.items() if isinstance(versions, dict) else ()
        flat.append({**header, **{f"version of {name}": version for name, version in known}})
    names = sorted((flat[0].keys() | flat[1].keys()) - {"versions", "budget"})
    pairs = [(name, flat[0].get(name), flat[1].get(name)) for name in names]
    different = [line(f"{name}: {before} → {after}", 200) for name, before, after in pairs if before != after]
    return "; ".join(different[:20]) or "threads, versions and device are the same: compare the processors and the code"


def _first_loss(old: Path, new: Path) -> int | None:
    pairs = zip(read_curve(old / "curve.jsonl"), read_curve(new / "curve.jsonl"), strict=False)
    return next((a.step for a, b in pairs if (a.step, a.loss) != (b.step, b.loss)), None)
