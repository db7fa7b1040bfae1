"""One line for each seed, from the value of the commit below an edit to the value of the edit."""

from __future__ import annotations

from agent import text
from agent.review.data.night import Night
from agent.review.report import svg

SLOT = 34  # least width of an edit, in pixels


def pair_chart(night: Night, width: int = 960, height: int = 260) -> str:
    """Draw the pairs of the latest kept and undecided edits; "" if there are none."""
    box = svg.Box(58 if width > 600 else 50, 26, width - 14, height - 30)
    edits = night.pairs[-int((box.right - box.left) // SLOT) :]
    if not edits:
        return ""
    metric, lower = text.line(night.summary.metric), night.summary.goal != "maximize"
    values = [value for edit in edits for pair in edit.pairs for value in pair]
    pad = 0.08 * (max(values) - min(values)) or 0.001
    low, high = min(values) - pad, max(values) + pad
    root = svg.canvas(width, height, f"{metric} before and after each edit, one line per seed", "chart pairs")
    y = svg.linear(low, high, box.bottom, box.top)
    svg.axes(root, box, (y, []), (y, svg.ticks(low, high, 5)))
    svg.add(root, "text", f"{metric}: commit below → edit", cls="tick axis", x=box.left, y=14)
    slot = (box.right - box.left) / len(edits)
    for place, edit in enumerate(edits):
        left = box.left + slot * (place + 0.22)
        right = box.left + slot * (place + 0.78)
        better = sum((after < before) == lower and after != before for before, after in edit.pairs)
        link = svg.add(root, "a", href=f"#trial-{edit.trial}")
        for before, after in edit.pairs:
            cls = "pair keep-line" if edit.kept else "pair"
            svg.add(link, "line", cls=cls, x1=left, y1=y(before), x2=right, y2=y(after))
            svg.add(link, "circle", cls="keep" if edit.kept else "revert", cx=right, cy=y(after), r=2.5)
        area = svg.add(
            link, "rect", cls="hit", x=left - 4, y=box.top, width=right - left + 8, height=box.bottom - box.top
        )
        state = "kept" if edit.kept else "undecided"
        words = f"better under {better} of {text.count(len(edit.pairs), 'seed')}"
        svg.tip(area, f"trial {edit.trial} · {state}\n{words}\n{edit.subject}")
        svg.add(
            root, "text", str(edit.trial), cls="tick", x=(left + right) / 2, y=box.bottom + 15, text_anchor="middle"
        )
    return svg.render(root)
