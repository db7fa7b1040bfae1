"""progress.png, for those who paste pictures. Needs matplotlib, which is loaded here and nowhere else."""

from __future__ import annotations

from pathlib import Path

from agent import text
from agent.ledger.state import State
from agent.review.data.summary import Summary
from agent.review.report.charts import focus, staircase

KEEP, REVERT, FAIL = "#0b62a4", "#a8a7a1", "#c4500a"  # told apart by people of every colour vision


def draw_progress(state: State, summary: Summary, path: Path) -> None:
    """Write the progress chart.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.12, 0.89, 0.76))  # by hand: a layout engine draws everything once more
    low, high = focus(state, summary)
    steps = staircase(state)
    last = max(summary.trials, 1)
    if steps:
        trials: list[float] = [*(trial for trial, _ in steps), last + 0.6]
        values = [*(value for _, value in steps), steps[-1][1]]
        if summary.noise_sd:
            reach = 2 * summary.noise_sd
            axes.fill_between(trials, [v - reach for v in values], [v + reach for v in values], step="post", color=KEEP,
                              alpha=0.12, linewidth=0, label="±2 sd of one run")  # fmt: skip
        axes.step(trials, values, where="post", color=KEEP, linewidth=1.8)
    reverted = [(r.number, r.verdict.value) for r in state.finished if r.decision != "keep" and r.verdict]
    dots = [(n, min(high, max(low, v))) for n, v in reverted if v is not None]
    if dots:
        label = f"no better ({summary.reverted})"
        x, y = np.array(dots).T  # of a list, scatter() looks at each number by itself
        axes.scatter(x, y, s=16, color=REVERT, label=label)
    if len(steps) > 1:
        x, y = np.array(steps[1:]).T
        axes.scatter(x, y, s=36, color=KEEP, zorder=3, label=f"kept ({summary.kept})")
    bottom = low + 0.02 * (high - low)
    crosses = [(r.number, bottom) for r in state.finished if r.status != "ok"]
    if crosses:
        x, y = np.array(crosses).T
        axes.scatter(x, y, s=22, marker="x", color=FAIL, label=f"failed ({summary.failed})")
    axes.set_ylim(low, high)
    axes.set_xlim(-0.6, last + 0.6)
    axes.set_xlabel("trial")
    better = "higher" if summary.goal == "maximize" else "lower"
    axes.set_ylabel(_plain(f"{summary.metric}{text.STAR if summary.self_reported else ''} ({better} is better)"))
    gained = text.gain(summary.gain, summary.gain_se) if summary.kept else "nothing kept"
    axes.set_title(_plain(f"{summary.tag}: {gained}"), loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper right", bbox_to_anchor=(1, 1.1))
    scratch = path.with_name(f".{path.name}.new")
    figure.savefig(scratch, format="png")
    scratch.replace(path)


def _plain(words: str) -> str:
    return text.line(words).replace("$", "\\$")  # a pair of dollars would be set as mathematics
