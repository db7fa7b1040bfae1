"""The panel of a session: its current phase, figures and last trials."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from agent import text
from agent.ledger.state import State
from agent.observers.activity import OVER, Activity
from agent.review.data.attempts import attempt_of
from agent.review.data.night import seconds_left
from agent.review.data.summary import summarize
from agent.review.terminal.log import outcome_text
from agent.review.terminal.status import gained_text, trials_text
from agent.review.terminal.table import Column, Columns, WholeWords, bar, figures, framed
from agent.types import Record

PHASES = {
    "startup": "starting up", "smoke": "smoke test", "training": "training", "scoring": "scoring",
    "model": "asking for an idea",
}  # fmt: skip
ROLES = {"calibrate": "baseline", "incumbent": "best so far, again", "test": "test split", "confirm": "confirming run"}


def night_panel(
    state: State,
    activity: Activity,
    now: float,
    recent: int = 6,
    rows: Sequence[tuple[str, Text]] = (),
    chart: tuple[int, int] = (0, 0),
    badge: Text | None = None,
    foot: str = "",
    below: Sequence[Text] = (),
) -> RenderableType:
    """The panel.

    Args:
        now: seconds since the epoch.
        recent: number of finished trials to list.
        rows: more figures, each a label and a value.
        chart: width and height of a loss chart; without a height, a sparkline of this width.
        badge: shown after the title.
        foot: shown in the lower border.
        below: lines above the lower border.
    """
    summary = summarize(state)
    parts: list[RenderableType] = [] if activity.phase == OVER else [_now(activity), _bar(activity)]
    if activity.losses and chart[1] > 1:
        parts += [Text(), *_chart(activity, *chart), Text()]
    elif activity.losses:
        spark = text.sparkline(activity.losses, chart[0] or 48)
        parts.append(Text.assemble(("loss ", "dim"), (spark, "cyan"), f" {activity.losses[-1]:.3f}"))
    shown = [("gained", gained_text(summary)), ("trials", trials_text(summary))]
    if activity.phase != OVER and (left := seconds_left(state, summary, now)) is not None:
        shown.append(("time left", Text(f"about {text.duration(left)}")))
    parts += [Text()] if chart[1] < 2 or not activity.losses else []
    parts.append(figures((name, WholeWords(value) if rows else value) for name, value in (*shown, *rows)))
    if recent and state.finished:
        parts += [Text(), _recent(state.finished[-recent:], summary.self_reported)]
    if activity.note:
        parts += [Text(), text.safe(activity.note, "yellow")]
    if summary.self_reported:
        parts.append(Text(text.LEGEND, style="dim"))
    parts += [Text(), *map(WholeWords, below)] if below else []
    return framed(parts, summary.tag, badge, foot)


def _chart(activity: Activity, width: int, height: int) -> list[Text]:
    """The losses of the running trial. The full width is the training budget."""
    losses, reached = activity.losses, 1.0 if activity.progress is None else min(1.0, max(0.0, activity.progress))
    marks = {0: f"{max(losses):.3f}", height - 1: f"{min(losses):.3f}"}
    lines = text.chart(losses, max(1, round(width * reached)), height)
    found = [
        Text.assemble((f"{marks.get(row, ''):>8} │", "dim"), (line, "cyan"), no_wrap=True, overflow="crop")
        for row, line in enumerate(lines)
    ]
    found[-1].append(f"  loss {losses[-1]:.3f}", "bold")
    return found


def _now(activity: Activity) -> Text:
    what = PHASES.get(activity.phase, text.line(activity.phase) or "getting ready")
    where = "calibration" if activity.role == "calibrate" else f"trial {activity.trial}" if activity.trial else ""
    role = ROLES.get(activity.role, "")
    more = text.count(activity.running - 1, "run") + " beside it" if activity.running > 1 else ""
    return Text(" · ".join(part for part in (where, role, what, more) if part), style="bold")


def _bar(activity: Activity) -> RenderableType:
    """The progress bar of the phase; it pulses while the progress is unknown."""
    training = activity.phase == "training"
    done = min(1.0, max(0.0, activity.progress)) if training and activity.progress is not None else None
    words = [text.duration(activity.seconds) if done is None else f"{done:.0%}"]
    if activity.seconds_left is not None and training:
        words.append(f"{text.duration(activity.seconds_left)} left")
    if activity.step is not None:
        words.append(f"step {activity.step}")
    if activity.tokens_per_second:
        words.append(f"{activity.tokens_per_second:,.0f} tokens/s")
    if activity.memory_gb:
        words.append(f"{activity.memory_gb:.1f} GB")
    return bar(done, " · ".join(words))


def _recent(records: Sequence[Record], star: bool) -> Columns:
    columns = (
        Column("", lambda a: Text(str(a.trial), "dim"), right=True),
        Column("", lambda a: outcome_text(a.outcome), least=32),
        Column("", lambda a: text.number(a.value, star and a.status == "ok"), right=True, least=28),
        Column("", lambda a: text.gain(a.gain, a.gain_se)),
        Column("", lambda a: Text(a.subject) if a.status == "ok" else Text(a.reason, "dim"), least=40, cut=True),
    )
    return Columns(columns, [attempt_of(record) for record in records])
