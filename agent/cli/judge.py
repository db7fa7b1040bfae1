"""``overnight judge FILE.tsv``: applies an acceptance policy to a published list of attempts.

The list is a results.tsv in autoresearch format: one training run per row, a failed run as 0.000000. The noise is not
in the file, so ``--noise-sd`` is required. A policy that wants a second run leaves a row undecided.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from agent.cli.output import show
from agent.errors import UsageError
from agent.judge.noise import Noise
from agent.judge.policy import CLEAR, History, MeasureNext, Policy, policy_from
from agent.judge.policy import judge as judge_history
from agent.rundir.results import Row, read_tsv
from agent.text import clean
from agent.types import Measurement

KNOWN = 1_000_000  # degrees of freedom of a noise that is given, not estimated


def judge(file: Path, noise_sd: float, policy: str, json: bool) -> None:
    if not 0 <= noise_sd < math.inf:
        raise UsageError(f"--noise-sd {noise_sd}: must be a finite number, 0 or more.")
    rows = judge_published(read_tsv(file), noise_sd, policy_from(policy))
    show(json, rows, list, lambda found: published_table(found, noise_sd))


def judge_published(rows: Sequence[Row], noise_sd: float, policy: Policy) -> list[dict[str, Any]]:
    """One dict per row: version, row (line number), commit, value, published, decision, answer, gain, over, reason,
    description.

    ``decision`` is keep, revert or undecided, by the policy. ``answer`` is clear, worth a second run, within the noise,
    not better, baseline or failed, by the gain in standard errors. The first row with a value is the baseline. Later
    rows are compared with the row ``over``: the last that the policy keeps, or leaves undecided and the publisher kept.
    """
    best: Row | None = None
    found = []
    for row in rows:
        decision, answer, gain, over, reason = "revert", "failed", None, None, "the run failed"
        if row.value is not None and best is None:
            best, decision, answer, reason = row, "keep", "baseline", "baseline"
        elif row.value is not None and best is not None and best.value is not None:
            gain, over = best.value - row.value, best.line
            answer = _answer(gain, noise_sd)
            decision, reason = _decide(best, row, gain, noise_sd, policy)
            if decision == "keep" or (decision == "undecided" and row.status == "keep"):
                best = row
        found.append(
            {"version": 1, "row": row.line, "commit": row.commit, "value": row.value, "published": row.status,
             "decision": decision, "answer": answer, "gain": gain, "over": over, "reason": reason,
             "description": row.description}
        )  # fmt: skip
    return found


def _answer(gain: float, noise_sd: float) -> str:
    """What one run on each side says of a gain."""
    error = noise_sd * math.sqrt(2)
    if gain <= 0:
        return "not better"
    return "clear" if gain > CLEAR * error else "worth a second run" if gain > error else "within the noise"


def _decide(best: Row, row: Row, gain: float, noise_sd: float, policy: Policy) -> tuple[str, str]:
    """The decision of the policy after one run on each side, and its reason."""
    before, now = (
        (Measurement(r.commit, "screen", 0, "", "ok", r.value, peak_memory_gb=r.memory_gb),) for r in (best, row)
    )
    verdict = judge_history(History("minimize", "best", "new", before, now, Noise(noise_sd, KNOWN)), policy)
    if not isinstance(verdict, MeasureNext):
        return verdict.decision, verdict.reason
    if gain <= 0:
        return "undecided", "not better in one run, which decides nothing"
    return "undecided", f"one run cannot decide: {verdict.reason}"


def published_table(rows: Sequence[dict[str, Any]], noise_sd: float) -> Table:
    """The rows that the publisher or the policy kept, the answer for each, and how many published keeps stand."""
    kept = Counter(row["answer"] for row in rows if row["published"] == "keep" and row["answer"] != "baseline")
    names = ("clear", "worth a second run", "within the noise", "not better")
    error = noise_sd * math.sqrt(2)
    caption = (
        f"of {kept.total()} published keeps: {', '.join(f'{kept[name]} {name}' for name in names)}\n"
        f"gain: over the row in column over, which was the best so far. One run on each side has a standard error of "
        f"{error:.4g} (noise × √2); clear is a gain above {CLEAR:g} of them, {CLEAR * error:.4g}.\n"
        f"A row is kept for a good run, so its value is optimistic: a gain over it is understated on average."
    )
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for title in ("row", "published", "answer", "value", "gain", "over", "description", "why"):
        table.add_column(title, justify="right" if title in ("row", "value", "gain", "over") else "left")
    for row in rows:
        if row["published"] == "keep" or row["decision"] != "revert":
            gain = "" if row["gain"] is None else f"{row['gain']:+.4f}"
            value = "" if row["value"] is None else f"{row['value']:.4f}"
            over = "" if row["over"] is None else str(row["over"])
            cells = (row["published"], row["answer"], value, gain, over, row["description"][:60], row["reason"])
            table.add_row(str(row["row"]), *(Text(clean(cell)) for cell in cells))
    return table
