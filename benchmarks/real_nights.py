"""Whole nights with real training: two policies at equal numbers of training runs.

    python -m benchmarks.real_nights FILE.jsonl --play POLICY NIGHT [--runs 40]
    python -m benchmarks.real_nights FILE.jsonl --measure [--fresh-seeds 8]

A night proposes the recipes of the idea bank in random order on preset demo. Every run trains and is scored on the
validation split. Seeds, judge and events are those of a session; the sandbox and the smoke test are left out.
``--measure`` runs the baseline and each branch, as it stood after the runs that all nights have made, under seeds that
no night has used, scores both splits, and prints a table. A second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace
from typing import Any

from agent.cli.init import make_target
from agent.judge.noise import t_quantile
from agent.judge.policy import NAMES, MeasureNext
from agent.ledger.events import Judged, Measured, Moved
from agent.proposers.ideas.bank import load_bank
from agent.trial.seeds import session_seed
from agent.types import Measurement, Verdict
from benchmarks.night import Night
from benchmarks.real_edits import Bench, Keys

SEEDS = 100  # of a night; no two nights share one
FRESH = 10_000  # index of the first seed that no night uses
SPLITS = ("validation", "test")


@dataclass
class RealNight(Night):
    """A night whose runs train."""

    bench: Bench = field(kw_only=True)
    number: int = field(kw_only=True)

    def measure(self, trial: int, step: MeasureNext) -> None:
        used = {run.seed for run in self.builder.runs.get(step.commit, ())}
        seeds = [session_seed(0, k) for k in range(SEEDS)]
        seed = next(seed for seed in seeds if seed not in used) if step.seed is None else step.seed
        index = seeds.index(seed)
        row = self.bench.run(self.contents[step.commit], SEEDS * (1 + self.number) + index)
        self.machine.runs += 1
        failed = row["value"] is None
        run = Measurement(
            step.commit, step.role, seed, "cpu", "crash" if failed else "ok", row["value"],
            reason="training or scoring failed" if failed else "", device_type="cpu", initial_hash=row["initial_hash"],
            trace=f"trials/{trial:04d}/run-{self.machine.runs}",
        )  # fmt: skip
        self.write(Measured(time=1.0, trial=trial, measurement=run))

    def propose(self) -> str:
        """The next recipe that applies to the text of the branch."""
        while self.bench.text((*self.branch, key := super().propose())) is None:
            pass
        return key

    def keep(self, number: int, verdict: Verdict) -> None:
        self.branch = (*self.branch, self.key)
        accepted = f"accepted {number}"
        self.contents[accepted] = self.branch
        self.write(Moved(time=1.0, trial=number, commit=accepted))


def play(bench: Bench, policy: str, number: int, runs: int) -> Iterator[dict[str, Any]]:
    """One line after each run and each verdict: the branch as it stands, and the sum of the reported gains."""
    names = [key for key in bench.ideas if bench.text((key,)) is not None]
    machine: Any = SimpleNamespace(seed=f"real {number}", runs=0, truth=SimpleNamespace(own=names))
    night = RealNight(machine, policy, bench=bench, number=number)
    while machine.runs < runs or night.builder.state().open:
        night.advance()
        verdicts = [event.verdict for event in night.events if isinstance(event, Judged)]
        gain = sum(verdict.gain or 0.0 for verdict in verdicts if verdict.decision == "keep")
        made = {"policy": policy, "night": number, "runs": machine.runs, "trials": night.trials}
        yield {**made, "branch": night.branch, "gain": gain}


def measure(bench: Bench, rows: list[dict[str, Any]], seeds: int) -> Iterator[dict[str, Any]]:
    """Runs of the baseline and the branches under fresh seeds, seed by seed, that are not in ``rows``."""
    done = {(tuple(row["keys"]), row["seed"]) for row in rows if "values" in row}
    wanted = dict.fromkeys([(), *(tuple(row["branch"]) for row in final(rows))])
    for seed in range(FRESH, FRESH + seeds):
        for keys in wanted:
            if (keys, seed) not in done:
                row = bench.run(keys, seed, SPLITS)
                yield {name: row[name] for name in ("keys", "seed", "values")}


def final(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each night, the last line within the number of runs that all nights have made."""
    lines = [row for row in rows if "policy" in row]
    made: dict[tuple[str, int], int] = {}
    for row in lines:
        made[row["policy"], row["night"]] = max(row["runs"], made.get((row["policy"], row["night"]), 0))
    least = min(made.values())
    return list({(row["policy"], row["night"]): row for row in lines if row["runs"] <= least}.values())


def gains(rows: list[dict[str, Any]], branch: Keys, split: int) -> list[float]:
    """Paired gains over the baseline, by fresh seed."""
    values = {(tuple(row["keys"]), row["seed"]): row["values"] for row in rows if row.get("values")}
    seeds = sorted(seed for keys, seed in values if not keys and (branch, seed) in values)
    return [values[(), seed][split] - values[branch, seed][split] for seed in seeds]


def interval(found: list[float]) -> str:
    """Mean and 95 % interval by Student's t."""
    if len(found) < 2:
        return "–"
    half = t_quantile(0.975, len(found) - 1) * stdev(found) / math.sqrt(len(found))
    return f"{fmean(found):+.4f} ± {half:.4f}"


def table(rows: list[dict[str, Any]]) -> None:
    print("| policy | night | runs | trials | kept | reported gain | validation | test |")
    print("|---|---|---|---|---|---|---|---|")
    for row in sorted(final(rows), key=lambda row: (row["policy"], row["night"])):
        found = [interval(gains(rows, tuple(row["branch"]), split)) for split in range(len(SPLITS))]
        kept, numbers = len(row["branch"]), f"{row['night']} | {row['runs']} | {row['trials']}"
        print(f"| `{row['policy']}` | {numbers} | {kept} | {row['gain']:+.4f} | {' | '.join(found)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--play", nargs=2, metavar=("POLICY", "NIGHT"))
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--fresh-seeds", type=int, default=8)
    given = parser.parse_args()
    if given.play and given.play[0] not in NAMES:
        parser.error(f"no policy {given.play[0]!r}; there are: {', '.join(NAMES)}")
    rows = [json.loads(line) for line in given.file.read_text().splitlines()] if given.file.exists() else []
    with tempfile.TemporaryDirectory() as name, given.file.open("a") as file:
        make_target(Path(name) / "target", "demo")
        bench = Bench(Path(name), {idea.key: idea for idea in load_bank(Path(name) / "target") if idea.recipe})
        made = play(bench, given.play[0], int(given.play[1]), given.runs) if given.play else iter(())
        for row in measure(bench, rows, given.fresh_seeds) if given.measure else made:
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    if given.measure:
        table(rows)


if __name__ == "__main__":
    main()
