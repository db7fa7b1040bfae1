"""Time the reading commands on large records: python -m benchmarks.records [--trials 10000] [--runs 200]

Writes run directories without training: one long night, and many short nights. The kept edits of the long night are
commits of a real repository. ``plan`` is the work of ``overnight replay`` before its first run: reading the ledger or
the branch, and the commits. Each command is a new process. ``ratio`` is its time divided by that of ``overnight
--help`` in the same round, the median over rounds. The goal of 2 s holds for processor time.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from agent.ledger.events import Asked, Candidate, Ended, Judged, Measured, Moved, Observed, RunStarted, SessionStarted
from agent.ledger.journal import Ledger
from agent.repo.repo import Repo
from agent.types import Measurement, Proposal, Role, Verdict
from benchmarks.idle_target import TRAIN, make_target

GOAL = 2.0  # seconds
PLAN_OF_RUN = """import sys
from pathlib import Path
from agent.repo.repo import Repo
from agent.ledger.recovery import read_state
from agent.replay.steps import named, steps_of_run
print(len(named(steps_of_run(read_state(Path(sys.argv[1]))[0]), Repo(Path(sys.argv[2])), "long")))
"""
PLAN_OF_BRANCH = """import sys
from pathlib import Path
from agent.repo.repo import Repo
from agent.replay.steps import steps_of_branch
from agent.target import load_target
folder = Path(sys.argv[2])
print(len(steps_of_branch(Repo(folder), load_target(folder)[0], "autoresearch/long", {})))
"""
COMMANDS = ("list", "list --json", "status long", "status", "log long", "log long --all", "log long --json",
            "show long 9", "report long")  # fmt: skip
DIFF = "--- a/train.py\n+++ b/train.py\n@@ -3,1 +3,1 @@\n-LR = 0.04\n+LR = {:.4f}\n"


def write_run(root: Path, tag: str, trials: int, seed: int, repo: Repo | None = None) -> None:
    """Write a run directory with ``trials`` finished trials, one in fifty kept, one in ten failed.

    With ``repo``, the kept edits are commits of its branch ``autoresearch/TAG``.
    """
    folder, draw = root / tag, random.Random(seed)
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text(
        f'[run]\ntag = "{tag}"\ntarget = "/t"\nproposer = "cma-es"\n[target]\nname = "t"\n'
    )
    now = [1_780_000_000.0 + 1e5 * seed]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    def commit(name: str) -> str:
        return f"{random.Random(f'{seed}/{name}').getrandbits(160):040x}"

    def accepted(parent: str, number: int, rate: float) -> str:
        if repo is None:
            return commit(f"accepted {number}")
        message = f"RATE → {rate:.4f}\n\nTrial: {number}\nVal-Bpb: {best:.4f}\nSession: {tag}\n"
        return repo.build(parent, {"train.py": TRAIN.replace("0.01", f"{rate:.4f}")}, message, int(now[0]))

    base, best = repo.head() if repo else commit("base"), 1.07
    with Ledger(folder / "ledger.jsonl", clock) as ledger:
        ledger.append(SessionStarted(tag=tag, baseline=base, metric="val_bpb", goal="minimize", proposer="cma-es",
                      sandbox="bwrap", policy="margin", seed=seed, budget="300s", trials=trials, device="cpu",
                      target="t", path="train.py", self_reported=False, data="d"))  # fmt: skip

        def measure(trial: int, sha: str, role: Role, value: float | None) -> None:
            trace = f"trials/{trial:04d}/run-1"
            run_seed = draw.randrange(1 << 31)
            ledger.append(RunStarted(trial=trial, commit=sha, role=role, seed=run_seed, trace=trace))
            ledger.append(Measured(trial=trial, measurement=Measurement(
                sha, role, run_seed, "cpu", "ok" if value else "crash", value,
                metrics={"steps": 900.0, "tokens": 1e8, "train_loss": 2.9, "parameters": 1e7, "tokens_per_second": 1e5},
                seconds={"startup": 11.2, "training": 300.1, "scoring": 13.3}, peak_memory_gb=21.3,
                reason="" if value else "RuntimeError: shapes cannot be multiplied",
                log_tail="" if value else "Traceback\n" * 40, trace=trace, initial_hash="a" * 64)))  # fmt: skip

        for _ in range(3):
            measure(0, base, "calibrate", best + draw.gauss(0, 0.001))
        ledger.append(Observed(trial=0))
        head = base
        for number in range(1, trials + 1):
            sha = commit(f"trial {number}")
            rate = draw.uniform(0.01, 0.1)
            proposal = Proposal("cma-es", "cma", head, DIFF.format(rate), params={"LR": rate, "DEPTH": 8},
                                subject=f"LR 0.04 → {rate:.4f}", category="hyperparameters", form="f" * 64)  # fmt: skip
            ledger.append(Asked(trial=number, started=now[0], proposal=proposal))
            ledger.append(Candidate(trial=number, commit=sha, ref=f"refs/autoresearch/{tag}/{number:04d}"))
            keep, failed = number % 50 == 0, draw.random() < 0.1 and number % 50 != 0
            value = None if failed else best - 0.002 if keep else best + abs(draw.gauss(0, 0.004))
            measure(number, sha, "screen", value)
            gain = None if value is None else round(best - value, 6)
            ledger.append(Judged(trial=number, verdict=Verdict("keep" if keep else "revert", value, best, gain,
                          0.001, int(value is not None), 3, 2, "" if keep else "not better")))  # fmt: skip
            if keep:
                head, best = accepted(head, number, rate), value or best
                ledger.append(Moved(trial=number, commit=head))
            ledger.append(Observed(trial=number))
        ledger.append(Ended(reason=f"all {trials} trials done"))
    if repo:
        repo.refs.move(f"refs/heads/autoresearch/{tag}", head, None)


def seconds(*words: str) -> tuple[float, float]:
    """Return wall-clock and processor seconds of Python with these arguments."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - began, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, help="of the long run")
    parser.add_argument("--runs", type=int, default=200, help="run directories in all")
    parser.add_argument("--short", type=int, default=100, help="trials of each other run")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs, target = Path(folder) / "runs", make_target(Path(folder) / "target")
        real = os.fsync
        os.fsync = lambda fd: None  # writing is not measured
        try:
            for k in range(given.runs - 1):
                write_run(runs, f"short-{k:03d}", given.short, k)
            write_run(runs, "long", given.trials, given.runs, Repo(target))
        finally:
            os.fsync = real
        ledger = runs / "long" / "ledger.jsonl"
        print(
            f"{given.runs} runs: one of {given.trials} trials ({ledger.stat().st_size / 1e6:.1f} MB of ledger), others "
            f"of {given.short}; load {os.getloadavg()[0]:.1f}"
        )
        place = ("--runs", str(runs))
        commands = {
            "--help": ("-m", "agent.cli", "--help"),
            "list, no cache": ("-m", "agent.cli", "list", *place),
            **{line: ("-m", "agent.cli", *line.split(), *place) for line in COMMANDS},
            "plan of a run": ("-c", PLAN_OF_RUN, str(ledger), str(target)),
            "plan of a branch": ("-c", PLAN_OF_BRANCH, str(ledger), str(target)),
        }
        times: dict[str, list[tuple[float, float]]] = {}
        for _ in range(given.rounds):
            for cache in runs.glob("*/.list.json"):
                cache.unlink()
            for name, words in commands.items():
                times.setdefault(name, []).append(seconds(*words))
        print("| command | wall-clock s | ratio to `--help` | processor s | under 2 s |\n|---|---|---|---|---|")
        for name, taken in times.items():
            ratio = median(t[0] / h[0] for t, h in zip(taken, times["--help"], strict=True))
            wall, used = (median(t[k] for t in taken) for k in (0, 1))
            print(f"| `{name}` | {wall:.2f} | {ratio:.1f} | {used:.2f} | {'yes' if used < GOAL else '**no**'} |")


if __name__ == "__main__":
    main()
