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
    low, high = padded(min(values) - 2 * sd, max(values) + 2 * sd)
    height = 360 if width > 500 else 330
    root = svg.canvas(width, height, f"{metric} by step, recorded and replayed")
    box = svg.Box(58, 26, width - 14, height - 30)
    last = max(len(findings) - 1, 1)
    x = svg.linear(-0.4, last + 0.4, box.left, box.right)
    y = svg.linear(low, high, box.bottom, box.top)
    numbers = svg.whole_ticks(last, width // 90)
    svg.axes(root, box, (x, numbers), (y, svg.ticks(low, high, 6)))
    svg.add(root, "text", metric, cls="tick axis", x=box.left, y=14)
    svg.add(root, "text", "step", cls="tick axis", x=box.right, y=14, text_anchor="end")
    recorded = [(x(f.edit.number), y(f.edit.recorded)) for f in findings if f.edit.recorded is not None]
    svg.add(root, "path", cls="loss parent", d=svg.line(recorded))
    measured = [(f, f.value) for f in findings if f.value is not None]
    svg.add(root, "path", cls="loss own", d=svg.line([(x(f.edit.number), y(value)) for f, value in measured]))
    for f, value in measured:
        at, reach = x(f.edit.number), 2 * sd / f.n**0.5
        svg.add(root, "path", cls="loss own", d=f"M{at:.1f} {y(value - reach):.1f}V{y(value + reach):.1f}")
        mark = svg.add(root, "circle", cls="keep", cx=at, cy=y(value), r=4.5)
        words = f"recorded {text.number(f.edit.recorded)}, replayed {text.number(value)} in {text.count(f.n, 'run')}"
        svg.tip(mark, f"step {f.edit.number}: {f.outcome}\n{words}\n{text.line(f.edit.subject, 90)}")
    return svg.render(root)


def gain_chart(result: Result, width: int) -> str:
    """Gain of each edit in the session and at each setting, with two standard errors."""
    columns = [[(SESSION, f.edit.gain, f.edit.gain_se, SESSION) for f in result.found[0]]]
    for stage, found in zip(result.plan.stages, result.found, strict=True):
        columns.append([(str(stage.setting), f.gain, f.se, f.outcome) for f in found])
    known = [(gain, 2 * (se or 0.0)) for column in columns for _, gain, se, _ in column if gain is not None]
    if not known:
        return ""
    line, top = 22, 26
    height = top + len(result.found[0]) * (len(columns) * 13 + line) + 30
    root = svg.canvas(width, height, "gain of each edit in the session and at each setting")
    box = svg.Box(14, top, width - 14, height - 30)
    low, high = padded(min(0.0, *(g - reach for g, reach in known)), max(0.0, *(g + reach for g, reach in known)))
    x = svg.linear(low, high, box.left, box.right)
    svg.axes(root, box, (x, svg.ticks(low, high, width // 140)), (lambda y: y, []))
    svg.add(root, "path", cls="loss parent", d=svg.line([(x(0), box.top), (x(0), box.bottom)]))
    y = top + 14.0
    for finding, gains in zip(result.found[0], zip(*columns, strict=True), strict=True):
        name = f"{finding.edit.trial or ''} {finding.edit.subject}".strip()
        svg.add(root, "text", text.line(name, width // 8), cls="tick axis", x=box.left, y=y)
        for setting, gain, se, outcome in gains:
            y += 13
            if gain is None:
                continue
            style = "parent" if setting == SESSION else "own"
            reach = 2 * (se or 0.0)
            svg.add(root, "path", cls=f"loss {style}", d=svg.line([(x(gain - reach), y), (x(gain + reach), y)]))
            kind = "keep" if outcome in ("holds", SESSION) else "revert"
            mark = svg.add(root, "circle", cls=kind, cx=x(gain), cy=y, r=4)
            svg.tip(mark, f"{setting}: {text.gain(gain, se)}\n{outcome}")
        y += line
    return svg.render(root)
