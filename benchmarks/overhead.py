"""Overhead of the agent per trial: python -m benchmarks.overhead [--trials 30] [--sandbox process bwrap]

With a self-reporting target: the time of a trial that trains nothing, minus that of ``python train.py`` alone, measured
in the same call. With ``--trusted`` (a preset with one training step): the time of a trial outside of its phases
start-up, training and scoring. Medians; the goals are 0.3 s in ``process``, 0.5 s in ``bwrap`` and 1.5 s in ``docker``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from agent.cli import init as commands
from agent.ledger.journal import read
from agent.ledger.state import fold
from benchmarks.idle_target import Clock, make_target, session


def bare(target: Path, runs: int) -> list[float]:
    """Seconds of each of ``runs`` calls of ``python train.py``."""
    found = []
    for _ in range(runs):
        began = time.monotonic()
        subprocess.run([sys.executable, "train.py"], cwd=target, check=True, stdout=subprocess.DEVNULL)
        found.append(time.monotonic() - began)
    return found


def idle(sandbox: str, root: Path, trials: int) -> None:
    clock, target = Clock(), make_target(root / f"idle-{sandbox}")
    alone = bare(target, 10)
    session(target, root / f"runs-{sandbox}", clock, sandbox=sandbox, trials=trials)
    alone += bare(target, 10)
    whole, least = median(clock.seconds().values()), median(alone)
    print(f"{sandbox:8} bare {least:.3f} s   trial {whole:.3f} s   overhead {whole - least:.3f} s", flush=True)


def trusted(sandbox: str, root: Path, trials: int) -> None:
    clock, target = Clock(), root / f"trusted-{sandbox}"
    commands.make_target(target, "demo")
    directory = session(
        target, root / f"trusted-runs-{sandbox}", clock, sandbox=sandbox, trials=trials, budget="1steps", threads=1
    )
    records = {r.number: r for r in fold(read(directory.ledger)).finished}
    outside = [
        seconds - sum(sum(run.seconds.values()) for run in records[number].runs if run.role != "test")
        for number, seconds in clock.seconds().items()
        if all(run.role != "test" for run in records[number].runs)  # a kept edit is scored once more
    ]
    print(f"{sandbox:8} with the trusted scorer: {median(outside):.3f} s outside of the phases", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--sandbox", nargs="+", default=["process", "bwrap"], choices=("process", "bwrap", "docker"))
    parser.add_argument("--trusted", action="store_true", help="measure the trusted scorer too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for sandbox in given.sandbox:
            idle(sandbox, Path(name), given.trials)
        for sandbox in given.sandbox if given.trusted else ():
            trusted(sandbox, Path(name), max(3, given.trials // 5))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
