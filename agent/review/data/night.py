"""One session as data, built once: what the terminal, ``--json`` and the report share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent import text
from agent.ledger.events import RunStarted
from agent.ledger.state import State
from agent.review.data.attempts import Attempt, attempt_of
from agent.review.data.branch import Step, steps_of, value_range
from agent.review.data.summary import Summary, summarize
from agent.review.data.tables import IdeaTally, environment_tables, tally_of_ideas, usage_of


@dataclass(frozen=True)
class Night:
    """A session as people see it, without the details of its trials. Texts are sanitised, but those of ``state``."""

    state: State
    tag: str
    running: bool
    now: float  # seconds since the epoch
    heartbeat: float | None  # seconds since the session last wrote anything; None unless it runs
    branch_waits: str  # why the branch does not follow the head; "" if it does, or if the repository was not read
    summary: Summary
    setup: tuple[str, ...]  # proposer, model, policy, sandbox, budget, device
    attempts: tuple[Attempt, ...]  # finished trials, in order
    steps: tuple[Step, ...]  # the baseline and the kept edits
    value_range: tuple[float, float]  # of the values worth drawing
    ideas: IdeaTally | None  # of the idea bank; None where no proposal knows it
    loops: tuple[int, ...]  # trials in which the answers of the model were a loop
    usage: Mapping[str, str | float]  # of the model: its name, calls, tokens, seconds
    environment: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]  # tables of (name, value)
    damage: tuple[str, ...]  # lines of the ledger that cannot be read

    @property
    def branch(self) -> str:
        return f"autoresearch/{self.tag}"

    @property
    def kept(self) -> tuple[Attempt, ...]:
        return tuple(attempt for attempt in self.attempts if attempt.decision == "keep")

    @property
    def under_way(self) -> RunStarted | None:
        """The run under way that started last; None unless the session runs."""
        return self.state.started[-1] if self.running and self.state.started else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the planned number of trials, about; None without a plan, or unless the session runs."""
        return seconds_left(self.state, self.summary, self.now) if self.running else None


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
    summary, attempts = summarize(state), tuple(attempt_of(record) for record in state.finished)
    steps, usage = steps_of(state), usage_of(state.records)
    return Night(
        state=state,
        tag=tag_of(state, run),
        running=running,
        now=now,
        heartbeat=max(0.0, now - last_sign) if running and last_sign is not None else None,
        branch_waits=branch_waits,
        summary=summary,
        setup=_setup(state, usage),
        attempts=attempts,
        steps=steps,
        value_range=value_range(state, steps, summary.noise_sd),
        ideas=tally_of_ideas(state.records),
        loops=tuple(record.number for record in state.records if record.proposal.loop),
        usage=usage,
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
