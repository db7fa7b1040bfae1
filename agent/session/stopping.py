"""When a session ends: bounds, a trial that would not fit, repeated failures, or a request of the user."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from agent import text
from agent.errors import OvernightError
from agent.ledger.state import State
from agent.review.data.times import gpu_seconds
from agent.rundir.stop import Stopper
from agent.settings import Settings, parse_until
from agent.target import Target
from agent.types import Record, on_validation

STOPPED = "stopped by the user"
AT_ONCE = "stopped at once; the running trial is run again at the next resume"


class Stuck(OvernightError):
    """Trial after trial fails for the same reason."""


@dataclass(frozen=True)
class Cost:
    """Seconds of the shortest possible trials: one idea and one run each."""

    trial: float
    training: float
    run: float = 0.0  # the trials without the wait for the ideas


def expected_cost(state: State, target: Target | None = None, runs: int = 1) -> Cost:
    """Estimate the next ``runs`` trials from the medians of this session.

    Before the first run has ended, it is the budget of a trusted target in seconds; 0 for any other target or budget.
    """
    good = [m.seconds for same in state.runs.values() for m in same if m.status == "ok" and m.role != "test"]
    if good:
        phases = {name: median(run.get(name, 0.0) for run in good) for name in {n for run in good for n in run}}
        training = phases.get("training", 0.0)
        run = sum(phases.values())
    else:
        known = target is not None and target.score == "trusted" and target.budget.kind == "seconds"
        run = training = target.budget.amount if target is not None and known else 0.0
    asking = median(record.asking for record in state.records) if state.records else 0.0
    return Cost(runs * (run + asking), runs * training, runs * run)


def reason_to_end(
    state: State,
    settings: Settings,
    cost: Cost,
    elapsed: float = 0.0,
    until_left: float | None = None,
    trial: int | None = None,
) -> str:
    """Why a trial is not started; "" if it is. A pure function.

    Args:
        state: of the session.
        settings: with the bounds.
        cost: expected, of the trial.
        elapsed: seconds since the session started.
        until_left: seconds until ``settings.until``; None without.
        trial: number; by default the next one.
    """
    number = len(state.finished) + 1 if trial is None else trial
    if settings.trials is not None and number > settings.trials:
        few = {0: "the baseline is measured", 1: "the one trial is done"}
        return few.get(settings.trials, f"all {settings.trials} trials done")
    trained = sum(m.seconds.get("training", 0.0) for runs in state.runs.values() for m in on_validation(runs))
    bounds = [  # seconds that are left and needed, and the end and the length in words
        _hours(settings.hours, elapsed, cost.trial, ""),
        (until_left, cost.trial, f"it is {settings.until}", f"until {settings.until}"),
        _hours(settings.train_hours, trained, cost.training, " of training"),
        _hours(settings.gpu_hours, gpu_seconds(state), cost.run, " on GPUs"),
    ]
    for left, needed, over, bound in bounds:
        if left is not None and left <= 0:
            return over
        if left is not None and left < needed:
            return f"{text.duration(left)} are left {bound}, and a trial takes about {text.duration(needed)}"
    return _model_over(state, settings)


def _hours(hours: float | None, used: float, needed: float, what: str) -> tuple[float | None, float, str, str]:
    bound = text.count(hours or 0.0, "hour") + what
    left = None if hours is None else hours * 3600 - used
    return left, needed, f"{bound} {'is' if hours == 1 else 'are'} over", f"of {bound}"


def _model_over(state: State, settings: Settings) -> str:
    """Why the model is asked no more; "" if it is."""
    read, written, estimated = (
        sum(answer.usage.get(name, 0.0) for record in state.records for answer in record.proposals)
        for name in ("tokens_in", "tokens_out", "estimated")
    )
    guessed = ", partly estimated" if estimated else ""
    if settings.max_tokens_total is not None and read + written >= settings.max_tokens_total:
        return f"the model has used {read + written:,.0f} tokens of {settings.max_tokens_total:,}{guessed}"
    spent = (read * settings.price_in + written * settings.price_out) / 1e6
    if settings.max_cost is not None and spent >= settings.max_cost:
        return f"the model has cost {spent:.2f} of {settings.max_cost:g}{guessed}"
    return ""


def breaker(state: State, limit: int) -> str:
    """Why the session stops after ``limit`` failures; "" if it does not.

    It stops if the last ``limit`` trials since the last resume failed with the same status and the same decisive line,
    numbers aside. With ``limit`` 0 it never stops.
    """
    last = state.finished[max(state.resumed_at, len(state.finished) - limit) :] if limit else ()
    kinds = {(record.status, re.sub(r"\d+", "#", failure_of(record))) for record in last}
    if not last or len(last) < limit or len(kinds) > 1 or not last[-1].failed:
        return ""
    failed = last[-1]
    why = text.line(failure_of(failed).partition("\n")[0], 200)
    ended = "the last trial failed" if limit == 1 else f"the last {limit} trials all ended the same way"
    return (
        f"{ended}: {failed.status}{f' ({why})' if why else ''}. "
        f"`overnight show {state.session.tag or 'TAG'} {failed.number}` has the details. Fix the "
        f"cause, then `overnight resume`; --breaker 0 continues in spite of failures."
    )


def failure_of(record: Record) -> str:
    """The decisive line of a failed trial."""
    if record.proposal.ending:
        return record.proposal.reason
    return next(
        (run.reason for run in (*record.runs, *record.stacks[-1:]) if run.status != "ok" and run.role != "test"), ""
    )


class EndOfNight:
    """Ends a session by its settings and the requests of the user."""

    def __init__(self, settings: Settings, stopper: Stopper, target: Target | None = None):
        self.settings, self.stopper, self.target = settings, stopper, target
        self.begun = time.monotonic()
        self.until = parse_until(settings.until, datetime.now()) if settings.until else None

    def before(self, state: State, trial: int, runs: int = 1) -> str:
        """Why ``trial`` is not started; "" if it is. A trial that has started is always finished.

        Args:
            state: Of the session.
            trial: Its number.
            runs: That have to fit into the time left.

        Raises:
            Stuck: the breaker trips.
        """
        if self.stopper.asked():
            return STOPPED
        left = (self.until - datetime.now()).total_seconds() if self.until is not None else None
        cost = expected_cost(state, self.target, runs)
        reason = reason_to_end(state, self.settings, cost, time.monotonic() - self.begun, left, trial)
        if not reason and (stuck := breaker(state, self.settings.breaker)):
            raise Stuck(stuck)
        return reason
