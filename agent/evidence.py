"""What a verdict may depend on, gathered from the ledger and the repository. ``agent.judge`` looks at nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from agent.config import Target
from agent.judge import History, Policy, new_incumbent_runs, trials_since
from agent.ledger import Event, State
from agent.noise import Noise, pooled_noise
from agent.normal_form import tree_size
from agent.repo import Repo
from agent.types import Measurement, Record


def history_of(
    record: Record,
    state: State,
    events: Sequence[Event],
    repo: Repo,
    target: Target,
    policy: Policy,
    base: str = "",
) -> History:
    """The evidence on a trial against the present best, or against what the branch was at the accepted ``base``."""
    assert record.candidate is not None
    incumbent = state.measured(base) if base else state.incumbent
    simpler_by = 0
    if policy.keep_simpler:
        before, after = (repo.read(commit, target.path) for commit in (base or state.head, record.candidate))
        simpler_by = tree_size(before) - tree_size(after)
    return History(
        goal=target.goal,
        incumbent=incumbent,
        candidate=record.candidate,
        incumbent_runs=_counting(state, incumbent),
        candidate_runs=tuple(run for run in record.runs if run.role != "test"),
        noise=noise_of(state),
        simpler_by=simpler_by,
        incumbent_age=trials_since(events, incumbent),
    )


def noise_of(state: State) -> Noise:
    """Pooled over every commit that was measured more than once."""
    return pooled_noise(
        [run.value for run in runs if run.value is not None and run.role != "test"] for runs in state.runs.values()
    )


def _counting(state: State, incumbent: str) -> tuple[Measurement, ...]:
    runs = tuple(run for run in state.runs.get(incumbent, ()) if run.role != "test")
    return runs if incumbent == state.baseline else new_incumbent_runs(runs)
