"""Loss curves as the harness wrote them. They come from the untrusted side: information for people, never truth."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.types import Measurement

MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class Point:
    progress: float  # 0 to 1 through the budget
    loss: float
    step: int


def read_curve(path: Path) -> list[Point]:
    """The points of a curve.jsonl. Lines that are not points are passed over; [] for a file that is not there."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except OSError:
        return []
    points: list[Point] = []
    for line in data.splitlines():
        try:
            item = json.loads(line)
            point = Point(float(item.get("progress", 0.0)), float(item["loss"]), int(item.get("step", len(points) + 1)))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            continue
        if math.isfinite(point.loss) and math.isfinite(point.progress):
            points.append(point)
    return points


def curve_of(run_dir: Path, runs: Iterable[Measurement]) -> list[Point]:
    """The curve of the first of a commit's runs that has one."""
    for run in runs:
        if run.trace and (points := read_curve(inside(run_dir, run.trace) / "curve.jsonl")):
            return points
    return []


def inside(run_dir: Path, relative: str) -> Path:
    """A path of the ledger below the run directory; the directory itself for one that leads out of it."""
    place = (run_dir / relative).resolve()
    return place if place.is_relative_to(run_dir.resolve()) else run_dir


def thin(points: list[Point], most: int) -> list[Point]:
    """At most ``most`` points (two or more), evenly by position, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]
