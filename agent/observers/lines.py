"""One line of text per event, for plain terminals and session.log."""

from __future__ import annotations

from collections.abc import Sequence

from agent import text
from agent.ledger import events
from agent.ledger.events import Event
from agent.ledger.state import State
from agent.review.data.attempts import reason
from agent.review.data.server import words_of
from agent.types import Measurement, Record, on_validation


def log_line(event: Event, state: State) -> str:
    """A line of session.log: name of the event, trial, content."""
    where = f"trial {event.trial}" if isinstance(event, events.OfTrial) else ""
    words = _words(event, state)
    return "  ".join(part for part in (f"{events.name_of(event):<11}", where, words) if part).rstrip()


def _words(event: Event, state: State) -> str:
    match event:
        case events.Asked(proposal=proposal):
            subject, why = text.line(proposal.subject, 100), text.line(proposal.reason, 200)
            return f"{proposal.ending}: {why}" if proposal.ending else f"{proposal.source}: {subject}"
        case events.Repaired(proposal=proposal):
            return text.line(f"{proposal.ending}: {proposal.reason}" if proposal.ending else proposal.subject, 200)
        case events.Candidate():
            return event.commit[:12]
        case events.RunStarted():
            return f"{event.role}  {event.commit[:12]}  {event.trace}"
        case events.Measured(measurement=run):
            times = ", ".join(f"{phase} {text.duration(seconds)}" for phase, seconds in run.seconds.items())
            shown = f"  ({times})" if times and run.role != "test" else ""
            return f"{run.role}  {_value(run, text.line(state.session.metric))}{shown}"
        case events.Judged(verdict=verdict):
            gain, why = text.gain(verdict.gain, verdict.gain_se), text.line(verdict.reason, 200)
            return f"{verdict.decision}  {text.number(verdict.value)}  {gain}  {why}"
        case events.Moved():
            return f"head is {event.commit[:12]}"
        case events.Stacked():
            return f"{event.commit[:12]}  edits {numbers(event.edits)}, new {numbers(event.new)}"
        case events.Weighed():
            return ", ".join(f"{w.trial}: {w.probability:.0%}" for w in event.edits)
        case events.Published():
            return f"head is {event.commits[-1][:12]}, with trials {numbers(event.trials)}"
        case events.Lost() | events.Ended():
            return text.line(event.reason, 300)
    return plain_line(event, state)


def numbers(trials: Sequence[int]) -> str:
    return ", ".join(map(str, trials)) or "none"


def _value(run: Measurement, metric: str) -> str:
    """``val_bpb 1.0334``, or the status of a failed run and its reason."""
    found = f"{metric} {text.number(run.value, run.self_reported)}" if run.status == "ok" else run.status
    return found + (f": {text.line(run.reason, 200)}" if run.reason else "")


def plain_line(event: Event, state: State) -> str:
    """A line for a file or a pipe; "" for events that only programs need."""
    metric, planned, done = text.line(state.session.metric), state.session.trials, len(state.finished)
    match event:
        case events.SessionStarted():
            bound = "no bound on trials" if planned is None else text.count(planned, "trial")
            return f"session {text.line(event.tag)}: {text.line(event.proposer)}, {bound}"
        case events.Measured(trial=0, measurement=run) if run.role == "test":
            return f"baseline on the test split  {_value(run, metric).removeprefix(f'{metric} ')}"
        case events.Measured(trial=0, measurement=run):
            number = len(on_validation(state.baseline_runs))
            return f"calibration run {number}  {_value(run, metric)}  ({text.duration(sum(run.seconds.values()))})"
        case events.Judged() | events.Asked():
            record = state.of_trial(event.trial)
            if record is not None and (record.verdict is not None or record.proposal.ending):
                return trial_line(record, metric, planned)
        case events.Repaired(proposal=proposal) if not proposal.ending:
            return f"trial {event.trial}  failed before training; the model repaired its edit"
        case events.ServerProblem():
            return words_of(event)
        case events.Resumed():
            within = planned and done <= planned
            return f"resumed after {f'{done} of {planned} trials' if within else text.count(done, 'trial')}"
        case events.Ended():  # the command that ran the session prints the reason
            marked = state.session.self_reported and any(run.value is not None for run in state.baseline_runs)
            return text.LEGEND if marked else ""
    return ""


def trial_line(record: Record, metric: str, planned: int | None) -> str:
    """``trial 7/60  keep  val_bpb 1.0334  +0.0037 ± 0.0011  Widen the MLP``."""
    bound = f"/{planned}" if planned and record.number <= planned else ""  # a resumed run may exceed its first plan
    subject, verdict = text.line(record.proposal.subject, 100), record.verdict
    if record.status != "ok" or verdict is None:
        why = text.line(reason(record).partition("\n")[0], 160)
        return f"trial {record.number}{bound}  {record.status}  {why}" + (f"  [{subject}]" if subject else "")
    value = f"{metric} {text.number(verdict.value, any(run.self_reported for run in record.runs))}"
    gain = text.gain(verdict.gain, verdict.gain_se)
    return f"trial {record.number}{bound}  {record.decision}  {value}  {gain}  {subject}"
