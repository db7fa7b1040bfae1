"""Loss curves, as the harness wrote them. The edited code could have changed them: for information only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from agent.types import LARGEST_VALUE, Measurement

MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class Point:
    progress: float  # share of the budget, 0 to 1
    loss: float  # training loss
    step: int = 0  # 0: not recorded


_DECODER = msgspec.json.Decoder(Point, strict=False)


def read_curve(path: Path) -> list[Point]:
    """Read a curve.jsonl; [] if the file cannot be read. Lines that are not points are skipped."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except OSError:
        return []
    points: list[Point] = []
    for line in data.splitlines():
        try:
            point = _DECODER.decode(line)
        except (ValueError, RecursionError):
            continue
        if abs(point.loss) <= LARGEST_VALUE and 0 <= point.progress <= 1:
            points.append(point if point.step else replace(point, step=len(points) + 1))
    return points


def curve_of(run_dir: Path, runs: Iterable[Measurement]) -> list[Point]:
    """Return the curve of the first run that has one."""
    for run in runs:
        if run.trace and (points := read_curve(inside(run_dir, run.trace) / "curve.jsonl")):
            return points
    return []


def inside(run_dir: Path, relative: str) -> Path:
    """Return a path of the ledger below ``run_dir``; ``run_dir`` itself if the path leads out of it."""
    place = (run_dir / relative).resolve()
    return place if place.is_relative_to(run_dir.resolve()) else run_dir


def thin(points: list[Point], most: int) -> list[Point]:
    """Return at most ``most`` points (two or more), evenly spaced, with the first and the last."""
    if len(points) <= most:
        return points
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]
