"""``overnight judge FILE.tsv``: applies an acceptance policy to a published list of attempts.

The list is a results.tsv in autoresearch format: one training run per row, a failed run as 0.000000. The noise is not
in the file, so ``--noise-sd`` is required. A policy that wants a second run leaves a row undecided.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.options import Commands, add_command
from agent.cli.output import show
from agent.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from agent.judge.policy import Policy
    from agent.rundir.results import Row

KNOWN = 1_000_000  # degrees of freedom of a noise that is given, not estimated


def add(commands: Commands) -> None:
    parser = add_command(commands, "judge", judge, "json")
    parser.add_argument("file", type=Path, metavar="FILE.tsv")
    parser.add_argument("--noise-sd", type=float, required=True, help="standard deviation between runs of one commit")
    parser.add_argument("--policy", default="confirm", help="confirm, margin or greedy (default: confirm)")


def judge(file: Path, noise_sd: float, policy: str, json: bool) -> int:
    """Apply an acceptance policy to the keeps of a published results.tsv."""
    from agent.judge.policy import policy_from
    from agent.rundir.results import read_tsv

    if not 0 <= noise_sd < math.inf:
        raise UsageError(f"--noise-sd {noise_sd}: must be a finite number, 0 or more.")
    rows = judge_published(read_tsv(file), noise_sd, policy_from(policy))
    return show(json, lambda: rows, lambda: published_table(rows))


def judge_published(rows: Sequence[Row], noise_sd: float, policy: Policy) -> list[dict[str, Any]]:
    """One dict per row: version, row (line number), commit, value, published, decision, gain, reason, description.

    ``decision`` is keep, revert or undecided. The first row with a value is the baseline. Later rows are compared with
    the last row that the policy keeps, or that it leaves undecided and the publisher kept.
    """
    best: Row | None = None
    found = []
    for row in rows:
        decision, gain, reason = "revert", None, "the run failed"
        if row.value is not None and best is None:
            best, decision, reason = row, "keep", "baseline"
        elif row.value is not None and best is not None:
            decision, gain, reason = _decide(best, row, noise_sd, policy)
            if decision == "keep" or (decision == "undecided" and row.status == "keep"):
                best = row
        published = {"version": 1, "row": row.line, "commit": row.commit, "value": row.value, "published": row.status}
        decided = {"decision": decision, "gain": gain, "reason": reason, "description": row.description}
        found.append({**published, **decided})
    return found


def _decide(best: Row, row: Row, noise_sd: float, policy: Policy) -> tuple[str, float | None, str]:
    from agent.judge.noise import Noise
    from agent.judge.policy import History, MeasureNext
    from agent.judge.policy import judge as judge_history
    from agent.types import Measurement

    before, now = (
        (Measurement(r.commit, "screen", 0, "", "ok", r.value, peak_memory_gb=r.memory_gb),) for r in (best, row)
    )
    verdict = judge_history(History("minimize", "best", "new", before, now, Noise(noise_sd, KNOWN)), policy)
    gain = (best.value or 0.0) - (row.value or 0.0)
    if isinstance(verdict, MeasureNext):
        return "undecided", gain, f"one run cannot decide: {verdict.reason}"
    return verdict.decision, gain, verdict.reason


def published_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows that the publisher or the policy kept, and how many published keeps stand."""
    from rich.table import Table
    from rich.text import Text

    from agent.text import plain

    kept = Counter(row["decision"] for row in rows if row["published"] == "keep" and row["reason"] != "baseline")
    caption = (
        f"of {kept.total()} published keeps, {kept['keep']} stand, {kept['revert']} do not, "
        f"{kept['undecided']} cannot be decided from one run"
    )
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for title in ("row", "published", "here", "value", "gain", "description", "why"):
        table.add_column(title, justify="right" if title in ("row", "value", "gain") else "left")
    for row in rows:
        if row["published"] == "keep" or row["decision"] != "revert":
            gain = "" if row["gain"] is None else f"{row['gain']:+.4f}"
            value = "" if row["value"] is None else f"{row['value']:.4f}"
            cells = (row["published"], row["decision"], value, gain, row["description"][:60], row["reason"])
            table.add_row(str(row["row"]), *(Text(plain(cell)) for cell in cells))
    return table
