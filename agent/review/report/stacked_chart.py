"""Which edits each run of a stacked session carried."""

from __future__ import annotations

from collections.abc import Sequence

from agent import text
from agent.review.data.stacked import StackedEdit
from agent.review.report import svg

ROW, LEFT = 11, 44  # height of a row, and width of the trial numbers
MOST_ROWS = 80  # the latest edits


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
        svg.add(row, "text", str(edit.trial), cls="tick", x=LEFT - 6, y=ROW * at + ROW - 1, text_anchor="end")
        for run in edit.runs:
            gap = 1 if slot > 4 else 0
            svg.add(row, "rect", x=LEFT + run * slot, y=ROW * at + 2, width=slot - gap, height=ROW - 2)
        svg.tip(row, f"trial {edit.trial}, {edit.standing}: {text.line(edit.subject, 80)}")
    return svg.render(root)
