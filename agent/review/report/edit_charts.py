"""The runs of edits: beside those of the commit below, one line for each seed; and which edits each run carried."""

from __future__ import annotations

from collections.abc import Sequence

from agent import text
from agent.review.data.branch import padded
from agent.review.data.edit_runs import StackedEdit, seed_pairs_of
from agent.review.data.night import Night
from agent.review.report import svg

SLOT = 34  # least width of an edit's pairs, in pixels
ROW, LEFT = 11, 44  # height of a row, and width of the trial numbers
MOST_ROWS = 80  # the latest edits


def pair_chart(night: Night, width: int = 960, height: int = 260) -> str:
    """Draw the pairs of the latest kept and undecided edits; "" if there are none."""
    edits = seed_pairs_of(night.state)[-int((width - 72) // SLOT) :]
    if not edits:
        return ""
    metric, lower = text.line(night.summary.metric), night.summary.goal != "maximize"
    values = [value for edit in edits for pair in edit.pairs for value in pair]
    plot = svg.plot(
        (width, height), f"{metric} before and after each edit, one line per seed", "chart pairs",
        (0, len(edits)), padded(min(values), max(values)), levels=5, titles=(f"{metric}: commit below → edit", ""),
    )  # fmt: skip
    root, box, y = plot.root, plot.box, plot.y
    for place, edit in enumerate(edits):
        left, middle, right = (plot.x(place + share) for share in (0.22, 0.5, 0.78))
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
        svg.add(root, "text", str(edit.trial), cls="tick", x=middle, y=box.bottom + 15, text_anchor="middle")
    return svg.render(root)


def stacked_chart(edits: Sequence[StackedEdit], width: int = 960) -> str:
    """Draw a column for each run and a row for each edit; "" without stacked runs."""
    shown = edits[-MOST_ROWS:]
    columns = 1 + max((run for edit in edits for run in edit.runs), default=-1)
    if not shown or not columns:
        return ""
    slot = min(16.0, (width - LEFT) / columns)
    root = svg.canvas(width, ROW * len(shown) + 4, "edits that each run carried", "chart carried")
    for at, edit in enumerate(shown):
        row = svg.add(root, "g", cls=f"stacked-{'likely' if edit.standing == 'undecided' else edit.standing}")
        svg.add(row, "text", str(edit.weight.trial), cls="tick", x=LEFT - 6, y=ROW * at + ROW - 1, text_anchor="end")
        for run in edit.runs:
            gap = 1 if slot > 4 else 0
            svg.add(row, "rect", x=LEFT + run * slot, y=ROW * at + 2, width=slot - gap, height=ROW - 2)
        svg.tip(row, f"trial {edit.weight.trial}, {edit.standing}: {text.line(edit.subject, 80)}")
    return svg.render(root)
