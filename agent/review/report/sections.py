"""The sentences of the report and the rows of its tables, as text for the template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent import text
from agent.review.data.attempt import Details, failure_lines
from agent.review.data.attempts import Attempt
from agent.review.data.diffs import diff_lines, highlighted, size_of
from agent.review.data.night import Night
from agent.review.data.summary import Summary
from agent.review.report.charts import curve_chart

KINDS = {
    "crash": "ended with an error",
    "oom": "used more memory than allowed",
    "diverged": "the loss was not finite",
    "timeout": "passed its time limit and was killed",
    "over_budget": "trained longer than allowed",
    "invalid": "broke the rules of scoring",
    "patch_rejected": "the edit could not be applied",
    "duplicate": "the edit had been tried before",
    "no_effect": "the edit changes nothing",
    "model_failed": "the model gave no usable answer",
    "lost": "was never run",
}
TRANSFER = {
    "unsure": "One checkpoint of each was scored.",
    "full": "The gain holds on data that played no part in the search.",
    "partial": "Smaller than on validation: part of the gain overfits the validation split.",
    "none": "The gain does not hold: the search overfitted the validation split.",
}


def headline(summary: Summary) -> str:
    """The result of the night in one or two sentences."""
    tried = text.count(summary.trials, "attempt")
    if summary.baseline is None:
        return "The baseline has not been measured yet."
    metric, star = text.line(summary.metric), summary.self_reported
    start = text.number(summary.baseline.value, star)
    if not summary.trials:
        return f"No attempt has been judged yet. The baseline reaches {metric} {start}."
    if summary.failed == summary.trials:
        return f"Nothing was kept: {'the only attempt' if summary.trials == 1 else f'all {tried}'} failed."
    if summary.best is None or not summary.kept:
        return f"Nothing was kept: none of {tried} beat the baseline ({metric} {start}) by more than the noise."
    verb = "was" if summary.kept == 1 else "were"
    reached = text.number(summary.best.value, star)
    edits = text.count(summary.trials, "edit")
    return f"{summary.kept} of {edits} {verb} kept. {metric} went from {start} to {reached}."


def how_sure(summary: Summary) -> str:
    """The confidence interval of the gain and the runs behind it."""
    if summary.gain is None or summary.baseline is None or summary.best is None:
        if summary.noise_sd is None:
            return "The noise is unknown: no commit has two values."
        return f"Standard deviation between runs: {summary.noise_sd:.2g}."
    runs = f"{text.count(summary.baseline.n, 'run')} of the baseline, {summary.best.n} of the result"
    if summary.gain_interval is None:
        return f"{runs}. No confidence interval: no commit has two values."
    low, high = (text.gain(end) for end in summary.gain_interval)
    return (
        f"95 % confidence interval {low} to {high}, from {runs}; standard deviation between runs "
        f"{summary.noise_sd or 0.0:.2g}."
    )


def carries_over(summary: Summary) -> str:
    """Whether the gain holds on the test split."""
    if summary.transfer == "unknown" and summary.self_reported:
        return "The target reports its own value, so there is no test split."
    return TRANSFER.get(summary.transfer, "The test split is scored for the baseline and for kept edits.")


def kept_rows(kept: Sequence[Details], diff_limit: int) -> list[dict[str, Any]]:
    """One entry for each kept edit, in order."""
    return [
        {
            **(row := _common(details.attempt, diff_limit)),
            "diff": highlighted(row["diff"]),
            "curve": curve_chart(details.curve, details.parent_curve) if details.curve else "",
        }
        for details in kept
    ]


def attempt_rows(attempts: Sequence[Attempt], run_dir: Path, diff_limit: int) -> list[dict[str, Any]]:
    """One entry for each attempt, in order, without the diffs of kept edits, which have a section of their own."""
    return [
        {
            **(row := _common(attempt, 0 if attempt.decision == "keep" else diff_limit)),
            "diff": [(kind, [("", words)]) for kind, words in row["diff"]],  # not highlighted: there may be thousands
            "failure": failure_lines(attempt.record, run_dir) if diff_limit else [],
            "why_not": text.line(attempt.reason, 300) if attempt.status != "ok" else "",
        }
        for attempt in attempts
    ]


def _common(attempt: Attempt, diff_limit: int) -> dict[str, Any]:
    verdict, proposal = attempt.record.verdict, attempt.record.proposal
    added, removed = size_of(proposal.diff)
    lines = diff_lines(proposal.diff[:diff_limit])
    if len(proposal.diff) > diff_limit > 0:
        lines.append(("hunk", "… the whole diff is in the run directory"))
    return {
        "trial": attempt.trial,
        "outcome": attempt.outcome,
        "value": attempt.value,
        "gain": attempt.gain,
        "runs": attempt.runs,
        "seconds": attempt.seconds,
        "subject": attempt.subject,
        "category": attempt.category,
        "source": attempt.source,
        "commit": attempt.commit,
        "accepted": attempt.accepted,
        "value_words": text.number(attempt.value, attempt.self_reported),
        "gain_words": text.gain(attempt.gain, attempt.gain_se),
        "before_words": text.number(attempt.best_before, attempt.self_reported),
        "cost_words": text.duration(attempt.seconds, brief=True) if attempt.runs else text.MISSING,
        "verdict": text.line(verdict.reason, 300) if verdict else "",
        "n": verdict.n if verdict else 0,
        "rationale": text.clean(proposal.rationale).strip()[:4000] if diff_limit else "",
        "diff": lines,
        "added": added,
        "removed": removed,
    }


def failure_rows(night: Night) -> list[dict[str, Any]]:
    """One entry for each kind of failure, with the latest example."""
    return [
        {
            "kind": row.status.replace("_", " "),
            "meaning": KINDS.get(row.status, ""),
            "count": row.count,
            "share": round(100 * row.share),
            "example": text.line(row.latest.reason, 200),
            "trial": row.latest.trial,
        }
        for row in night.failures
    ]


def source_rows(night: Night) -> list[dict[str, Any]]:
    """One entry for each source of proposals."""
    return [
        {
            "source": text.line(row.source, 30),
            "trials": row.trials,
            "kept": row.kept,
            "rate": f"{100 * row.kept / row.trials:.0f} %",
            "failed": f"{row.failed} ({100 * row.failed / row.trials:.0f} %)",
            "gain": text.gain(row.gain) if row.kept else text.MISSING,
            "cost": text.duration(row.seconds),
        }
        for row in night.sources
    ]


def usage_rows(night: Night) -> list[tuple[str, str]]:
    """The name of the model, and its calls, tokens and seconds; [] if no model was used."""
    return [
        (name, amount if isinstance(amount, str) else text.duration(amount) if name == "seconds" else f"{amount:,.0f}")
        for name, amount in night.usage.items()
    ]
