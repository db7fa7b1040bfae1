"""Runs cut short on the table of real edits: python -m benchmarks.stopping [--nights 200]

A night runs recipes and combinations in random order, each once under one seed, against the baseline under the same
seed. Loss curves of earlier edits decide when a run is stopped. Printed: the share of the training time that stopping
saves, how many stopped runs would have ended above the gate, and how many edits gain by the mean over all their seeds.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from agent.cli.init import make_target
from agent.errors import NoEffect, PatchRejected
from agent.judge.hopeless import MILESTONES, Pair, Watch, fits_of
from agent.patch.apply import apply_reply
from agent.patch.normal_form import changes_loss
from agent.proposers.ideas.bank import load_bank
from benchmarks.real_table import Keys, Row, read_table


@dataclass(frozen=True)
class Stopping:
    """Stopped runs in replayed nights on the table."""

    trials: int
    stopped: int
    above: int  # stopped, although the finished run lies above the gate: the judge would not have dropped the edit
    gains: int  # stopped, with a mean gain over all their seeds that is above 0
    saved: float  # share of the training time of all runs of candidates
    at: dict[str, int]  # stopped runs by milestone


def recipes_of_the_loss() -> frozenset[str]:
    """Recipes that change a statement of the loss: a session finishes their runs."""
    found = set()
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "target"
        make_target(target, "demo")
        before = (target / "train.py").read_text()
        for idea in load_bank(target):
            with suppress(NoEffect, PatchRejected):
                if changes_loss(before, apply_reply(before, idea.reply, "train.py")):
                    found.add(idea.key)
    return frozenset(found)


def stopping(rows: Sequence[Row], gate: float, count: int, seed: int, finished: Set[str]) -> Stopping:
    """Replay nights: recipes and combinations in random order, each once under one seed, against the baseline.

    Args:
        finished: recipes whose runs are never stopped.
        gate: gain below which the judge drops an edit, in bits per byte.
    """
    baseline = {row.seed: row for row in rows if not row.keys}
    edits: dict[Keys, list[Row]] = {}
    for row in rows:
        if row.keys and row.seed in baseline:
            edits.setdefault(row.keys, []).append(row)
    gains = {keys: [baseline[row.seed].value - row.value for row in found] for keys, found in edits.items()}
    draw, at = random.Random(seed), dict.fromkeys(map(str, MILESTONES[1:]), 0)
    trials = stopped = above = better = 0
    saved = 0.0
    for _ in range(count):
        pairs: list[Pair] = []
        for keys in draw.sample(sorted(edits), len(edits)):
            row = draw.choice(edits[keys])
            before = baseline[row.seed]
            pair = Pair(before.losses, row.losses, before.value - row.value)
            watch = Watch(before.losses, before.value, "minimize", "cpu", fits_of(pairs), gate)
            looks = (watch.look(row.losses[: n + 1]) for n in range(1, len(row.losses)))
            trials += 1
            found = next((look for look in looks if look), None) if finished.isdisjoint(keys) else None
            if found:
                stopped += 1
                at[str(found.progress)] += 1
                saved += 1 - found.progress
                above += pair.gain >= gate
                better += fmean(gains[keys]) > 0
            else:
                pairs.append(pair)
    return Stopping(trials, stopped, above, better, saved / trials, at)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nights", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows, finished = read_table(), recipes_of_the_loss()
    sd = stdev(row.value for row in rows if not row.keys)
    print("| gate, σ | edits | stopped | above the gate | gains | training saved | at |\n|---|---|---|---|---|---|---|")
    for gate in (0.0, -0.3, -1.0):
        found = stopping(rows, gate * sd, given.nights, given.seed, finished)
        at = ", ".join(f"{count} at {float(share):.0%}" for share, count in found.at.items())
        above, gains = found.above / max(found.stopped, 1), found.gains / max(found.stopped, 1)
        print(
            f"| {gate:g} | {found.trials} | {found.stopped / found.trials:.1%} | {above:.1%} | {gains:.1%} "
            f"| {found.saved:.1%} | {at} |"
        )


if __name__ == "__main__":
    main()
