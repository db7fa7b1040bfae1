"""One run at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agent import text
from agent.ledger.state import State
from agent.review.data.runs import condition
from agent.review.data.status import SETUP, _under_way, seconds_left, tag_of
from agent.review.data.summary import Summary, summarize
from agent.review.terminal.runs import condition_text


def status_panel(
    state: State, run: Mapping[str, Any], now: float, running: bool, last_sign: float | None = None
) -> RenderableType:
    summary = summarize(state)
    tag = tag_of(state, run)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for name, value in _rows(state, summary, run, now, running, last_sign):
        grid.add_row(name, value)
    title = Text.assemble(" ", text.safe(tag, "bold"), "  ", condition_text(condition(state, running)), " ")
    if summary.self_reported:
        grid.add_row("", Text(text.LEGEND, style="dim"))
    return Panel(grid, title=title, title_align="left", border_style="dim", padding=(1, 2), expand=False)


def _rows(
    state: State, summary: Summary, run: Mapping[str, Any], now: float, running: bool, last_sign: float | None
) -> list[tuple[str, Text]]:
    tag = tag_of(state, run)
    rows = [("gained", gained_text(summary))]
    if summary.test_gain is not None:
        gained = text.gain(summary.test_gain, summary.test_gain_se)
        values = f"{text.number(summary.test_baseline)} → {text.number(summary.test_best)}"
        rows.append(("on the test split", Text(f"{gained}  ({values})")))
    elif summary.test_problem:
        rows.append(("on the test split", text.safe(summary.test_problem, "yellow")))
    rows += [
        ("trials", trials_text(summary)),
        ("noise", Text(noise_words(summary))),
        ("spent", Text(spent_words(summary))),
        *([("time", time_text(summary))] if summary.split else []),
    ]
    if running:
        rows.append(("now", Text(_now_words(state, now))))
        left = seconds_left(state, summary, now)
        rows += [("time left", Text(f"about {text.duration(left)}"))] if left is not None else []
        rows += [("heartbeat", heartbeat_text(now - last_sign))] if last_sign is not None else []
    elif state.ended:
        rows.append(("ended", text.safe(state.ended)))
    else:
        rows.append(("interrupted", text.safe(f"overnight resume {tag} goes on where it stood", "yellow")))
    if state.lost or state.resumed:
        words = f"{text.count(state.lost, 'run')} lost to the machine and run again, resumed {state.resumed}×"
        rows.append(("interruptions", Text(words)))
    setup = [str(value) for name in SETUP if (value := getattr(state.session, name))]
    rows += [("setup", text.safe(" · ".join(setup))), ("branch", text.safe(f"autoresearch/{tag}"))]
    return rows


def heartbeat_text(age: float) -> Text:
    """A session that trains writes every second; one that asks a model is silent for as long as the answer takes."""
    return Text(f"{text.duration(age)} ago", style="yellow" if age > 120 else "")


def gained_text(summary: Summary) -> Text:
    """What was gained and how sure that is, in one line."""
    star = summary.self_reported
    if summary.baseline is None:
        return Text("the baseline has not been measured yet")
    start = text.number(summary.baseline.value, star)
    metric = text.line(summary.metric)
    if summary.gain is None or summary.best is None:
        return Text(f"nothing kept so far; {metric} {start} (baseline, {text.count(summary.baseline.n, 'run')})")
    return Text.assemble(
        (text.gain(summary.gain, summary.gain_se), "bold green" if summary.gain > 0 else "bold yellow"),
        f"  ({metric} {start} of {text.count(summary.baseline.n, 'run')} → "
        f"{text.number(summary.best.value, star)} of {summary.best.n})",
    )


def trials_text(summary: Summary) -> Text:
    done = f"{summary.trials} of {summary.planned}" if summary.planned else str(summary.trials)
    found = Text(f"{done}: ")
    found.append(f"{summary.kept} kept", "green" if summary.kept else "")
    found.append(f", {summary.reverted} reverted, ")
    found.append(f"{summary.failed} failed", "yellow" if summary.failed else "")
    if summary.failures:
        kinds = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in summary.failures.items())
        found.append(f" ({kinds})", "dim")
    return found


def noise_words(summary: Summary) -> str:
    if summary.noise_sd is None:
        return "unknown: no commit was measured twice"
    freedom = text.count(summary.noise_dof, "degree")
    return f"sd {summary.noise_sd:.4g} between runs of one commit ({freedom} of freedom)"


def spent_words(summary: Summary) -> str:
    training = text.duration(summary.seconds.get("training", 0.0))
    return f"{text.duration(summary.wall_seconds)}, of which {training} training, in {text.count(summary.runs, 'run')}"


def time_text(summary: Summary) -> Text:
    """``training 81 % · start-up 7 % · …``: where the night went."""
    whole = sum(summary.split.values())
    found = Text(overflow="ellipsis")
    for name, seconds in summary.split.items():
        share = f"{100 * seconds / whole:.0f} %" if seconds >= 0.005 * whole else "< 1 %"
        found.append(" · " if found else "").append(f"{name} ", "dim").append(share)
    return found


def _now_words(state: State, now: float) -> str:
    run = _under_way(state)
    if run is None:
        return "between two runs" if any(r.candidate for r in state.open_records) else "waiting for the next proposal"
    others = len(state.started) - 1
    return f"trial {run['trial']}, {run['role']} run, for {text.duration(now - float(run['since'] or now))}" + (
        f"; and {text.count(others, 'other run')}" if others else ""
    )
