"""progress.png, the progress chart as a bitmap. Only this module loads matplotlib."""

from __future__ import annotations

import io
from pathlib import Path

from agent import text
from agent.files import replace_file
from agent.review.data.branch import reached_at
from agent.review.data.night import Night

KEEP, REVERT, FAIL = "#0b62a4", "#a8a7a1", "#c4500a"  # distinguishable with every kind of colour vision


def draw_progress(night: Night, path: Path) -> None:
    """Write the progress chart.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.12, 0.89, 0.76))  # a layout engine would draw everything twice
    summary, steps = night.summary, night.steps
    low, high = night.value_range
    last = max(summary.trials, 1)
    if steps:
        trials: list[float] = [*reached_at(steps), last + 0.6]
        values = [*(step.value for step in steps), steps[-1].value]
        if summary.noise_sd:
            reach = 2 * summary.noise_sd
            axes.fill_between(trials, [v - reach for v in values], [v + reach for v in values], step="post", color=KEEP,
                              alpha=0.12, linewidth=0, label="±2 sd of one run")  # fmt: skip
        axes.step(trials, values, where="post", color=KEEP, linewidth=1.8)
    reverted = [attempt for attempt in night.attempts if attempt.decision != "keep"]
    dots = [(a.trial, min(high, max(low, a.value))) for a in reverted if a.value is not None]
    if dots:
        label = f"reverted ({summary.reverted})"
        x, y = np.array(dots).T  # an array is much faster here than a list
        axes.scatter(x, y, s=16, color=REVERT, label=label)
    if len(steps) > 1:
        x, y = np.array([(step.trial, step.value) for step in steps[1:]]).T
        axes.scatter(x, y, s=36, color=KEEP, zorder=3, label=f"kept ({summary.kept})")
    bottom = low + 0.02 * (high - low)
    crosses = [(attempt.trial, bottom) for attempt in night.attempts if attempt.record.failed]
    if crosses:
        x, y = np.array(crosses).T
        axes.scatter(x, y, s=22, marker="x", color=FAIL, label=f"failed ({summary.failed})")
    axes.set_ylim(low, high)
    axes.set_xlim(-0.6, last + 0.6)
    axes.set_xlabel("trial")
    star = text.STAR if summary.self_reported else ""
    axes.set_ylabel(_plain(f"{summary.metric}{star} ({text.better(summary.goal)})"))
    gained = text.gain(summary.gain, summary.gain_se) if summary.kept else "nothing kept"
    axes.set_title(_plain(f"{night.tag}: {gained}"), loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper right", bbox_to_anchor=(1, 1.1))
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    replace_file(path, picture.getvalue())


def _plain(words: str) -> str:
    return text.line(words).replace("$", "\\$")  # matplotlib reads text between dollars as mathematics
