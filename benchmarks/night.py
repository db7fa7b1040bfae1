"""Nights on a table of real edits: how far a policy climbs, and how many of its keeps are false.

    python -m benchmarks.night [--policy greedy margin confirm stacked] [--nights 60] [--runs 50 150] [--json]

benchmarks/real_edits.json holds values of recipes of the idea bank and of their combinations on preset demo. A night
proposes these recipes in random order; one that conflicts with the branch is skipped. Policies decide through
``agent.judge``, as in a session. Values are drawn from a model that is fitted to the table; each night draws its own
truth from what the table leaves open.

Unit: the standard deviation sigma of one run. A keep is false if the edit gains nothing on top of its branch.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from agent.errors import PatchRejected
from agent.judge.paired_runs import PairedRuns
from agent.judge.policy import NAMES, MeasureNext, default_calibration, judge, policy_from
from agent.ledger.events import Asked, Candidate, Event, Judged, Measured, Moved, SessionStarted
from agent.ledger.state import StateBuilder
from agent.patch.apply import edited
from agent.patch.merge3 import merge
from agent.proposers.ideas.bank import load_bank
from agent.session.commits import Commits
from agent.session.trial_judge import TrialJudge
from agent.trial.seeds import session_seed
from agent.types import Measurement, Proposal, Verdict
from benchmarks.acceptance import Edit
from benchmarks.acceptance import Night as SimulatedNight
from benchmarks.real_table import Array, Keys, Machine, Model, read_table
from benchmarks.stacked import stacked_night

SOURCE = Path(__file__).parents[1] / "nanogpt_target" / "train.py"


@cache
def texts() -> dict[str, str]:
    """train.py with each recipe that applies to it."""
    source = SOURCE.read_text()
    found = {}
    for idea in load_bank():
        with suppress(PatchRejected):
            found[idea.key] = edited(source, idea.reply, "train.py")
    return found


@cache
def compatible(one: str, other: str) -> bool:
    """Whether two recipes can be merged."""
    return merge(SOURCE.read_text(), texts()[one], texts()[other]) is not None


@dataclass
class Night:
    """One session without training: its events are those of a real one."""

    machine: Machine
    policy: str
    branch: Keys = ()
    key: str = ""  # recipe of the present trial
    kept: int = 0
    false: int = 0
    errors: list[float] = field(default_factory=list)  # reported less true gain of each kept edit
    trials: int = 0
    events: list[Event] = field(default_factory=list)
    builder: StateBuilder = field(default_factory=StateBuilder)
    contents: dict[str, Keys] = field(default_factory=dict)  # commit: its recipes

    def __post_init__(self) -> None:
        self.rule = policy_from(self.policy)
        self.beliefs = PairedRuns(partial(session_seed, 0))
        self.draw = random.Random(f"order {self.machine.seed}")
        self.waiting: list[str] = []
        self.write(SessionStarted(time=1.0, baseline="baseline", policy=self.policy))
        self.contents["baseline"] = ()
        for _ in range(default_calibration(self.rule, None)):
            self.measure(0, MeasureNext("baseline", "calibrate", ""))

    def write(self, event: Event) -> None:
        self.events.append(event)
        self.builder.apply(event)

    def measure(self, trial: int, step: MeasureNext) -> None:
        used = {run.seed for run in self.builder.runs.get(step.commit, ())}
        fresh = (seed for k in range(1000) if (seed := session_seed(0, k)) not in used)
        seed = next(fresh) if step.seed is None else step.seed
        number = sum(isinstance(event, Measured) and event.trial == trial for event in self.events) + 1
        value = self.machine.run(self.contents[step.commit], seed)
        trace = f"trials/{trial:04d}/run-{number}"
        weights = self.machine.initial_hash(self.contents[step.commit], seed)
        run = Measurement(
            step.commit, step.role, seed, "cpu", "ok", value, trace=trace, device_type="cpu", initial_hash=weights
        )
        self.write(Measured(time=1.0, trial=trial, measurement=run))

    def propose(self) -> str:
        """The next recipe that applies to the branch: in random order, and in a new order after all were tried."""
        while True:
            if not self.waiting:
                self.waiting = self.draw.sample(sorted(self.machine.truth.own), len(self.machine.truth.own))
            key = self.waiting.pop()
            if key not in self.branch and all(compatible(kept, key) for kept in self.branch):
                return key

    def advance(self) -> None:
        """The next step of the session: a new trial, a run, or a verdict."""
        state = self.builder.state()
        if not state.open:
            return self.begin(state.head)
        number = state.open[0]
        commits = cast(Commits, SimpleNamespace(target=SimpleNamespace(goal="minimize")))
        history = TrialJudge(commits, self.rule, self.beliefs).history(state.records[-1], state, self.events)
        step = judge(history, self.rule)
        if isinstance(step, MeasureNext):
            return self.measure(number, step)
        self.write(Judged(time=1.0, trial=number, verdict=step))
        if step.decision == "keep":
            self.keep(number, step)
        return None

    def begin(self, head: str) -> None:
        self.trials += 1
        self.key, commit = self.propose(), f"candidate {self.trials}"
        self.contents[commit] = (*self.branch, self.key)
        proposal = Proposal("ideas", "bank", head, "", subject=self.key)
        self.write(Asked(time=1.0, trial=self.trials, proposal=proposal))
        self.write(Candidate(time=1.0, trial=self.trials, commit=commit, parent=head))

    def keep(self, number: int, verdict: Verdict) -> None:
        truth = self.machine.truth
        gain = truth.gain((*self.branch, self.key)) - truth.gain(self.branch)
        self.branch = (*self.branch, self.key)
        self.kept += 1
        self.false += gain <= 0
        self.errors.append(((verdict.gain or 0.0) - gain) / truth.sd)
        accepted = f"accepted {number}"
        self.contents[accepted] = self.branch
        self.write(Moved(time=1.0, trial=number, commit=accepted))


@dataclass
class StackedMachine:
    """The same recipes and runs for ``benchmarks.stacked``, in units of sigma."""

    machine: Machine
    live: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # recipe by number

    def __post_init__(self) -> None:
        self.seed, self.waiting = self.machine.seed, list[str]()
        self.order = random.Random(f"order {self.machine.seed}")

    @property
    def runs(self) -> int:
        return self.machine.runs

    @runs.setter
    def runs(self, count: int) -> None:
        self.machine.runs = count

    def edit(self) -> Edit:
        """The next recipe that fits to the kept and the undecided ones; where none does, an edit without effect."""
        live = [self.keys[number] for number in self.live]
        recipes = sorted(self.machine.truth.own)
        for _ in range(2 * len(recipes)):
            if not self.waiting:
                self.waiting = self.order.sample(recipes, len(recipes))
            key = self.waiting.pop()
            if key not in live and all(compatible(other, key) for other in live if other):
                break
        else:
            key = ""
        self.keys.append(key)
        return Edit(0.0)

    def drawn(self, number: int, below: Iterable[int]) -> Edit:
        truth, under = self.machine.truth, self._recipes(below)
        return Edit((truth.gain(self._recipes([*below, number])) - truth.gain(under)) / truth.sd)

    def run_stack(self, numbers: Sequence[int], seed: int) -> float:
        value = self.machine.run(self._recipes(numbers), session_seed(0, seed))
        return (3.0 - value) / self.machine.truth.sd

    def _recipes(self, numbers: Iterable[int]) -> Keys:
        return tuple(key for number in numbers if (key := self.keys[number]))


@dataclass(frozen=True)
class Result:
    """One policy after so many runs. Gains and bias in sigma, with standard errors over nights."""

    policy: str
    runs: int
    nights: int
    true_gain: float
    true_gain_se: float
    kept: float
    false_share: float
    false_share_se: float
    bias: float
    bias_se: float
    runs_per_trial: float


def nights(model: Model, policy: str, budgets: Sequence[int], count: int, seed: int) -> Iterator[Result]:
    """Play ``count`` nights; each is read at every budget. Equal seeds give every policy the same truths."""
    read: dict[int, list[tuple[float, int, int, float, int]]] = {budget: [] for budget in budgets}
    for k in range(count):
        truth = model.draw(np.random.default_rng([seed, k]))
        if policy == "stacked":
            for budget in budgets:
                found = stacked_night(StackedMachine(Machine(truth, f"{seed}/{k}")), budget, SimulatedNight())
                errors = math.fsum(keep.reported - keep.gain for keep in found.keeps)
                false = sum(keep.gain <= 1e-9 for keep in found.keeps)
                read[budget].append((found.gain, found.kept, false, errors, len(found.begun)))
            continue
        night = Night(Machine(truth, f"{seed}/{k}"), policy)
        for budget in sorted(budgets):
            while night.machine.runs < budget:
                night.advance()
            gain, bias = truth.gain(night.branch) / truth.sd, math.fsum(night.errors)
            read[budget].append((gain, night.kept, night.false, bias, night.trials))
    for budget, rows in read.items():
        yield _result(policy, budget, rows)


def _result(policy: str, runs: int, found: Sequence[tuple[float, int, int, float, int]]) -> Result:
    gains, kept, false, bias, trials = (np.array(column, float) for column in zip(*found, strict=True))
    count = len(found)

    def ratio(over: Array) -> tuple[float, float]:
        """A mean per kept edit, and its standard error by the jackknife over nights."""
        if kept.sum() == 0 or count < 2:
            return 0.0, math.nan
        left_out = (over.sum() - over) / np.maximum(kept.sum() - kept, 1)
        spread = ((left_out - left_out.mean()) ** 2).sum()
        return float(over.sum() / kept.sum()), float(math.sqrt((count - 1) / count * spread))

    (false_share, false_se), (mean_bias, bias_se) = ratio(false), ratio(bias)
    gain_se = float(gains.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Result(
        policy, runs, count, float(gains.mean()), gain_se,
        float(kept.mean()), false_share, false_se, mean_bias, bias_se, runs * count / max(float(trials.sum()), 1),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policy", nargs="*", choices=NAMES, default=["greedy", "margin", "confirm"])
    parser.add_argument("--runs", nargs="*", type=int, default=[50, 150])
    parser.add_argument("--nights", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    model = Model(read_table())
    slope, spread = model.interaction
    print(
        f"{len(model.recipes)} recipes, {len(model.combinations)} combinations; sigma {model.sd:.4f}; pairs: slope "
        f"{slope:.2f}, spread {spread / model.sd:.2f} sigma; {len(model.redraw)} "
        f"recipes share no noise with the baseline",
        file=sys.stderr,
    )
    results = [r for policy in given.policy for r in nights(model, policy, given.runs, given.nights, given.seed)]
    if given.json:
        json.dump([asdict(result) for result in results], sys.stdout, indent=1)
        return
    print("| policy | runs | true gain, σ | kept | false | bias, σ | runs a trial |\n|---|---|---|---|---|---|---|")
    for r in results:
        print(
            f"| {r.policy} | {r.runs} | {r.true_gain:.1f} ± {r.true_gain_se:.1f} | {r.kept:.1f} | {r.false_share:.1%} "
            f"± {r.false_share_se:.1%} | {r.bias:+.2f} ± {r.bias_se:.2f} | {r.runs_per_trial:.2f} |"
        )
    return


if __name__ == "__main__":
    main()
