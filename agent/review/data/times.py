"""Where the time of a session went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from statistics import median

from agent import text
from agent.ledger.state import State
from agent.types import Measurement, Record, on_validation

PHASES = ("startup", "smoke", "training", "scoring", "overhead")


@dataclass(frozen=True)
class Stopped:
    """Runs that were stopped since they were certain to lose, and the check of such predictions."""

    runs: int
    seconds: float  # that they had trained
    saved_seconds: float  # of training, estimated from the median of the runs that were finished
    checked: int  # runs that were predicted to lose and finished all the same
    wrong: int  # of those: kept

    @property
    def words(self) -> str:
        """``4 runs stopped, about 1 h 10 min of training saved; of 1 finished as a check 0 kept``; "" for none."""
        if not self.runs and not self.checked:
            return ""
        found = f"{text.count(self.runs, 'run')} stopped, about {text.duration(self.saved_seconds)} of training saved"
        return found + (f"; of {self.checked} finished as a check {self.wrong} kept" if self.checked else "")


def stopped_of(state: State) -> Stopped:
    runs = on_validation(chain.from_iterable(state.runs.values()))
    trained = [run.seconds.get("training", 0.0) for run in runs if run.status == "ok"]
    stopped = [run.seconds.get("training", 0.0) for run in runs if run.status == "stopped"]
    usual = median(trained) if trained else 0.0
    foretold = {run.commit for run in runs if run.prediction and run.status == "ok"}
    return Stopped(
        runs=len(stopped),
        seconds=sum(stopped),
        saved_seconds=sum(max(0.0, usual - seconds) for seconds in stopped),
        checked=len(foretold),
        wrong=sum(record.candidate in foretold for record in state.kept),
    )


def phases(runs: Iterable[Measurement]) -> dict[str, float]:
    """Return seconds by phase of a run, summed over runs."""
    total: defaultdict[str, float] = defaultdict(float)
    for run in on_validation(runs):  # a test score repeats the times of the run that it scores
        for phase, seconds in run.seconds.items():
            total[phase] += max(0.0, seconds)
    return {p: total[p] for p in (*PHASES, *sorted(set(total) - {*PHASES, "done"})) if p in total}


def gpu_seconds(state: State) -> float:
    """Return the seconds of all runs on GPUs, summed over workers. Lost runs are not in it."""
    return sum(phases(run for run in chain.from_iterable(state.runs.values()) if run.device != "cpu").values())


def cost(record: Record) -> float:
    """Return the seconds that the runs of a trial took, those before a repair included."""
    runs = (*record.runs, *(run for repair in record.repairs for run in repair.runs))
    return sum(phases(runs).values())


def wall_seconds(state: State) -> float:
    """Return the seconds from the first event to the last, without the time in which no session ran."""
    began = state.last_time if state.session.began is None else state.session.began
    return max(0.0, state.last_time - began - state.away)


def split(state: State, spent: Mapping[str, float]) -> dict[str, float]:
    """Divide ``wall_seconds`` by purpose; parts of 0 s are left out.

    With several workers, times of runs are averaged over workers. Overhead is the rest: git, staging, the sandbox, the
    test split, lost runs and idle workers.

    Args:
        spent: Seconds by phase, over all runs.
    """
    workers, stopped = state.session.workers or 1, stopped_of(state).seconds
    parts = {
        "training": max(0.0, spent.get("training", 0.0) - stopped) / workers,
        "stopped runs": stopped / workers,
        "start-up": spent.get("startup", 0.0) / workers,
        "smoke tests": spent.get("smoke", 0.0) / workers,
        "scoring": spent.get("scoring", 0.0) / workers,
        "waiting for ideas": sum(record.asking for record in state.records),
    }
    parts["overhead"] = max(0.0, wall_seconds(state) - sum(parts.values()))
    return {name: seconds for name, seconds in parts.items() if seconds > 0}
