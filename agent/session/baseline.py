"""Calibration: the unchanged target runs until its value and its noise are known. Then the branch starts there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agent import text
from agent.errors import OvernightError, UsageError
from agent.judge.policy import MeasureNext, Policy, check_baseline
from agent.ledger.state import State
from agent.session.commits import Commits
from agent.session.in_flight import Ideas, Runs
from agent.session.stopping import EndOfNight
from agent.session.trial_judge import lacks_test_score
from agent.target import Target
from agent.types import Measurement, on_validation, values_of

FEWEST_STEPS = 20  # of a run under a budget in seconds
SMALLER = "or take a smaller preset (overnight init DIR --preset cpu or demo)"


@dataclass(frozen=True)
class Baseline:
    """Trial 0."""

    runs: Runs
    ideas: Ideas
    commits: Commits
    policy: Policy
    calibration: int  # runs on each type of device
    ending: EndOfNight

    def settled(self, state: State) -> bool:
        """Whether trials can start: the proposer knows the baseline, on each type of device."""
        return 0 in state.observed and not self._missing(state)

    def advance(self, state: State) -> bool:
        """Take the next step; False if it has to wait.

        Raises:
            UsageError: the budget is too short for this target on this machine.
        """
        check_training(state, self.commits.target)
        runs, missing = on_validation(state.baseline_runs), self._missing(state)
        fails = len(runs) > 1 and all(run.value is None and run.status == runs[0].status for run in runs)
        if not missing or fails:  # after two equal failures more runs would fail, too
            return self._settle(state, runs)
        for kind, number in missing.items():
            running = sum(order.on == kind for order in self.runs.orders.values())
            if running < number and not self.ending.before(state, 0):
                return self.runs.measure(0, MeasureNext(state.baseline, "calibrate", "calibration"), kind)
        return False

    def _missing(self, state: State) -> dict[str, int]:
        """The runs that each type of device lacks: at first, or after a resume on other devices."""
        runs, kinds = on_validation(state.baseline_runs), self.runs.workers.types
        missing = {kind: self.calibration - sum(run.on(kind) for run in runs) for kind in kinds}
        return {kind: number for kind, number in missing.items() if number > 0}

    def _settle(self, state: State, runs: Sequence[Measurement]) -> bool:
        """Create head and branch at the baseline, and tell the proposer its value.

        Raises:
            OvernightError: the baseline has no value, or cannot be compared with.
        """
        check_budget(runs, self.commits.target)
        if all(run.value is None for run in runs):
            last, target = runs[-1], self.commits.target
            log = self.runs.directory.path / last.trace / "train.log"
            missing = " If your project has its own environment, name its interpreter with --python."
            raise OvernightError(
                f"the unchanged target fails ({last.status}: {last.reason}); see {log}. Fix {target.path}, target.toml "
                "or the machine, then start a new session." + (missing if "ModuleNotFoundError" in last.reason else "")
            )
        for kind in self.runs.workers.types:
            check_baseline([run for run in runs if run.on(kind)], self.policy)
        self.runs.recorder.note(_pinned_seed(runs, self.commits.target))
        self.commits.move_head(state.baseline)
        self.runs.recorder.note(self.commits.mirror(state))
        if lacks_test_score(state.baseline_runs, self.commits.target):
            return self.runs.score_test(0, state.baseline_runs)
        return self.ideas.report(state)


def check_training(state: State, target: Target) -> None:
    """Raise ``UsageError`` if a run of the baseline makes fewer than ``FEWEST_STEPS`` steps within its seconds."""
    found = [run.metrics["steps"] for run in state.baseline_runs if run.status == "ok" and "steps" in run.metrics]
    if target.budget.kind != "seconds" or not found or max(found) >= FEWEST_STEPS:
        return
    steps, seconds = max(found), target.budget.amount
    raise UsageError(
        f"a run makes {text.count(round(steps), 'step')} in {seconds:g} s on this machine, and {FEWEST_STEPS} are the "
        "fewest that can be judged. Start a new session with "
        f"--budget {_longer(seconds * FEWEST_STEPS / max(steps, 1))}, {SMALLER}."
    )


def check_budget(runs: Sequence[Measurement], target: Target) -> None:
    """Raise ``UsageError`` if at least half of the runs of the baseline trained longer than the budget allows."""
    over = [run for run in runs if run.status == "over_budget"]
    if not over or 2 * len(over) < len(runs):
        return
    took = max(run.seconds.get("training", 0.0) for run in over)
    smaller = SMALLER if target.score == "trusted" else f"or let {target.path} train less"
    raise UsageError(
        f"{len(over)} of {text.count(len(runs), 'run')} of the unchanged target took up to {took:.0f} s, with a budget "
        f"of {target.budget}. Start a new session with --budget {_longer(took)}, {smaller}."
    )


def _longer(seconds: float) -> str:
    """An option for a budget somewhat above ``seconds``."""
    return f"{math.ceil(1.25 * seconds)}s"


def _pinned_seed(runs: Sequence[Measurement], target: Target) -> str:
    """A warning if runs under different seeds have equal values: the script sets its own seed; "" otherwise."""
    values = values_of(runs)
    if target.score != "stdout" or len(values) < 2 or len(set(values)) > 1:
        return ""
    return (
        f"WARNING: all {len(values)} runs of the unchanged target have the value {values[0]:.6g}, although each has "
        f"another seed. The noise is unknown, and every gain looks certain. Read the seed in {target.path}: "
        f'int(os.environ.get("OVERNIGHT_SEED", "42")), and commit; or name the option or the variable of the script in '
        f"target.toml: seed_arg or seed_env. Then start a new session."
    )
