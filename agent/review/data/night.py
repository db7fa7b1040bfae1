"""One session as data, built once: the terminal, ``--json`` and the report only render it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent import text
from agent.ledger.events import RunStarted
from agent.ledger.state import State
from agent.review.data.attempts import Attempt, attempt_of
from agent.review.data.branch import Step, steps_of, value_range
from agent.review.data.edit_runs import SeedPairs, StackedEdit, seed_pairs_of, stacked_edits
from agent.review.data.runs import Overview, overview_of
from agent.review.data.server import ServerHealth, server_health
from agent.review.data.summary import Summary
from agent.review.data.tables import (
    FailureRow,
    IdeaTally,
    Parameter,
    Series,
    SourceRow,
    environment_tables,
    failure_rows,
    parameters_of,
    search_series,
    source_rows,
    tally_of_ideas,
    usage_of,
)
from agent.types import Measurement


@dataclass(frozen=True)
class Live:
    """What a session does now."""

    run: RunStarted | None  # the run under way that started last
    others: int  # other runs under way
    between_runs: bool  # no run is under way, but a trial is
    since: float  # seconds since ``run`` started
    seconds_left: float | None  # until the planned number of trials
    heartbeat: float | None  # seconds since the session last wrote anything


@dataclass(frozen=True)
class Night:
    """Everything that people see of a session, except the details of single trials. Texts are sanitised."""

    overview: Overview
    branch: str
    branch_waits: str  # why the branch does not follow the head; "" if it does, or if the repository was not read
    setup: tuple[str, ...]  # proposer, model, policy, sandbox, budget, device
    last_time: float  # of the last event, in seconds since the epoch
    lost: int  # runs lost to failures of the machine
    resumed: int
    server: ServerHealth | None  # of the model server that sleeps during runs; None without a problem
    live: Live | None  # None unless a session runs
    asked: int  # trials, the open ones included
    attempts: tuple[Attempt, ...]  # finished trials, in order
    calibration: tuple[Measurement, ...]  # runs of the baseline with a value on the validation split
    steps: tuple[Step, ...]  # the baseline and the kept edits
    pairs: tuple[SeedPairs, ...]  # of the latest kept and undecided edits
    value_range: tuple[float, float]  # of the values worth drawing
    failures: tuple[FailureRow, ...]
    sources: tuple[SourceRow, ...]
    ideas: IdeaTally | None  # of the idea bank; None where no proposal knows it
    loops: tuple[int, ...]  # trials in which the answers of the model were a loop
    stacked: tuple[StackedEdit, ...]  # policy stacked: what each edit is worth
    usage: Mapping[str, str | float]  # of the model: its name, calls, tokens, seconds
    parameters: tuple[Parameter, ...]  # hyperparameters that took several values
    search: Mapping[str, Series]  # state of the search method by trial
    environment: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]  # tables of (name, value)
    damage: tuple[str, ...]  # lines of the ledger that cannot be read

    @property
    def summary(self) -> Summary:
        return self.overview.summary

    @property
    def kept(self) -> tuple[Attempt, ...]:
        return tuple(attempt for attempt in self.attempts if attempt.decision == "keep")


def night_of(
    state: State,
    run: Mapping[str, Any],
    now: float = 0.0,
    running: bool = False,
    last_sign: float | None = None,
    damage: Sequence[str] = (),
    branch_waits: str = "",
) -> Night:
    """Build the data of a session.

    Args:
        state: The fold of the ledger.
        run: The tables of run.toml; may be empty.
        now: Seconds since the epoch.
        running: Whether a session runs.
        last_sign: When the session last wrote anything, in seconds since the epoch; None if unknown.
        damage: What cannot be read of the ledger, one text a line.
        branch_waits: Why the branch does not follow the head; "" if it does.
    """
    tag = tag_of(state, run)
    overview = overview_of(tag, state, running)
    attempts = tuple(attempt_of(record) for record in state.finished)
    steps, usage = steps_of(state), usage_of(state.records)
    return Night(
        overview=overview,
        branch=f"autoresearch/{tag}",
        branch_waits=branch_waits,
        setup=_setup(state, usage),
        last_time=state.last_time,
        lost=state.lost,
        resumed=state.resumed,
        server=server_health(state.server_problems),
        live=_live(state, overview.summary, now, last_sign) if running else None,
        asked=len(state.records),
        attempts=attempts,
        calibration=tuple(run for run in state.baseline_runs if run.value is not None and run.role != "test"),
        steps=steps,
        pairs=seed_pairs_of(state),
        value_range=value_range(state, steps, overview.summary.noise_sd),
        failures=failure_rows(attempts, overview.summary.failures),
        sources=source_rows(attempts),
        ideas=tally_of_ideas(state.records),
        loops=tuple(record.number for record in state.records if record.proposal.loop),
        stacked=stacked_edits(state),
        usage=usage,
        parameters=parameters_of(attempts),
        search=search_series(state.records),
        environment=environment_tables(state, run),
        damage=tuple(text.line(problem) for problem in damage),
    )


def tag_of(state: State, run: Mapping[str, Any]) -> str:
    table = run.get("run")
    return text.line(str(state.session.tag or (table.get("tag", "") if isinstance(table, Mapping) else "")))


def seconds_left(state: State, summary: Summary, now: float) -> float | None:
    """Estimate the seconds until the planned number of trials, by the mean duration of a trial; None without a plan."""
    if not summary.planned or not state.finished:
        return None
    first = state.records[0].started
    mean = max(0.0, state.last_time - first) / len(state.finished)
    return max(0.0, mean * (summary.planned - summary.trials) - max(0.0, now - state.last_time))


def _setup(state: State, usage: Mapping[str, str | float]) -> tuple[str, ...]:
    session = state.session
    model = str(usage.get("model", ""))
    memory = f"memory of {', '.join(session.memory)}" if session.memory else ""
    parts = (session.proposer, model, session.policy, session.sandbox, session.budget, session.device, memory)
    return tuple(text.line(part) for part in parts if part)


def _live(state: State, summary: Summary, now: float, last_sign: float | None) -> Live:
    run = state.started[-1] if state.started else None
    return Live(
        run=run,
        others=max(0, len(state.started) - 1),
        between_runs=run is None and any(record.candidate for record in state.open_records),
        since=max(0.0, now - run.time) if run else 0.0,
        seconds_left=seconds_left(state, summary, now),
        heartbeat=None if last_sign is None else max(0.0, now - last_sign),
    )
