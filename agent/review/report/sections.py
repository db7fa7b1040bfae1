"""What the report says: its sentences and the rows of its tables, from the state of a night."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent import text
from agent.curves import Point, curve_of
from agent.judge.noise import t_quantile
from agent.ledger.events import fields_of
from agent.ledger.state import State
from agent.review.data.attempt import parent_runs
from agent.review.data.attempts import attempt_json, reason
from agent.review.data.diffs import diff_lines, highlighted, size_of
from agent.review.data.failures import failure_lines
from agent.review.data.summary import Summary, cost
from agent.review.report.charts import curve_chart
from agent.types import Record

KINDS = {
    "crash": "ended with an error",
    "oom": "used more memory than allowed",
    "diverged": "the loss was not finite",
    "timeout": "was killed when its time was over",
    "over_budget": "trained longer than allowed",
    "invalid": "broke the rules of scoring",
    "patch_rejected": "the edit could not be applied",
    "duplicate": "an edit that had been tried",
    "no_effect": "an edit that changes nothing",
    "model_failed": "the model gave no usable answer",
    "lost": "was never run",
}


def headline(summary: Summary) -> str:
    """What came of the night, in one or two sentences."""
    tried = text.count(summary.trials, "attempt")
    if summary.baseline is None:
        return "The baseline has not been measured yet."
    metric, star = text.line(summary.metric), summary.self_reported
    start = text.number(summary.baseline.value, star)
    if not summary.trials:
        return f"No attempt has been judged yet. The baseline stands at {metric} {start}."
    if summary.failed == summary.trials:
        return f"Nothing was kept: {'the only attempt' if summary.trials == 1 else f'all {tried}'} failed."
    if summary.best is None or not summary.kept:
        return f"Nothing was kept: none of {tried} beat the baseline ({metric} {start}) by more than the noise allows."
    verb = "was" if summary.kept == 1 else "were"
    reached = text.number(summary.best.value, star)
    edits = text.count(summary.trials, "edit")
    return f"{summary.kept} of {edits} {verb} kept. {metric} went from {start} to {reached}."


def how_sure(summary: Summary) -> str:
    """The interval of the gain, and what it rests on."""
    if summary.gain is None or summary.baseline is None or summary.best is None:
        if summary.noise_sd is None:
            return "How much one run differs from the next is unknown: nothing was measured twice."
        return f"One run differs from the next by sd {summary.noise_sd:.2g}."
    runs = f"{text.count(summary.baseline.n, 'run')} of the baseline, {summary.best.n} of the result"
    if summary.gain_se is None:
        return f"{runs}. How sure this is nobody can tell: no commit was measured twice."
    reach = t_quantile(0.975, summary.noise_dof) * summary.gain_se
    low, high = text.gain(summary.gain - reach), text.gain(summary.gain + reach)
    return f"95 % interval {low} to {high}, from {runs}; between runs sd {summary.noise_sd or 0.0:.2g}."


def carries_over(summary: Summary) -> str:
    """Whether the gain holds on the split that steered nothing."""
    if summary.test_gain is None or summary.gain is None:
        if summary.self_reported:
            return "The target reports its own value, so there is no test split."
        return "The test split is scored for the baseline and for kept edits."
    shrunk = summary.gain - summary.test_gain
    if summary.test_gain_se is None:
        return "One checkpoint of each was scored."
    doubt = 2 * math.hypot(summary.gain_se or 0.0, summary.test_gain_se)
    if summary.test_gain <= 0:
        return "The gain does not carry over: the night fitted its validation split."
    if shrunk > max(doubt, 0.1 * summary.gain):
        return "Less than on validation: part of the gain fits the validation split alone."
    return "The gain carries over to text that steered nothing."


def kept_rows(state: State, run_dir: Path, diff_limit: int) -> list[dict[str, Any]]:
    """One entry for each kept edit, in order."""
    curves: dict[str, list[Point]] = {}

    def curve(key: str, runs: Any) -> list[Point]:
        if key not in curves:
            curves[key] = curve_of(run_dir, runs)
        return curves[key]

    rows = []
    for record in state.kept:
        own = curve(record.accepted or f"trial {record.number}", record.runs)
        parent = curve(record.parent, parent_runs(record, state))
        row = _common(record, diff_limit)
        rows.append({**row, "diff": highlighted(row["diff"]), "curve": curve_chart(own, parent) if own else ""})
    return rows


def attempt_rows(state: State, run_dir: Path, diff_limit: int, latest: int) -> list[dict[str, Any]]:
    """One entry for each of the latest finished attempts, in order. The edits of kept ones have their own section."""
    return [
        {
            **(row := _common(record, 0 if record.decision == "keep" else diff_limit)),
            "diff": [(kind, [("", words)]) for kind, words in row["diff"]],  # plain: there may be thousands
            "failure": failure_lines(record, run_dir) if diff_limit else [],
            "why_not": text.line(reason(record), 300) if record.status != "ok" else "",
        }
        for record in state.finished[-latest:]
    ]


def _common(record: Record, diff_limit: int) -> dict[str, Any]:
    data, verdict, proposal = attempt_json(record), record.verdict, record.proposal
    reported = data["self_reported"]
    added, removed = size_of(proposal.diff)
    lines = diff_lines(proposal.diff[:diff_limit])
    if len(proposal.diff) > diff_limit > 0:
        lines.append(("hunk", "… the whole edit is in the run directory"))
    return {
        **data,
        "outcome": data["decision"] if data["status"] == "ok" else data["status"],
        "value_words": text.number(data["value"], reported),
        "gain_words": text.gain(data["gain"], data["gain_se"]),
        "before_words": text.number(data["best_before"], reported),
        "cost_words": text.duration(data["seconds"], brief=True) if data["runs"] else text.MISSING,
        "verdict": text.line(verdict.reason, 300) if verdict else "",
        "n": verdict.n if verdict else 0,
        "rationale": text.clean(proposal.rationale).strip()[:4000] if diff_limit else "",
        "model": proposal.model,
        "diff": lines,
        "added": added,
        "removed": removed,
    }


def failure_rows(state: State, summary: Summary) -> list[dict[str, Any]]:
    """One entry for each kind of failure, with the latest example."""
    most = max(summary.failures.values(), default=1)
    rows = []
    for kind, number in summary.failures.items():
        example = next(r for r in reversed(state.finished) if r.status == kind)
        rows.append(
            {
                "kind": kind.replace("_", " "),
                "meaning": KINDS.get(kind, ""),
                "count": number,
                "share": round(100 * number / most),
                "example": text.line(reason(example), 200),
                "trial": example.number,
            }
        )
    return rows


def source_rows(state: State) -> list[dict[str, Any]]:
    """What each source of proposals contributed."""
    groups: dict[str, list[Record]] = {}
    for record in state.finished:
        groups.setdefault(record.proposal.source or "unknown", []).append(record)
    rows = []
    for source, records in sorted(groups.items(), key=lambda item: -len(item[1])):
        kept = [r for r in records if r.decision == "keep"]
        failed = sum(1 for r in records if r.status != "ok")
        gained = sum(r.verdict.gain or 0.0 for r in kept if r.verdict)
        rows.append(
            {
                "source": text.line(source, 30),
                "trials": len(records),
                "kept": len(kept),
                "rate": f"{100 * len(kept) / len(records):.0f} %",
                "failed": f"{failed} ({100 * failed / len(records):.0f} %)",
                "gain": text.gain(gained) if kept else text.MISSING,
                "cost": text.duration(sum(cost(r) for r in records)),
            }
        )
    return rows


def usage_rows(state: State) -> list[tuple[str, str]]:
    """What the model was asked and answered, over the night; [] when no model was used."""
    total: dict[str, float] = {}
    for record in state.records:
        for name, amount in record.proposal.usage.items():
            if math.isfinite(amount):
                total[name] = total.get(name, 0.0) + amount
    asked = [r.proposal for r in state.records if r.proposal.usage]
    models = dict.fromkeys(text.line(proposal.model, 60) for proposal in asked if proposal.model)
    rows = [("model", ", ".join(models))] if models else []
    for name, amount in total.items():
        words = text.duration(amount) if name == "seconds" else f"{amount:,.0f}"
        rows.append((text.line(name.replace("_", " "), 40), words))
    return rows


def environment_tables(state: State, run: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything that run.toml and the session event tell about how this was made."""
    session = {k: v for k, v in fields_of(state.session).items() if k not in ("v", "event", "time")}
    if state.settings:
        run = {**run, "run": {**run.get("run", {}), **state.settings}}
    tables = [("session", list(_flat(session)))]
    single = [(k, v) for k, v in run.items() if not isinstance(v, Mapping)]
    for name, table in run.items():
        if isinstance(table, Mapping):
            tables.append((text.line(str(name), 40), list(_flat(table))))
    if single:
        tables.append(("made", list(_flat(dict(single)))))
    return [(name, rows) for name, rows in tables if rows]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif value not in (None, "", [], ()):
            yield text.line(name, 60), text.line(_words(value), 200)


def _words(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_words(item) for item in value)
    return str(value)
