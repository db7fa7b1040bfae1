"""Gain of each recipe of the idea bank: python -m benchmarks.ideas [--preset demo] [--seeds 3] [--workers 2] [KEY…]

Every recipe is one edit of the unchanged baseline. Baseline and edit run under the same seeds. The gain is the mean
of the paired differences; its standard error follows from their scatter. A row is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from statistics import fmean, stdev

from agent.cli.init import make_target
from agent.errors import NoEffect, PatchRejected
from agent.patch.apply import apply_reply
from agent.proposers.ideas.bank import Idea, load_bank
from agent.settings import make_settings
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.trial.seeds import session_seed
from agent.types import Measurement
from agent.workers.runtime import Workplace, workplace


class Bench:
    """Measures commits of one target, several at a time."""

    def __init__(self, place: Workplace, scratch: Path, workers: int) -> None:
        self.place, self.scratch = place, scratch
        self.head = place.repo.head()
        self.source = place.repo.read(self.head, "train.py")
        self._free: SimpleQueue[Experiment] = SimpleQueue()
        for experiment in place.experiments("benchmark", lambda: False, workers):
            self._free.put(experiment)

    def commit(self, idea: Idea) -> str | None:
        """The commit of a recipe; None if the recipe does not apply."""
        try:
            text = apply_reply(self.source, idea.reply, "train.py")
        except (NoEffect, PatchRejected):
            return None
        return self.place.repo.build(self.head, {"train.py": text}, f"{idea.key}\n", 1_700_000_000)

    def run(self, commit: str, seed: int) -> Measurement:
        experiment = self._free.get()
        try:
            order = Order(0, commit, "screen", seed, "")
            return experiment.measure(order, self.scratch / f"{commit[:12]}-{seed}", lambda _phase, _info: None)
        finally:
            self._free.put(experiment)


def row(idea: Idea, before: list[Measurement], after: list[Measurement]) -> str:
    failed = next((run for run in after if run.value is None), None)
    if failed is not None:
        return f"| {idea.key} | {idea.category} | {failed.status}: {failed.reason[:60]} | |"
    gains = [old.value - new.value for old, new in zip(before, after, strict=True) if old.value and new.value]
    se = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    each = " ".join(f"{gain:+.4f}" for gain in gains)
    return f"| {idea.key} | {idea.category} | {fmean(gains):+.4f} ± {se:.4f} | {each} |"


def rows(bench: Bench, ideas: list[Idea], seeds: list[int], workers: int) -> Iterator[str]:
    with ThreadPoolExecutor(workers) as pool:
        before = list(pool.map(lambda seed: bench.run(bench.head, seed), seeds))
        started = []
        for idea in ideas:
            commit = bench.commit(idea)
            if commit is None:
                yield f"| {idea.key} | {idea.category} | does not apply | |"
            else:
                started.append((idea, [pool.submit(bench.run, commit, seed) for seed in seeds]))
        for idea, futures in started:
            yield row(idea, before, [future.result() for future in futures])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("keys", nargs="*", metavar="KEY", help="default: all recipes")
    parser.add_argument("--preset", choices=("demo", "cpu"), default="demo")
    parser.add_argument("--budget", help="default: that of the preset; 131072tokens is equal work on a busy machine")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_target(root / "target", given.preset)
        settings = {"target": str(root / "target"), "threads": 1, "device": "cpu", "sandbox": "bwrap"}
        settings |= {"budget": given.budget} if given.budget else {}
        place = workplace(make_settings({**settings, "proposer": "random"}, None), lambda _text: None)
        bank = [idea for idea in load_bank(root / "target") if idea.recipe]
        ideas = [idea for idea in bank if not given.keys or idea.key in given.keys]
        print("| idea | category | gain ± standard error | paired differences |\n|---|---|---|---|", flush=True)
        seeds = [session_seed(0, k) for k in range(given.seeds)]
        for line in rows(Bench(place, root / "runs", given.workers), ideas, seeds, given.workers):
            print(line, flush=True)


if __name__ == "__main__":
    main()
