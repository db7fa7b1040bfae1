"""When the first run of a trial is stopped: the incumbent's curve, the session's evidence and the judge's gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy

from agent.judge.gain import difference
from agent.judge.hopeless import CHECKED, Pair, Watch, fits_of
from agent.judge.paired_runs import PairedRuns
from agent.judge.policy import MeasureNext
from agent.ledger.events import Event
from agent.ledger.state import State
from agent.trial.seeds import session_seed
from agent.types import Measurement, Record

HALVINGS = 12  # of the range in which the gate is searched
FINISHED = 3_000_000  # index of the draws that decide which hopeless runs are finished: no run uses it as its seed
FARTHEST = 10.0  # standard deviations of a run below which no gate is searched


def watch_of(
    step: MeasureNext, record: Record, state: State, events: Sequence[Event], paired_runs: PairedRuns
) -> Watch | None:
    """How to tell that a candidate's first run is hopeless; None if it must be finished.

    Once a check has shown a wrong prediction (a kept edit whose run was predicted to lose), every run is finished.
    """
    wrong = any(run.prediction for kept in state.kept for run in kept.runs)
    if record.superseded or wrong:
        return None
    before = next((run for run in state.runs.get(state.incumbent, ()) if run.seed == step.seed and run.losses), None)
    fits = fits_of(list(pairs_of(state, before.device_type))) if before is not None else ()
    if before is None or before.value is None or not fits:
        return None
    gate = _gate(record, before, state, events, paired_runs)
    if gate is None:
        return None
    finish = session_seed(state.session.seed, FINISHED + record.number) % CHECKED == 0
    return Watch(before.losses, before.value, state.session.goal, before.device_type, fits, gate, finish)


def pairs_of(state: State, device_type: str) -> Iterator[Pair]:
    """The finished runs of candidates, each with the run of its parent under the same seed."""
    for record in state.records:
        parents = {
            run.seed: run for run in state.runs.get(state.measured(record.parent), ()) if _counts(run, device_type)
        }
        for run in record.runs:
            before = parents.get(run.seed)
            if before is not None and _counts(run, device_type):
                gain = difference(before.value or 0.0, run.value or 0.0, state.session.goal)
                yield Pair(before.losses, run.losses, gain)


def _counts(run: Measurement, device_type: str) -> bool:
    return run.counts and bool(run.losses) and run.device_type == device_type


def _gate(
    record: Record, before: Measurement, state: State, events: Sequence[Event], paired_runs: PairedRuns
) -> float | None:
    """The paired gain below which the judge drops the edit after this run, at most 0; None if it never does."""
    from agent.judge import paired  # loads numpy

    copy = deepcopy(paired_runs.catch_up(events))  # the trial may not be opened before its first run has ended
    fresh = copy.of(before.device_type, record.number)
    if fresh is None or before.value is None:
        return None
    incumbent = {run.seed for run in state.runs[state.incumbent] if run.value is not None}
    evidence = paired.Evidence(record.number, {before.seed}, incumbent, 1)
    z = before.value if state.session.goal == "maximize" else -before.value

    def dropped(gain: float) -> bool:
        belief = deepcopy(fresh)
        belief.observe(before.seed, z + gain, record.number)
        return paired.decide(belief, evidence, paired_runs.window(len(state.keeps)))[0] == "revert"

    low, high = -FARTHEST * fresh.noise, 0.0
    if dropped(high):
        return high
    if not dropped(low):
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if dropped(middle) else (low, middle)
    return low
