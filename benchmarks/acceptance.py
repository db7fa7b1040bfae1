"""Simulate which edits a policy keeps: the real ``judge`` on runs drawn from edits of known effect.

    python -m benchmarks.acceptance --nights 300 --seed 1

Unit: the standard deviation sigma of one training run; lower is better. An edit changes the true value of its parent:
15 % of edits gain ``effect``, 35 % change nothing, 50 % lose ``effect``. Every run costs 1, also calibration,
confirmation, held-out runs and runs of the incumbent.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

from agent.judge.gain import without_screening_run
from agent.judge.noise import pooled_noise
from agent.judge.policy import RESUMED, History, MeasureNext, Policy, default_calibration, judge
from agent.types import Measurement, Role

SHARES = (0.15, 0.35, 0.50)  # gain, nothing, loss
START = 100.0  # true value of the baseline


@dataclass(frozen=True)
class World:
    """Effects of the edits, and the distribution of the noise."""

    name: str
    effect: float = 2.0
    heavy: bool = False  # noise: Student's t with 3 degrees of freedom, scaled to a standard deviation of 1
    drift: float = 0.0  # change of the mean over 150 runs


WORLDS = (
    World("2σ"),
    World("1σ", effect=1.0),
    World("4σ", effect=4.0),
    World("2σ, heavy tails", heavy=True),
    World("2σ, drift −4σ", drift=-4.0),
    World("2σ, drift +4σ", drift=4.0),
)


@dataclass
class Night:
    """Counts over one night."""

    trials: int = 0
    runs: int = 0
    kept: dict[str, int] = field(default_factory=lambda: {"gain": 0, "nothing": 0, "loss": 0})
    drawn: dict[str, int] = field(default_factory=lambda: {"gain": 0, "nothing": 0, "loss": 0})
    errors: list[float] = field(default_factory=list)  # reported minus true gain of kept edits
    empty: list[float] = field(default_factory=list)  # reported gain of false positives: kept edits without effect
    improvement: float = 0.0  # true gain of the branch at the end


class Machine:
    """Draws runs. Drift is proportional to the number of runs so far."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng, self.runs = world, rng, 0

    def run(self, commit: str, true: float, role: Role) -> Measurement:
        noise = self.rng.gauss(0, 1)
        if self.world.heavy:
            chi = sum(self.rng.gauss(0, 1) ** 2 for _ in range(3))
            noise = noise / math.sqrt(chi / 3) / math.sqrt(3)
        value = true + noise + self.world.drift * self.runs / 150
        self.runs += 1
        return Measurement(commit, role, self.runs, "cpu", "ok", value)


def night(world: World, policy: Policy, seed: int, trials: int | None = 100, budget: int | None = None) -> Night:
    """One session of ``trials`` trials, or as many as fit into ``budget`` runs."""
    rng = random.Random(seed)
    edits, machine, out = random.Random(seed + 1_000_003), Machine(world, rng), Night()
    incumbent, level = "base", START
    runs = {incumbent: [machine.run(incumbent, START, "calibrate") for _ in range(default_calibration(policy, trials))]}
    groups = {incumbent: [run.value or 0.0 for run in runs[incumbent]]}
    age = 0
    while (trials is None or out.trials < trials) and (budget is None or machine.runs < budget):
        out.trials += 1
        kind = edits.choices(("gain", "nothing", "loss"), SHARES)[0]
        effect = {"gain": world.effect, "nothing": 0.0, "loss": -world.effect}[kind]
        candidate, true = f"c{out.trials}", {incumbent: level, f"c{out.trials}": level - effect}
        while True:
            known = tuple(runs[incumbent])
            history = History(
                "minimize",
                incumbent,
                candidate,
                known if incumbent == "base" else without_screening_run(known),
                tuple(runs.get(candidate, ())),
                pooled_noise(group for group in groups.values() if len(group) > 1),
                incumbent_age=age,
            )
            step = judge(history, policy)
            if not isinstance(step, MeasureNext):
                break
            run = machine.run(step.commit, true[step.commit], step.role)
            runs.setdefault(step.commit, []).append(run)
            groups.setdefault(step.commit, []).append(run.value or 0.0)
            age = 0 if step.commit == incumbent else age
        out.drawn[kind] += 1
        age += 1
        if step.decision == "keep":
            out.kept[kind] += 1
            out.errors.append((step.gain or 0.0) - effect)
            if kind == "nothing":
                out.empty.append(step.gain or 0.0)
            incumbent, level, age = candidate, level - effect, 0
    out.runs, out.improvement = machine.runs, START - level
    return out


@dataclass(frozen=True)
class Summary:
    """Means over many nights; fields in ``_se`` are standard errors of the field before."""

    false_per_edit: float  # false-positive rate: share of edits without effect that are kept
    false_share: float  # share of kept edits that do not gain
    false_share_se: float
    power: float  # share of edits with a gain that are kept
    runs_per_trial: float
    bias: float  # of reported gains, in sigma
    bias_se: float
    empty_gain: float  # mean reported gain of kept edits without effect
    improvement: float
    improvement_se: float


def summarise(nights: Sequence[Night]) -> Summary:
    def total(name: str, kind: str) -> int:
        return sum(getattr(night, name)[kind] for night in nights)

    kept = sum(total("kept", kind) for kind in ("gain", "nothing", "loss"))
    false_share = 1 - total("kept", "gain") / kept if kept else math.nan
    errors = [error for night in nights for error in night.errors]
    empty = [gain for night in nights for gain in night.empty]
    finals = [night.improvement for night in nights]
    return Summary(
        total("kept", "nothing") / total("drawn", "nothing"),
        false_share,
        math.sqrt(false_share * (1 - false_share) / kept) if kept else math.nan,
        total("kept", "gain") / total("drawn", "gain"),
        sum(night.runs for night in nights) / sum(night.trials for night in nights),
        fmean(errors) if errors else math.nan,
        stdev(errors) / math.sqrt(len(errors)) if len(errors) > 1 else math.nan,
        fmean(empty) if empty else math.nan,
        fmean(finals),
        stdev(finals) / math.sqrt(len(finals)) if len(finals) > 1 else math.nan,
    )


def measure(world: World, policy: Policy, nights: int, seed: int, budget: int) -> Summary:
    """Rates from nights of 100 trials; the final value from nights of ``budget`` runs."""
    by_trials = summarise([night(world, policy, seed * 100_000 + k) for k in range(nights)])
    by_runs = summarise([night(world, policy, seed * 100_000 + k, None, budget) for k in range(nights)])
    return replace(by_trials, improvement=by_runs.improvement, improvement_se=by_runs.improvement_se)


HEAD = (
    "| world | policy | false-positive rate | false share of the branch | power | runs/trial | bias of gain, σ | "
    "reported gain of false positives, σ | true gain of the branch, σ |\n|" + "---|" * 9
)


def line(world: str, policy: str, s: Summary) -> str:
    return (
        f"| {world} | {policy} | {s.false_per_edit:.1%} | {s.false_share:.1%} ± {s.false_share_se:.1%} | "
        f"{s.power:.0%} | {s.runs_per_trial:.2f} | {s.bias:+.2f} ± {s.bias_se:.2f} | {s.empty_gain:+.2f} | "
        f"{s.improvement:.1f} ± {s.improvement_se:.1f} |"
    )


FRONTIER: tuple[dict[str, float], ...] = (
    {},
    {"level": 0.01},
    {"level": 0.05},
    {"level": 0.1},
    {"gate": 0.0},
    {"gate": 0.5},
    {"gate": 0.75},
    {"max_runs": 2},
    {"max_runs": 3},
    {"max_runs": 6},
    {"incumbent_runs": 2},
    {"incumbent_runs": 3},
    {"incumbent_runs": 6},
    {"recheck_every": 10},
    {"recheck_every": RESUMED},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nights", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=int, default=150, help="runs in a night, for the final value")
    parser.add_argument("--frontier", action="store_true", help="vary the constants of confirm in the first world")
    options = parser.parse_args()
    print(HEAD, flush=True)
    if options.frontier:
        for constants in FRONTIER:
            policy = replace(Policy("confirm"), **constants)  # type: ignore[arg-type]
            name = ", ".join(f"{k} = {v:g}" for k, v in constants.items() if v != RESUMED) or "defaults"
            name = "no rechecks" if RESUMED in constants.values() else name
            print(
                line("2σ", name, measure(WORLDS[0], policy, options.nights, options.seed, options.budget)), flush=True
            )
        return
    for world in WORLDS:
        for name in ("confirm", "margin", "greedy"):
            found = measure(world, Policy(name), options.nights, options.seed, options.budget)
            print(line(world.name, name, found), flush=True)


if __name__ == "__main__":
    main()
