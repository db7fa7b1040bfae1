"""How fast a policy climbs, and how many of its keeps are false, in simulated nights.

    python -m benchmarks.acceptance [--policy confirm greedy] [--rho 0.9] [--runs 30 150] [--nights 100] [--json]

Unit: the standard deviation sigma of one training run. An edit changes the value of its parent by a draw from a world's
mixture. Every run costs 1, calibration and runs of the incumbent included. ``--rho`` is the correlation of runs of two
commits under one seed. A keep is false if the edit gains nothing on top of the branch that it is kept on. A night is
read after each of the numbers of runs.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, stdev

from agent.judge import paired
from agent.judge.belief import Belief
from agent.judge.policy import Policy, default_calibration
from agent.judge.sharing import InitialWeights


@dataclass(frozen=True)
class World:
    """What edits are worth and how the machine varies, in sigma."""

    name: str
    effect: float = 2.0
    shares: tuple[float, float] = (0.15, 0.35)  # of gains and of edits without effect; the others lose
    heavy: bool = False  # Student's t with 3 degrees of freedom, scaled to a standard deviation of 1
    drift: float = 0.0  # change of the value's level over 150 runs
    interact: float = 0.0  # share of pairs of edits that add plus or minus 1 when together
    scatter: float = 0.0  # spread of log noise between edits: some depend on the seed more than others
    unstable: float = 0.0  # share of edits that lose 12 under every second seed
    apart: float = 0.0  # share of edits that draw other random numbers: equal seeds tell nothing about them
    known: bool = False  # whether initial weights say so


WORLDS = (
    World("2s"),
    World("1s", effect=1.0),
    World("4s", effect=4.0),
    World("heavy", heavy=True),
    World("drift-", drift=-4.0),
    World("drift+", drift=4.0),
    World("rare", shares=(0.05, 0.35)),
    World("interact", interact=0.2),
    World("scatter", scatter=0.7),
    World("unstable", unstable=0.05),
    World("mixed", apart=0.4),
    World("mixed-known", apart=0.4, known=True),
    World("mixed-heavy", apart=0.4, heavy=True),
    World("mixed-rare", apart=0.4, shares=(0.05, 0.35)),
)


@dataclass(frozen=True)
class Edit:
    """A candidate on top of the present branch: its true gain there, and how its runs vary."""

    gain: float
    noise: float = 1.0
    unstable: bool = False
    line: int = 0  # commits of one line share the effects of seeds
    weights: InitialWeights = "unknown"


@dataclass
class Machine:
    """Draws edits and runs. Its clock is the number of runs so far."""

    world: World
    rho: float
    seed: int
    runs: int = 0
    kept: int = 0
    line: int = 0  # of the incumbent
    _lines: int = 0
    _of_seed: dict[tuple[int, int], float] = field(default_factory=dict)
    live: list[int] = field(default_factory=list)  # stacked: numbers of the kept and undecided edits
    _drawn: list[Edit] = field(default_factory=list)
    _pairs: dict[tuple[int, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._edits, self._noise = random.Random(f"edits {self.seed}"), random.Random(f"runs {self.seed}")

    def edit(self) -> Edit:
        draw, world = self._edits, self.world
        where, (gains, nothing) = draw.random(), world.shares
        gain = world.effect if where < gains else 0.0 if where < gains + nothing else -world.effect
        if world.interact:
            gain += sum(draw.choice((-1.0, 1.0)) for _ in range(self.kept) if draw.random() < world.interact)
        noise = math.exp(draw.gauss(0, world.scatter) - world.scatter**2)
        unstable = draw.random() < world.unstable
        apart = bool(world.apart) and draw.random() < world.apart
        self._lines += apart
        weights: InitialWeights = "unknown" if not world.known else "different" if apart else "equal"
        line = self._lines if apart else self.line
        self._drawn.append(Edit(gain - 6.0 * unstable, noise, unstable, line, weights))
        return self._drawn[-1]

    def drawn(self, number: int, below: Iterable[int]) -> Edit:
        """An edit by its number, on top of a commit with the edits ``below``."""
        edit = self._drawn[number]
        return replace(edit, gain=edit.gain + sum(self._pair(number, other) for other in below))

    def _pair(self, one: int, other: int) -> float:
        pair = (min(one, other), max(one, other))
        if pair not in self._pairs:
            draw = random.Random(f"pair {self.seed} {pair}")
            self._pairs[pair] = draw.choice((-1.0, 1.0)) if draw.random() < self.world.interact else 0.0
        return self._pairs[pair]

    def run_stack(self, numbers: Sequence[int], seed: int) -> float:
        """z of one run of a commit that carries these edits."""
        carried = [self.drawn(number, numbers[:at]) for at, number in enumerate(numbers)]
        level = sum(edit.gain for edit in carried)
        noise = math.sqrt(fmean(edit.noise**2 for edit in carried)) if carried else 1.0
        level += sum(self._noise.choice((-6.0, 6.0)) for edit in carried if edit.unstable)
        return self.run(level, seed, Edit(0.0, noise, line=max((edit.line for edit in carried), default=0)))

    def run(self, level: float, seed: int, edit: Edit) -> float:
        """z of one run of a commit whose true gain over the baseline is ``level``."""
        draw = self._noise
        own = draw.gauss(0, 1)
        if self.world.heavy:
            own /= math.sqrt(sum(draw.gauss(0, 1) ** 2 for _ in range(3)))
        if edit.unstable:
            level += -6.0 if draw.random() < 0.5 else 6.0
        shared = self._of_seed.setdefault((edit.line, seed), draw.gauss(0, 1))
        noise = math.sqrt(self.rho) * shared + math.sqrt(1 - self.rho) * own * edit.noise
        self.runs += 1
        return level + noise - self.world.drift * (self.runs - 1) / 150


@dataclass(frozen=True)
class Keep:
    """A kept edit."""

    runs: int  # of the night so far
    gain: float  # true
    reported: float


@dataclass
class Night:
    """What a policy did with one budget of runs."""

    gain: float = 0.0  # true, of the branch that is handed over
    keeps: list[Keep] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)  # runs of the night at the start of each trial

    @property
    def kept(self) -> int:
        return len(self.keeps)

    def keep(self, runs: int, edit: Edit, reported: float) -> None:
        self.gain += edit.gain
        self.keeps.append(Keep(runs, edit.gain, reported))


def greedy(machine: Machine, budget: int) -> Night:
    """Keep whatever scores better than the best score so far, one run each."""
    night, incumbent = Night(), Edit(0.0)
    best = machine.run(0.0, 0, incumbent)
    while machine.runs < budget:
        edit = machine.edit()
        night.begun.append(machine.runs)
        score = machine.run(night.gain + edit.gain, machine.runs, edit)
        if score > best:
            night.keep(machine.runs, edit, score - best)
            best, machine.kept, machine.line = score, night.kept, edit.line
    return night


def confirm(machine: Machine, budget: int) -> Night:
    """The product's default policy."""
    night, incumbent = Night(), Edit(0.0)
    calibration = [(seed, machine.run(0.0, seed, incumbent)) for seed in range(default_calibration(Policy(), None))]
    belief, known = Belief(calibration), {seed for seed, _ in calibration}
    while machine.runs < budget:
        edit, trial, seen, runs = machine.edit(), len(night.begun), set[int](), 0
        belief.open(trial, edit.weights)
        night.begun.append(machine.runs)
        while True:
            evidence = paired.Evidence(trial, seen, known, runs)
            step, estimate = paired.decide(belief, evidence, paired.window(night.kept))
            if not isinstance(step, paired.Next) or machine.runs >= budget:
                break
            candidate = step.of_candidate
            level = night.gain + (edit.gain if candidate else 0.0)
            z = machine.run(level, step.seed, edit if candidate else incumbent)
            belief.observe(step.seed, z, trial if candidate else None)
            (seen if candidate else known).add(step.seed)
            runs += 1
        if isinstance(step, paired.Next):
            break
        belief.close(trial, step == "keep")
        if step == "keep":
            night.keep(machine.runs, edit, estimate.gain)
            incumbent, known, machine.kept, machine.line = edit, seen, night.kept, edit.line
            belief.forget_seeds(paired.window(night.kept))
    return night


def stacked(machine: Machine, budget: int) -> Night:
    """One run carries several edits."""
    from benchmarks.stacked import stacked_night

    return stacked_night(machine, budget, Night())


POLICIES = {"greedy": greedy, "confirm": confirm, "stacked": stacked}


@dataclass(frozen=True)
class Row:
    """One policy in one world. Gains and bias in sigma."""

    world: str
    policy: str
    rho: float
    runs: int
    nights: int
    true_gain: float
    true_gain_se: float
    false_share: float
    bias: float
    runs_per_trial: float


def measure(world: World, policy: str, rho: float, runs: Sequence[int], nights: int, seed: int) -> list[Row]:
    """Simulate ``nights`` nights, read after each of ``runs``; equal seeds give every policy the same edits."""

    def play(budget: int) -> list[Night]:
        return [POLICIES[policy](Machine(world, rho, seed * 100_003 + k), budget) for k in range(nights)]

    whole = play(max(runs)) if policy != "stacked" else []  # the end of a stacked night is planned
    return [_row(world, policy, rho, budget, whole or play(budget)) for budget in runs]


def _row(world: World, policy: str, rho: float, runs: int, found: Sequence[Night]) -> Row:
    keeps = [[keep for keep in night.keeps if keep.runs <= runs] for night in found]
    gains, count = [math.fsum(keep.gain for keep in night) for night in keeps], max(sum(map(len, keeps)), 1)
    errors = [keep.reported - keep.gain for night in keeps for keep in night]
    return Row(
        world.name, policy, rho, runs, len(found),
        true_gain=fmean(gains),
        true_gain_se=stdev(gains) / math.sqrt(len(found)) if len(found) > 1 else math.nan,
        false_share=sum(keep.gain <= 1e-9 for night in keeps for keep in night) / count,
        bias=fmean(errors) if errors else 0.0,
        runs_per_trial=runs * len(found) / max(sum(start < runs for night in found for start in night.begun), 1),
    )  # fmt: skip


def rows(given: argparse.Namespace) -> Iterator[Row]:
    for world in WORLDS:
        if not given.world or world.name in given.world:
            for policy in given.policy:
                yield from measure(world, policy, given.rho, given.runs, given.nights, given.seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policy", nargs="*", choices=sorted(POLICIES), default=sorted(POLICIES))
    parser.add_argument("--world", nargs="*", choices=[world.name for world in WORLDS], help="default: all")
    parser.add_argument("--rho", type=float, default=0.9, help="correlation of runs under one seed (default: 0.9)")
    parser.add_argument("--runs", type=int, nargs="*", default=[150], help="runs of a night (default: 150)")
    parser.add_argument("--nights", type=int, default=100, help="nights of each row (default: 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.json:
        json.dump([asdict(row) for row in rows(given)], sys.stdout, indent=1)
        return
    print("| world | policy | runs | true gain, σ | false | bias, σ | runs a trial |\n|---|---|---|---|---|---|---|")
    for row in rows(given):
        gain = f"{row.true_gain:.1f} ± {row.true_gain_se:.1f}"
        print(
            f"| {row.world} | {row.policy} | {row.runs} | {gain} | {row.false_share:.1%} | {row.bias:+.2f} "
            f"| {row.runs_per_trial:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
