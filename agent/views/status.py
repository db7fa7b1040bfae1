"""One run at a glance.

``status_json`` is schema ``overnight.status/1``: an object with the keys of ``overnight list --json`` and schema,
branch, baseline_runs, best_runs, test_baseline, test_best, test_gain, test_problem (why the test split has no value, or
empty), noise_sd, noise_dof, reverted, failures (by status), runs, lost_runs, resumed, seconds (by phase, over all
runs), wall_seconds (without the time in which no session was at work), split (seconds by what they were spent on, which
add up to wall_seconds), seconds_left (null if nobody can tell), now (trial, role and since of the run under way; null),
and heartbeat (seconds since the session last wrote anything; null where none runs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agent.ledger import State
from agent.views import text
from agent.views.runs import condition, condition_text, runs_json
from agent.views.summary import Summary, summarize

SCHEMA = "overnight.status/1"
SETUP = ("proposer", "model", "policy", "sandbox", "budget", "device")


def status_json(
    state: State, run: Mapping[str, Any], now: float, running: bool, last_sign: float | None = None
) -> dict[str, Any]:
    summary = summarize(state)
    tag = tag_of(state, run)
    under_way = _under_way(state) if running else None
    return {
        **runs_json([(tag, state, running)])[0],
        "schema": SCHEMA,
        "branch": f"autoresearch/{tag}",
        "baseline_runs": summary.baseline.n if summary.baseline else 0,
        "best_runs": summary.best.n if summary.best else 0,
        "test_baseline": summary.test_baseline,
        "test_best": summary.test_best,
        "test_gain": summary.test_gain,
        "test_problem": text.line(summary.test_problem),
        "noise_sd": summary.noise_sd,
        "noise_dof": summary.noise_dof,
        "reverted": summary.reverted,
        "failures": dict(summary.failures),
        "runs": summary.runs,
        "lost_runs": state.lost,
        "resumed": state.resumed,
        "seconds": {phase: round(seconds, 1) for phase, seconds in summary.seconds.items()},
        "wall_seconds": round(summary.wall_seconds, 1),
        "split": {part: round(seconds, 1) for part, seconds in summary.split.items()},
        "seconds_left": seconds_left(state, summary, now) if running else None,
        "now": under_way,
        "heartbeat": round(max(0.0, now - last_sign), 1) if running and last_sign is not None else None,
    }


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
    tag, settings = tag_of(state, run), state.session
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
    setup = [str(settings[k]) for k in SETUP if settings.get(k)]
    rows += [("setup", text.safe(" · ".join(setup))), ("branch", text.safe(f"autoresearch/{tag}"))]
    return rows


def heartbeat_text(age: float) -> Text:
    """A session that trains writes every second; one that asks a model is silent for as long as the answer takes."""
    return Text(f"{text.duration(age)} ago", style="yellow" if age > 120 else "")


def tag_of(state: State, run: Mapping[str, Any]) -> str:
    table = run.get("run")
    return str(state.session.get("tag") or (table.get("tag", "") if isinstance(table, Mapping) else ""))


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


def seconds_left(state: State, summary: Summary, now: float) -> float | None:
    """By the mean of the trials so far; None without a number of trials to reach."""
    if not summary.planned or not state.finished:
        return None
    first = state.records[0].started
    mean = max(0.0, state.last_time - first) / len(state.finished)
    return max(0.0, mean * (summary.planned - summary.trials) - max(0.0, now - state.last_time))


def _under_way(state: State) -> dict[str, Any] | None:
    if not state.started:
        return None
    run = state.started[-1]
    return {"trial": run.get("trial"), "role": run.get("role"), "since": run.get("time")}


def _now_words(state: State, now: float) -> str:
    run = _under_way(state)
    if run is None:
        return "between two runs" if any(r.candidate for r in state.open_records) else "waiting for the next proposal"
    others = len(state.started) - 1
    return f"trial {run['trial']}, {run['role']} run, for {text.duration(now - float(run['since'] or now))}" + (
        f"; and {text.count(others, 'other run')}" if others else ""
    )
