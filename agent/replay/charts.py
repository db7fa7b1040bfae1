"""The charts of replays and promotions, as SVG."""

from __future__ import annotations

from agent import text
from agent.replay.outcomes import Result
from agent.review.data.branch import padded
from agent.review.report import svg

SESSION = "session"  # name and outcome of the recorded gain


def value_chart(result: Result, width: int) -> str:
    """Recorded and replayed value of each step; the bars are two standard errors of the replayed mean."""
    findings, metric, sd = result.steps, text.line(result.plan.metric), result.noise.sd or 0.0
    values = [v for f in findings for v in (f.edit.recorded, f.value) if v is not None]
    if not values:
        return ""
    last = max(len(findings) - 1, 1)
    plot = svg.plot(
        (width, 360 if width > 500 else 330), f"{metric} by step, recorded and replayed", "chart",
        (-0.4, last + 0.4), padded(min(values) - 2 * sd, max(values) + 2 * sd),
        numbers=svg.whole_ticks(last, width // 90), titles=(metric, "step"),
    )  # fmt: skip
    recorded = [(f.edit.number, f.edit.recorded) for f in findings if f.edit.recorded is not None]
    plot.line(recorded, "loss parent")
    measured = [(f, f.value) for f in findings if f.value is not None]
    plot.line([(f.edit.number, value) for f, value in measured], "loss own")
    for f, value in measured:
        at, reach = f.edit.number, 2 * sd / f.n**0.5
        plot.line([(at, value - reach), (at, value + reach)], "loss own")
        words = f"recorded {text.number(f.edit.recorded)}, replayed {text.number(value)} in {text.count(f.n, 'run')}"
        mark = plot.dot((at, value), "keep", 4.5)
        svg.tip(mark, f"step {at}: {f.outcome}\n{words}\n{text.line(f.edit.subject, 90)}")
    return svg.render(plot.root)


def gain_chart(result: Result, width: int) -> str:
    """Gain of each edit in the session and at each setting, with two standard errors."""
    columns = [[(SESSION, f.edit.gain, f.edit.gain_se, SESSION) for f in result.found[0]]]
    for stage, found in zip(result.plan.stages, result.found, strict=True):
        columns.append([(str(stage.setting), f.gain, f.se, f.outcome) for f in found])
    known = [(gain, 2 * (se or 0.0)) for column in columns for _, gain, se, _ in column if gain is not None]
    if not known:
        return ""
    heading, row, top = 22, 13, 26
    height = top + len(result.found[0]) * (len(columns) * row + heading) + 30
    span = padded(min(0.0, *(g - reach for g, reach in known)), max(0.0, *(g + reach for g, reach in known)))
    bottom = height - 30  # the vertical axis is in pixels
    plot = svg.plot(
        (width, height), "gain of each edit in the session and at each setting", "chart", span, (bottom, top),
        numbers=svg.ticks(*span, width // 140), levels=(), margins=(14, top, 14, 30),
    )  # fmt: skip
    plot.line([(0, top), (0, bottom)], "loss parent")
    y = top + 14.0
    for finding, gains in zip(result.found[0], zip(*columns, strict=True), strict=True):
        name = f"{finding.edit.trial or ''} {finding.edit.subject}".strip()
        svg.add(plot.root, "text", text.line(name, width // 8), cls="tick axis", x=plot.box.left, y=y)
        for setting, gain, se, outcome in gains:
            y += row
            if gain is None:
                continue
            reach = 2 * (se or 0.0)
            plot.line([(gain - reach, y), (gain + reach, y)], f"loss {'parent' if setting == SESSION else 'own'}")
            kind = "keep" if outcome in ("holds", SESSION) else "revert"
            svg.tip(plot.dot((gain, y), kind, 4), f"{setting}: {text.gain(gain, se)}\n{outcome}")
        y += heading
    return svg.render(plot.root)
