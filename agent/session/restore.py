"""Brings everything outside the ledger to where the ledger ends, when a session starts or resumes."""

from __future__ import annotations

from agent.ledger.events import Lost
from agent.session.commits import Commits
from agent.session.in_flight import Ideas
from agent.session.recorder import Recorder


def restore(recorder: Recorder, ideas: Ideas, commits: Commits) -> None:
    """Close the runs that a killed session left open; restore the proposer, results.tsv, the refs and the branch."""
    for run in recorder.state.started:
        recorder.write(Lost(trial=run.trial, trace=run.trace, reason="the session died"))
    state = recorder.state
    ideas.restore(state)
    if 0 in state.observed:
        recorder.note(commits.restore(state))
        recorder.note(commits.mirror(state))
