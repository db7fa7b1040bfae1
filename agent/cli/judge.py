"""Which keeps of a published list of attempts would have stood.

A list is a results.tsv as autoresearch writes it: commit, val_bpb, memory_gb, status, description, one training run a
row, a failed run as 0.000000. The noise is not in it and has to be given. Where a policy wants a second run, one run
decides nothing, and that is what is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.output import show
from agent.errors import UsageError
from agent.judge.noise import Noise
from agent.judge.policy import History, MeasureNext, Policy, policy_from
from agent.judge.policy import judge as verdict_on
from agent.rundir.results import Row, read_tsv
from agent.types import Measurement

if TYPE_CHECKING:
    from rich.table import Table
KNOWN = 1_000_000  # degrees of freedom of a noise that is given and not estimated


def judge_published(rows: Sequence[Row], noise_sd: float, policy: Policy) -> list[dict[str, Any]]:
    """A dict for each row: version (1), row (its line), commit, value, published, decision, gain, reason, description.

    ``decision`` is keep, revert or undecided; the first run that worked is the baseline. What the policy would have
    kept is what later rows are compared with, and so is what it could not decide: its publisher went on from there.
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
        found.append(
            {
                "version": 1,
                "row": row.line,
                "commit": row.commit,
                "value": row.value,
                "published": row.status,
                "decision": decision,
                "gain": gain,
                "reason": reason,
                "description": row.description,
            }
        )
    return found


def _decide(best: Row, row: Row, noise_sd: float, policy: Policy) -> tuple[str, float | None, str]:
    history = History(
        "minimize", "best", "new", (_run(best),), (_run(row),), Noise(noise_sd, KNOWN), simpler_by=0
    )  # fmt: skip
    verdict = verdict_on(history, policy)
    gain = (best.value or 0.0) - (row.value or 0.0)
    if isinstance(verdict, MeasureNext):
        return "undecided", gain, f"not decidable from one run: {verdict.reason}"
    return verdict.decision, gain, verdict.reason


def _run(row: Row) -> Measurement:
    return Measurement(row.commit, "screen", 0, "", "ok", row.value, peak_memory_gb=row.memory_gb)


def published_table(rows: Iterable[dict[str, Any]]) -> Table:
    """The rows that were kept, by their publisher or by the policy, and how many of the former stand."""
    from rich.table import Table
    from rich.text import Text

    from agent.text import plain

    rows = list(rows)
    kept = [row for row in rows if row["published"] == "keep" and row["reason"] != "baseline"]
    counts = {name: sum(row["decision"] == name for row in kept) for name in ("keep", "revert", "undecided")}
    table = Table(
        box=None,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
        caption=f"of {len(kept)} published keeps, {counts['keep']} stand, {counts['revert']} do not, "
        f"{counts['undecided']} cannot be decided from one run",
    )
    for title in ("row", "published", "here", "value", "gain", "description", "why"):
        table.add_column(title, justify="right" if title in ("row", "value", "gain") else "left")
    for row in rows:
        if row["published"] == "keep" or row["decision"] != "revert":
            gain = "" if row["gain"] is None else f"{row['gain']:+.4f}"
            value = "" if row["value"] is None else f"{row['value']:.4f}"
            words = (
                str(row["row"]),
                row["published"],
                row["decision"],
                value,
                gain,
                row["description"][:60],
                row["reason"],
            )
            table.add_row(*(Text(plain(word)) for word in words))
    return table


def judge(file: Path, noise_sd: float, policy: str, json: bool) -> int:

    if not 0 <= noise_sd < math.inf:
        raise UsageError(f"--noise-sd {noise_sd}: must be a finite number, and cannot be negative.")
    rows = judge_published(read_tsv(file), noise_sd, policy_from(policy))
    return show(json, lambda: rows, lambda: published_table(rows))
