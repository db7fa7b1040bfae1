"""One session at a glance."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text

from agent import text
from agent.review.data.night import Night
from agent.review.data.runs import condition
from agent.review.data.server import words_of_all
from agent.review.data.summary import Summary
from agent.review.terminal.runs import condition_text
from agent.review.terminal.table import figures

LATE = 120  # seconds without a heartbeat that are marked


def status_panel(night: Night) -> RenderableType:
    """Render the figures of a session, and what it does now."""
    state = condition_text(condition(night.state, night.running))
    title, rows = Text.assemble(" ", (night.tag, "bold"), "  ", state, " "), figures(_rows(night))
    return Panel(rows, title=title, title_align="left", border_style="dim", padding=(1, 2), expand=False)


def _rows(night: Night) -> Iterator[tuple[str, Text]]:
    summary, state = night.summary, night.state
    yield "gain", gained_text(summary)
    if summary.test_gain is not None:
        gain = text.gain(summary.test_gain, summary.test_gain_se)
        yield "test split", Text(f"{gain}  ({text.number(summary.test_baseline)} → {text.number(summary.test_best)})")
    elif summary.test_problem:
        yield "test split", text.safe(summary.test_problem, "yellow")
    yield "trials", trials_text(summary)
    if night.ideas:
        yield "ideas", Text(f"{night.ideas.tried} of the bank tried, {night.ideas.kept} kept, {night.ideas.open} open")
    if night.loops:
        yield "model", Text(f"answers were a loop in {text.count(len(night.loops), 'trial')}", "yellow")
    yield "noise", Text(noise_words(summary), style="yellow" if summary.noise_sd == 0 else "")
    yield "spent", Text(spent_words(summary))
    if summary.split:
        yield "time", time_text(summary)
    if summary.stopped.words:
        yield "cut short", Text(summary.stopped.words)
    if night.running:
        yield from _live_rows(night)
    elif state.ended:
        yield "ended", Text(text.line(state.ended))
    else:
        yield "interrupted", Text(f"continue with: overnight resume {night.tag}", "yellow")
    if state.lost or state.resumed:
        yield "interruptions", Text(f"{text.count(state.lost, 'run')} lost and repeated, resumed {state.resumed}×")
    if state.server_problems:
        yield "model server", Text(words_of_all(state.server_problems), "yellow")
    yield "setup", Text(" · ".join(night.setup))
    yield "branch", Text(night.branch)
    if night.branch_waits:
        yield "", text.safe(f"{night.branch_waits}. The kept edits: refs/{night.branch}/head", "yellow")
    if summary.self_reported:
        yield "", Text(text.LEGEND, style="dim")


def _live_rows(night: Night) -> Iterator[tuple[str, Text]]:
    yield "now", Text(_now_words(night))
    if night.seconds_left is not None:
        yield "time left", Text(f"about {text.duration(night.seconds_left)}")
    if night.heartbeat is not None:
        yield "heartbeat", heartbeat_text(night.heartbeat)


def _now_words(night: Night) -> str:
    run, others = night.under_way, len(night.state.started) - 1
    if run is None:
        between = any(record.candidate for record in night.state.open_records)
        return "between two runs" if between else "waiting for the next proposal"
    more = f"; and {text.count(others, 'other run')}" if others else ""
    return f"trial {run.trial}, {run.role} run, for {text.duration(night.now - run.time)}{more}"


def heartbeat_text(age: float) -> Text:
    """Render the seconds since the session last wrote: every second in training, rarely while a model answers."""
    return Text(f"{text.duration(age)} ago", style="yellow" if age > LATE else "")


def gained_text(summary: Summary) -> Text:
    """Render the gain with its standard error, and both values, on one line."""
    star = summary.self_reported
    if summary.baseline is None:
        return Text("the baseline has not been measured yet")
    start = text.number(summary.baseline.value, star)
    metric = text.line(summary.metric)
    if summary.gain is None or summary.best is None:
        return Text(f"no edit kept yet; {metric} {start} (baseline, {text.count(summary.baseline.n, 'run')})")
    best = text.number(summary.best.value, star)
    if not summary.estimated:  # means over runs
        start, best = f"{start} of {text.count(summary.baseline.n, 'run')}", f"{best} of {summary.best.n}"
    style = "bold green" if summary.gain > 0 else "bold yellow"
    return Text.assemble((text.gain(summary.gain, summary.gain_se), style), f"  ({metric} {start} → {best})")


def trials_text(summary: Summary) -> Text:
    done = f"{summary.trials} of {summary.planned}" if summary.planned else str(summary.trials)
    found = Text(f"{done}: ")
    found.append(f"{summary.kept} kept", "green" if summary.kept else "")
    found.append(f", {summary.reverted} reverted, ")
    found.append(f"{summary.failed} failed", "yellow" if summary.failed else "")
    if summary.failures:
        kinds = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in summary.failures.items())
        found.append(f" ({kinds})", "dim")
    if summary.repaired:
        found.append(f", {summary.repaired} repaired")
    return found


def noise_words(summary: Summary) -> str:
    if summary.noise_sd is None:
        return "unknown: no commit has two values"
    if summary.noise_sd == 0:
        return f"{text.FIXED_SEED}; no gain has an error"
    freedom = text.count(summary.noise_dof, "degree")
    return f"sd {summary.noise_sd:.4g} between runs of one commit ({freedom} of freedom)"


def spent_words(summary: Summary) -> str:
    training = text.duration(summary.seconds.get("training", 0.0))
    words = f"{text.duration(summary.wall_seconds)}, of which {training} training, in {text.count(summary.runs, 'run')}"
    return words + (f"; {summary.gpu_seconds / 3600:.2f} GPU-hours" if summary.gpu_seconds else "")


def time_text(summary: Summary) -> Text:
    """Render ``training 81 % · start-up 7 % · …``."""
    whole = sum(summary.split.values())
    found = Text(overflow="ellipsis")
    for name, seconds in summary.split.items():
        share = f"{100 * seconds / whole:.0f} %" if seconds >= 0.005 * whole else "< 1 %"
        found.append(" · " if found else "").append(f"{name} ", "dim").append(share)
    return found
