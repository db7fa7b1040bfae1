"""Processor time of ask and tell late in a session, and of a resume: ``python -m benchmarks.search_speed``.

The table shows milliseconds of one ask and tell over trials 251 to 300, and seconds to read a ledger of 2,000 trials,
replay it and ask once. The model of ``centaur`` is simulated and answers immediately.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from agent.ledger.events import Asked, Candidate, Event, Judged, Measured, Observed, SessionStarted, encode
from agent.ledger.journal import read
from agent.proposers import make_proposer
from agent.proposers.block import BlockProposer
from agent.proposers.search.base import Method
from agent.types import Measurement, Proposal, Verdict
from benchmarks.objectives import Objective, paper_space
from benchmarks.search import Adviser

METHODS = ("cma-es", "cma-gp", "centaur", "tpe")
LATE, LONG = 300, 2000


def make(name: str, objective: Objective) -> Method:
    options: dict[str, Any] = {}
    if name == "centaur":
        adviser = Adviser(objective, "helpful", np.random.default_rng(0))
        options = {"llm": adviser, "reply": "json"}
    return make_proposer(name, objective.space, 0, **options)


def late_asks(name: str) -> list[float]:
    """Processor seconds of each of the last fifty asks and tells."""
    objective = Objective(paper_space(), "far", 0)
    method, taken = make(name, objective), []
    for trial in range(LATE):
        began = time.process_time()
        params = method.ask()
        asked = time.process_time()
        outcome = objective.run(params, trial)
        measured = time.process_time()
        method.tell(params, outcome.value, status=outcome.status, memory_gb=outcome.memory_gb)
        taken.append(asked - began + time.process_time() - measured)
    return taken[-50:]


def events(objective: Objective) -> Iterator[Event]:
    """The ledger of a search by cma-es."""
    method = make("cma-es", objective)
    yield SessionStarted(time=0.0, baseline="b")
    start = Measurement("b", "calibrate", 0, "cpu", "ok", objective.run(objective.space.defaults, 0).value)
    yield Measured(time=0.0, trial=0, measurement=start)
    yield Observed(time=0.0, trial=0)
    method.tell(objective.space.defaults, start.value)
    for trial in range(1, LONG + 1):
        suggestion = method.suggest()
        outcome = objective.run(suggestion.params, trial)
        method.tell(suggestion.params, outcome.value, status=outcome.status, memory_gb=outcome.memory_gb)
        proposal = Proposal("cma-es", suggestion.source, "b", "diff", params=dict(suggestion.params), subject="s")
        status: Any = outcome.status
        run = Measurement(f"c{trial}", "screen", trial, "cpu", status, outcome.value, peak_memory_gb=outcome.memory_gb)
        yield Asked(time=0.0, trial=trial, proposal=proposal)
        yield Candidate(time=0.0, trial=trial, commit=f"c{trial}", ref="r")
        yield Measured(time=0.0, trial=trial, measurement=run)
        verdict = Verdict("revert", outcome.value, None, None, None, 1, 1, 0, "")
        yield Judged(time=0.0, trial=trial, verdict=verdict)
        yield Observed(time=0.0, trial=trial)


def resume(name: str, ledger: Path, objective: Objective) -> tuple[float, float]:
    """Processor seconds to read and replay the ledger, and of the next ask."""
    began = time.process_time()
    proposer = BlockProposer(name, make(name, objective), objective.space, "minimize")
    proposer.replay(read(ledger))
    replayed = time.process_time()
    proposer.method.ask()
    return replayed - began, time.process_time() - replayed


def main() -> None:
    print("| method | ask and tell at 300 trials, median | slowest of fifty | resume after 2,000 trials | next ask |")
    print("|---|---|---|---|---|")
    objective = Objective(paper_space(), "far", 0)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.jsonl"
        ledger.write_bytes(b"".join(map(encode, events(objective))))
        for name in METHODS:
            taken = late_asks(name)
            back, ask = resume(name, ledger, objective)
            middle, slowest = (f"{1000 * seconds:.0f} ms" for seconds in (median(taken), max(taken)))
            print(f"| {name} | {middle} | {slowest} | {back:.1f} s | {1000 * ask:.0f} ms |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
