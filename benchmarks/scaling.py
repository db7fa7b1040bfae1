"""Scaling with the number of workers: python -m benchmarks.scaling sessions|simulation

``sessions`` runs sessions whose trainer sleeps 20 s, on threads of this machine and on a local Ray node that declares
one CPU per worker: a sleeping trainer needs none. Efficiency is the training time of all runs / (workers × wall clock),
from the first run of a trial to the last result. The goal is 95 % at 8 workers.

``simulation`` starts no process. A search method proposes a point whenever one of N workers is free, and receives the
result after a random run time (lognormal, median 1). So up to N points are open, and results arrive late.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from agent.ledger.events import Measured, RunStarted
from agent.ledger.journal import read
from agent.observers.protocol import Observer
from agent.proposers import make_proposer
from agent.types import Value
from benchmarks.idle_target import TRAIN, make_target, session
from benchmarks.objectives import KINDS, Objective, paper_space
from benchmarks.search import interval

TRAINING = 20.0  # seconds
NAP = f"import time\n\ntime.sleep({TRAINING})\n"
SPREAD = 0.4  # sd of the logarithm of a simulated run time
MOMENTS = (4, 8, 16)  # times of evaluation, in median run times


def efficiency(root: Path, workers: int, waves: int, address: str) -> tuple[float, float]:
    """Efficiency of one session, and the median overhead of a run in seconds."""
    target = make_target(root / "target", NAP + TRAIN)
    directory = session(
        target, root / "runs", Observer(), workers=workers, threads=1, budget="1steps", trials=workers * waves,
        ray_address=address,
    )  # fmt: skip
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    for event in read(directory.ledger):
        if isinstance(event, RunStarted) and event.trial:
            began[event.trace] = event.time
        elif isinstance(event, Measured) and event.trial:
            ended[event.measurement.trace] = event.time
    assert len(ended) == workers * waves, "a run was repeated or lost"
    wall = max(ended.values()) - min(began.values())
    lost = median(ended[trace] - began[trace] - TRAINING for trace in ended)
    return len(ended) * TRAINING / (workers * wall), lost


def sessions(workers: int, waves: int, rounds: int) -> None:
    print("| workers | where | efficiency in each round | median | of a run, not training |\n|---|---|---|---|---|")
    found: dict[str, list[tuple[float, float]]] = {"threads": [], "Ray": []}
    for _ in range(rounds):  # alternating, so that other load affects both
        for where, address in (("threads", ""), ("Ray", "local")):
            with tempfile.TemporaryDirectory() as name:
                found[where].append(efficiency(Path(name), workers, waves, address))
    for where, pairs in found.items():
        each = ", ".join(f"{share:.1%}" for share, _ in pairs)
        middle, lost = median(share for share, _ in pairs), median(lost for _, lost in pairs)
        print(f"| {workers} | {where} | {each} | {middle:.1%} | {lost:.2f} s |", flush=True)


def simulate(name: str, kind: str, seed: int, workers: int) -> list[float]:
    """True value of the best so far (by its noisy value) at each of ``MOMENTS``."""
    objective = Objective(paper_space(), kind, seed)
    method = make_proposer(name, objective.space, seed)
    start = objective.run(objective.space.defaults, 0)
    method.tell(objective.space.defaults, start.value, memory_gb=start.memory_gb)
    best, true = start.value or 1.0, start.true or 1.0
    random = np.random.default_rng([11, seed])
    running: list[tuple[float, int, dict[str, Value]]] = []
    trial, now, found = 0, 0.0, []
    for moment in MOMENTS:
        while True:
            while len(running) < workers:
                trial += 1
                heapq.heappush(running, (now + float(random.lognormal(0.0, SPREAD)), trial, method.ask()))
            if running[0][0] > moment:
                break
            now, number, params = heapq.heappop(running)
            outcome = objective.run(params, number)
            method.tell(params, outcome.value, status=outcome.status, memory_gb=outcome.memory_gb)
            if outcome.value is not None and outcome.true is not None and outcome.value < best:
                best, true = outcome.value, outcome.true
        found.append(true)
    return found


def simulation(kind: str, seeds: int, most: int) -> None:
    print(f"Simulated, objective `{kind}`, {seeds} seeds: best true value after so many median run times\n")
    print("| method | workers | " + " | ".join(map(str, MOMENTS)) + " |\n|---|---|" + "---|" * len(MOMENTS))
    for name in ("cma-es", "random"):
        for workers in (n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n <= most):
            runs = [simulate(name, kind, seed, workers) for seed in range(seeds)]
            cells = [interval([run[k] for run in runs]) for k in range(len(MOMENTS))]
            print(f"| {name} | {workers} | " + " | ".join(f"{m:.4f} ± {h:.4f}" for m, h in cells) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("part", choices=("sessions", "simulation"))
    parser.add_argument("--workers", type=int, default=8, help="of real sessions")
    parser.add_argument("--waves", type=int, default=5, help="trials of each worker")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=KINDS, default="near")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--most", type=int, default=256, help="workers of the simulation")
    given = parser.parse_args()
    if given.part == "sessions":
        sessions(given.workers, given.waves, given.rounds)
    else:
        simulation(given.kind, given.seeds, given.most)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
