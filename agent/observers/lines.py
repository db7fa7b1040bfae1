"""One line of text per event, for plain terminals and session.log."""

from __future__ import annotations

from agent import text
from agent.ledger.state import Event, State
from agent.review.data.attempts import reason
from agent.types import Measurement, Record, from_json


def log_line(event: Event, state: State) -> str:
    """One event in one line: its kind, its trial, and what it says."""
    kind = str(event["event"])
    where = f"trial {event['trial']}" if "trial" in event else ""
    words = _words(event, state)
    return "  ".join(part for part in (f"{kind:<11}", where, words) if part).rstrip()


def _words(event: Event, state: State) -> str:
    kind = event["event"]
    if kind == "asked":
        proposal = event["proposal"]
        subject = text.line(str(proposal.get("subject") or ""), 100)
        ending, why = proposal.get("ending"), text.line(str(proposal.get("reason") or ""), 200)
        return f"{ending}: {why}" if ending else f"{proposal.get('source', '')}: {subject}"
    if kind == "candidate":
        return str(event["commit"])[:12]
    if kind == "run_started":
        return f"{event['role']}  {str(event['commit'])[:12]}  {event['trace']}"
    if kind == "measured":
        return _measured(from_json(Measurement, event["measurement"]), str(state.session.get("metric", "value")))
    if kind == "judged":
        verdict = event["verdict"]
        gain = text.gain(verdict["gain"], verdict["gain_se"])
        why = text.line(str(verdict["reason"]), 200)
        return f"{verdict['decision']}  {text.number(verdict['value'])}  {gain}  {why}"
    if kind == "moved":
        return f"head is {str(event['commit'])[:12]}"
    if kind in ("lost", "ended"):
        return text.line(str(event["reason"]), 300)
    return plain_line(event, state)


def _measured(run: Measurement, metric: str) -> str:
    found = f"{text.line(metric)} {text.number(run.value, run.self_reported)}" if run.status == "ok" else run.status
    why = f": {text.line(run.reason, 200)}" if run.reason else ""
    times = ", ".join(f"{phase} {text.duration(seconds)}" for phase, seconds in run.seconds.items())
    return f"{run.role}  {found}{why}" + (f"  ({times})" if times and run.role != "test" else "")


def plain_line(event: Event, state: State) -> str:
    """One line for a file or a pipe; "" for events that say nothing to people."""
    kind = event["event"]
    session = state.session
    metric, planned = text.line(str(session.get("metric", "value"))), session.get("trials")
    if kind == "session":
        return f"run {text.line(str(session.get('tag', '')))}: {text.line(str(session.get('proposer', '')))}, " + (
            text.count(planned, "trial") if planned else "no bound on trials"
        )
    if kind == "measured" and event["trial"] == 0:
        return _baseline_line(from_json(Measurement, event["measurement"]), metric, state)
    if kind in ("judged", "asked"):
        record = state.of_trial(int(event["trial"]))
        if record is not None and (record.verdict is not None or record.proposal.ending):
            return trial_line(record, metric, planned)
    if kind == "resumed":
        done = len(state.finished)
        within = planned and done <= planned
        return f"resumed after {f'{done} of {planned} trials' if within else text.count(done, 'trial')}"
    if kind == "ended":
        return text.line(f"ended: {event['reason']}")
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
