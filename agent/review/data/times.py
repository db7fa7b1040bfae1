"""Where the time of a night went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from agent.ledger.state import State
from agent.types import Measurement, Record

PHASES = ("startup", "smoke", "training", "scoring", "overhead")


def phases(runs: Iterable[Measurement]) -> dict[str, float]:
    """Return seconds by phase of a run, summed over runs."""
    total: defaultdict[str, float] = defaultdict(float)
    for phase, seconds in _spent(runs):
        total[phase] += seconds
    return {p: total[p] for p in (*PHASES, *sorted(set(total) - set(PHASES))) if p in total}


def cost(record: Record) -> float:
    """Return the seconds that the runs of a trial took, those before a repair included."""
    runs = (*record.runs, *(run for repair in record.repairs for run in repair.runs))
    return sum(seconds for _, seconds in _spent(runs))


def wall_seconds(state: State) -> float:
    """Return the seconds from the first event to the last, without the time in which no session ran."""
    began = state.last_time if state.began is None else state.began
    return max(0.0, state.last_time - began - state.away)


def split(state: State, spent: Mapping[str, float]) -> dict[str, float]:
    """Divide ``wall_seconds`` by purpose; parts of 0 s are left out.

    With several workers, times of runs are averaged over workers. Overhead is the rest: git, staging, the sandbox, the
    test split, lost runs and idle workers.

    Args:
        spent: Seconds by phase, over all runs.
    """
    workers = state.session.workers or 1
    parts = {
        "training": spent.get("training", 0.0) / workers,
        "start-up": spent.get("startup", 0.0) / workers,
        "smoke tests": spent.get("smoke", 0.0) / workers,
        "scoring": spent.get("scoring", 0.0) / workers,
        "waiting for ideas": sum(record.asking for record in state.records),
    }
    parts["overhead"] = max(0.0, wall_seconds(state) - sum(parts.values()))
    return {name: seconds for name, seconds in parts.items() if seconds > 0}


def _spent(runs: Iterable[Measurement]) -> Iterator[tuple[str, float]]:
    """(phase, seconds) of each run. Test scores are skipped: they repeat the times of the run that they score."""
    for run in runs:
        if run.role != "test":
            for phase, seconds in run.seconds.items():
                if phase != "done":
                    yield phase, max(0.0, seconds)
