"""One line of text per event, for plain terminals and session.log."""

from __future__ import annotations

from agent import text
from agent.ledger.events import (
    Asked,
    Candidate,
    Ended,
    Event,
    Judged,
    Lost,
    Measured,
    Moved,
    Resumed,
    RunStarted,
    SessionStarted,
    name_of,
)
from agent.ledger.state import State
from agent.review.data.attempts import reason
from agent.types import Measurement, Record


def log_line(event: Event, state: State) -> str:
    """One event in one line: its kind, its trial, and what it says."""
    where = "" if isinstance(event, SessionStarted | Resumed | Ended) else f"trial {event.trial}"
    words = _words(event, state)
    return "  ".join(part for part in (f"{name_of(event):<11}", where, words) if part).rstrip()


def _words(event: Event, state: State) -> str:
    match event:
        case Asked():
            proposal = event.proposal
            subject, why = text.line(proposal.subject, 100), text.line(proposal.reason, 200)
            return f"{proposal.ending}: {why}" if proposal.ending else f"{proposal.source}: {subject}"
        case Candidate():
            return event.commit[:12]
        case RunStarted():
            return f"{event.role}  {event.commit[:12]}  {event.trace}"
        case Measured():
            return _measured(event.measurement, state.session.metric)
        case Judged():
            verdict = event.verdict
            gain, why = text.gain(verdict.gain, verdict.gain_se), text.line(verdict.reason, 200)
            return f"{verdict.decision}  {text.number(verdict.value)}  {gain}  {why}"
        case Moved():
            return f"head is {event.commit[:12]}"
        case Lost() | Ended():
            return text.line(event.reason, 300)
    return plain_line(event, state)


def _measured(run: Measurement, metric: str) -> str:
    found = f"{text.line(metric)} {text.number(run.value, run.self_reported)}" if run.status == "ok" else run.status
    why = f": {text.line(run.reason, 200)}" if run.reason else ""
    times = ", ".join(f"{phase} {text.duration(seconds)}" for phase, seconds in run.seconds.items())
    return f"{run.role}  {found}{why}" + (f"  ({times})" if times and run.role != "test" else "")


def plain_line(event: Event, state: State) -> str:
    """One line for a file or a pipe; "" for events that say nothing to people."""
    metric, planned = text.line(state.session.metric), state.session.trials
    match event:
        case SessionStarted():
            bound = text.count(planned, "trial") if planned else "no bound on trials"
            return f"run {text.line(event.tag)}: {text.line(event.proposer)}, {bound}"
        case Measured() if event.trial == 0:
            return _baseline_line(event.measurement, metric, state)
        case Judged() | Asked():
            record = state.of_trial(event.trial)
            if record is not None and (record.verdict is not None or record.proposal.ending):
                return trial_line(record, metric, planned)
        case Resumed():
            done = len(state.finished)
            within = planned and done <= planned
            return f"resumed after {f'{done} of {planned} trials' if within else text.count(done, 'trial')}"
        case Ended():
            return text.line(f"ended: {event.reason}")
    return ""


def _baseline_line(run: Measurement, metric: str, state: State) -> str:
    runs = sum(1 for m in state.baseline_runs if m.role != "test")
    if run.role == "test":
        found = text.number(run.value) if run.value is not None else text.line(run.reason)
        return f"baseline on the test split  {found}"
    found = f"{metric} {text.number(run.value, run.self_reported)}" if run.status == "ok" else run.status
    why = f": {text.line(run.reason)}" if run.status != "ok" else ""
    return f"calibration run {runs}  {found}{why}  ({text.duration(sum(run.seconds.values()))})"


def trial_line(record: Record, metric: str, planned: int | None) -> str:
    """``trial 7/60  keep  val_bpb 1.0334  +0.0037 ± 0.0011  Widen the MLP``."""
    # a run that was resumed may go on beyond the number it was started with
    where = f"trial {record.number}/{planned}" if planned and record.number <= planned else f"trial {record.number}"
    subject = text.line(record.proposal.subject, 100)
    verdict = record.verdict
    if record.status != "ok" or verdict is None:
        return f"{where}  {record.status}  {text.line(reason(record), 160)}" + (f"  [{subject}]" if subject else "")
    reported = any(run.self_reported for run in record.runs)
    value = f"{metric} {text.number(verdict.value, reported)}"
    return f"{where}  {record.decision}  {value}  {text.gain(verdict.gain, verdict.gain_se)}  {subject}"
