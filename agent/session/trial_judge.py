"""The next step of a trial, and the evidence from which the judge derives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.errors import NoEffect, PatchRejected
from agent.judge.gain import without_screening_run
from agent.judge.noise import device_type_of, noise_of
from agent.judge.paired_runs import PairedRuns
from agent.judge.policy import History, MeasureNext, Policy, judge, undone
from agent.ledger.events import Candidate, Event
from agent.ledger.state import State
from agent.patch.normal_form import changes_loss, tree_size
from agent.session.commits import Commits
from agent.session.watching import watch_of
from agent.target import Target
from agent.types import Measurement, Record, Verdict, on_validation, values_of


@dataclass(frozen=True)
class TrialJudge:
    """Decides the next step of a trial from the runs of the session."""

    commits: Commits
    policy: Policy
    paired_runs: PairedRuns

    def next_step(self, record: Record, state: State, events: Sequence[Event]) -> Candidate | MeasureNext | Verdict:
        """What an open trial needs next: a commit, a run, or its verdict.

        Raises:
            PatchRejected: the edit does not apply to the commit that it was proposed for.
        """
        if record.candidate is not None and record.base == state.head:
            step = judge(self.history(record, state, events), self.policy)
            if not (isinstance(step, MeasureNext) and step.role == "screen" and self.policy.stop_hopeless):
                return step  # later runs are of edits that may be kept, and those of the incumbent serve all trials
            if changes_loss(self.commits.read(state.head), self.commits.read(record.candidate)):
                return step  # its curve compares to no other
            return replace(step, watch=watch_of(step, record, state, events, self.paired_runs))
        if record.runs:  # on an older head: a loss there is a loss, anything else is measured again on the new head
            verdict = judge(self.history(record, state, events, record.base), self.policy)
            if isinstance(verdict, Verdict) and verdict.decision == "revert":
                return verdict
        try:
            return self.commits.build(record, state.head)
        except PatchRejected as error:
            if record.candidate is None and record.proposal.parent == state.head:
                raise
            why = "brought the same" if isinstance(error, NoEffect) else f"is in its way ({str(error).splitlines()[0]})"
            return undone(record.runs, noise_of(state), f"trial {state.keeps[-1]}, kept meanwhile, {why}")

    def history(self, record: Record, state: State, events: Sequence[Event], base: str = "") -> History:
        """The evidence on a trial against the incumbent, or against the accepted commit ``base``."""
        assert record.candidate is not None
        incumbent, kind = state.measured(base) if base else state.incumbent, device_type_of(record)
        simpler_by = 0
        if self.policy.keep_simpler:
            before, after = (self.commits.read(commit) for commit in (base or state.head, record.candidate))
            simpler_by = tree_size(before) - tree_size(after)
        paired = self.policy.name == "confirm"
        measured = paired and values_of(record.runs)
        belief = self.paired_runs.catch_up(events).of(kind, record.number) if measured else None
        counting = tuple(run for run in on_validation(state.runs.get(incumbent, ())) if run.on(kind))
        if not paired and incumbent != state.baseline:  # the belief of ``confirm`` corrects for selection bias itself
            counting = without_screening_run(counting)
        runs = [run for commit in (incumbent, record.candidate) for run in state.runs.get(commit, ())]
        return History(
            goal=self.commits.target.goal,
            incumbent=incumbent,
            candidate=record.candidate,
            incumbent_runs=counting,
            candidate_runs=on_validation(record.runs),
            noise=noise_of(state, kind),
            simpler_by=simpler_by,
            best=best_value(state) if paired else None,
            trial=record.number,
            runs=sum(run.role != "test" and run.trace.startswith(f"trials/{record.number:04d}/") for run in runs),
            belief=belief,
            seeds=self.paired_runs.window(len(state.keeps)) if paired else (),
        )


def best_value(state: State) -> float | None:
    """Value of the branch: the baseline's mean, improved by the reported gains."""
    record = state.kept[-1] if state.keeps else state.baseline_record
    return record.verdict.value if record.verdict else None


def lacks_test_score(runs: tuple[Measurement, ...], target: Target) -> bool:
    """Whether these runs of a kept commit still have to be scored on the test split."""
    return target.score == "trusted" and not any(run.role == "test" for run in runs)
