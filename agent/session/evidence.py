"""What a verdict may depend on, gathered from the ledger and the repository.

``agent.judge.policy`` looks at nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.judge.noise import device_type_of, noise_of
from agent.judge.policy import History, Policy, new_incumbent_runs, trials_since
from agent.ledger.events import Event
from agent.ledger.state import State
from agent.patch.normal_form import tree_size
from agent.repo.repo import Repo
from agent.target import Target
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
    kind = device_type_of(record)
    simpler_by = 0
    if policy.keep_simpler:
        before, after = (repo.read(commit, target.path) for commit in (base or state.head, record.candidate))
        simpler_by = tree_size(before) - tree_size(after)
    return History(
        goal=target.goal,
        incumbent=incumbent,
        candidate=record.candidate,
        incumbent_runs=_counting(state, incumbent, kind),
        candidate_runs=tuple(run for run in record.runs if run.role != "test"),
        noise=noise_of(state, kind),
        simpler_by=simpler_by,
        incumbent_age=trials_since(events, incumbent),
    )


def _counting(state: State, incumbent: str, device_type: str) -> tuple[Measurement, ...]:
    runs = tuple(run for run in state.runs.get(incumbent, ()) if run.role != "test" and run.on(device_type))
    return runs if incumbent == state.baseline else new_incumbent_runs(runs)
