"""The page of a replay: one HTML file that loads nothing from the network."""

from __future__ import annotations

from pathlib import Path

from agent import text
from agent.replay.outcomes import Result
from agent.replay.view import headline, minimal_words
from agent.review.report import svg
from agent.review.report.html import render_page, write_page


def write_replay(result: Result, place: Path) -> None:
    """Raises EnvironmentProblem if ``place`` cannot be written."""
    plan = result.plan
    rounds = "exactly as recorded" if plan.exact else f"{text.count(plan.rounds, 'run')} of each commit"
    page = render_page(
        "replay.html",
        plan=plan,
        about=[rounds, plan.budget, plan.metric],
        headline=headline(result),
        findings=result.findings,
        ablations=result.ablations,
        minimal=minimal_words(result),
        differs=result.differs,
        chart=replay_chart(result),
        narrow=replay_chart(result, 420, 330),
        legend=text.LEGEND if plan.self_reported else "",
        noise=result.noise,
    )
    write_page(place, page)


def replay_chart(result: Result, width: int = 960, height: int = 360) -> str:
    """Recorded and replayed value of each step; the bars are two standard errors of the replayed mean."""
    findings, metric, sd = result.findings, text.line(result.plan.metric), result.noise.sd or 0.0
    values = [v for f in findings for v in (f.step.recorded, f.value) if v is not None]
    if not values:
        return ""
    low, high = min(values) - 2 * sd, max(values) + 2 * sd
    pad = 0.06 * (high - low) or abs(high) * 0.01 or 0.5
    root = svg.canvas(width, height, f"{metric} by step, recorded and replayed")
    box = svg.Box(58, 26, width - 14, height - 30)
    last = max(len(findings) - 1, 1)
    x = svg.linear(-0.4, last + 0.4, box.left, box.right)
    y = svg.linear(low - pad, high + pad, box.bottom, box.top)
    numbers = [v for v in svg.ticks(0, last, width // 90) if v == int(v)]
    svg.axes(root, box, (x, numbers), (y, svg.ticks(low - pad, high + pad, 6)))
    svg.add(root, "text", metric, cls="tick axis", x=box.left, y=14)
    svg.add(root, "text", "step", cls="tick axis", x=box.right, y=14, text_anchor="end")
    recorded = [(x(f.step.number), y(f.step.recorded)) for f in findings if f.step.recorded is not None]
    svg.add(root, "path", cls="loss parent", d=svg.line(recorded))
    measured = [(f, f.value) for f in findings if f.value is not None]
    svg.add(root, "path", cls="loss own", d=svg.line([(x(f.step.number), y(value)) for f, value in measured]))
    for f, value in measured:
        at, reach = x(f.step.number), 2 * sd / f.n**0.5
        svg.add(root, "path", cls="loss own", d=f"M{at:.1f} {y(value - reach):.1f}V{y(value + reach):.1f}")
        mark = svg.add(root, "circle", cls="keep", cx=at, cy=y(value), r=4.5)
        words = f"recorded {text.number(f.step.recorded)}, replayed {text.number(value)} in {text.count(f.n, 'run')}"
        svg.tip(mark, f"step {f.step.number}: {f.outcome}\n{words}\n{text.line(f.step.subject, 90)}")
    return svg.render(root)
