"""Calibration: the unchanged target runs until its value and its noise are known. Then the branch starts there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import OvernightError
from agent.judge.policy import MeasureNext, Policy, check_baseline
from agent.ledger.state import State
from agent.rundir.directory import RunDirectory
from agent.session.commits import Commits
from agent.session.evidence import lacks_test_score
from agent.session.in_flight import Ideas, Runs
from agent.session.recorder import Recorder
from agent.session.stopping import EndOfNight
from agent.target import Target
from agent.types import Measurement


@dataclass(frozen=True)
class Baseline:
    """Trial 0."""

    runs: Runs
    ideas: Ideas
    recorder: Recorder
    commits: Commits
    directory: RunDirectory
    policy: Policy
    calibration: int  # runs on each type of device
    ending: EndOfNight

    def settled(self, state: State) -> bool:
        """Whether trials can start: the proposer knows the baseline, on each type of device."""
        return 0 in state.told and not self._uncalibrated(state)

    def advance(self, state: State) -> bool:
        """Take the next step; False if it has to wait."""
        wanted = self._uncalibrated(state) and not _fails_again(state)
        return self._calibrate(state) if wanted else self._settle(state)

    def _uncalibrated(self, state: State) -> list[str]:
        """Types of device with too few runs: at first, or after a resume on other devices."""
        return [kind for kind in self.runs.workers.types if _runs_on(state, kind) < self.calibration]

    def _calibrate(self, state: State) -> bool:
        for kind in self._uncalibrated(state):
            running = sum(order.on == kind for order in self.runs.orders.values())
            if _runs_on(state, kind) + running < self.calibration and not self.ending.before(state, 1):
                return self.runs.measure(0, MeasureNext(state.baseline, "calibrate", "calibration"), kind)
        return False

    def _settle(self, state: State) -> bool:
        """Create head and branch at the baseline, and tell the proposer its value.

        Raises:
            OvernightError: the baseline has no value, or cannot be compared with.
        """
        runs = [run for run in state.baseline_runs if run.role != "test"]
        if all(run.value is None for run in runs):
            raise OvernightError(
                f"the unchanged target fails ({runs[-1].status}: {runs[-1].reason}). Fix train.py first; "
                f"see {self.directory.path / runs[-1].trace / 'train.log'}."
            )
        for kind in self.runs.workers.types:
            check_baseline([run for run in runs if run.on(kind)], self.policy)
        self.recorder.note(_pinned_seed(runs, self.commits.target))
        self.commits.move_head(state.baseline)
        self.recorder.note(self.commits.mirror(state))
        if lacks_test_score(state.baseline_runs, self.commits.target):
            return self.runs.score_test(0, state.baseline_runs)
        self.ideas.tell(state.baseline_record)
        return True


def _pinned_seed(runs: Sequence[Measurement], target: Target) -> str:
    """A warning if runs under different seeds have equal values: the script sets its own seed; "" otherwise."""
    values = [run.value for run in runs if run.value is not None]
    if target.score != "stdout" or len(values) < 2 or len(set(values)) > 1:
        return ""
    return (
        f"WARNING: all {len(values)} runs of the unchanged target have the value {values[0]:.6g}, although each has "
        f"another seed. The noise is unknown, and every gain looks certain. Read the seed in {target.path}: "
        f'int(os.environ.get("OVERNIGHT_SEED", "42")), commit, and start a new run.'
    )


def _fails_again(state: State) -> bool:
    """Whether the baseline failed twice in the same way and never had a value: more runs would fail, too."""
    runs = [run for run in state.baseline_runs if run.role != "test"]
    return len(runs) > 1 and all(run.value is None and run.status == runs[0].status for run in runs)


def _runs_on(state: State, kind: str) -> int:
    return sum(run.on(kind) for run in state.baseline_runs if run.role != "test")
