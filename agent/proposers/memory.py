"""What earlier sessions of the same target have tried: a page for a model, repeats to leave out, points for a search.

Everything comes from the ledgers of those runs. Results on the test split are not part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.llm.prompts import block, fill, one_line
from agent.types import Goal, Value, minimised

PAGE_LIMIT = 9000  # characters of the page in a prompt
MOST_FAILURES = 12  # lines about failures


@dataclass(frozen=True)
class PastAttempt:
    """One finished trial of an earlier session."""

    run: str  # tag
    trial: int
    subject: str
    category: str
    source: str
    decision: str
    status: str
    reason: str  # of a failure
    base: str = ""  # form of the program that it changed; "" if unknown
    form: str = ""  # form of the changed program; "" if unknown
    params: Mapping[str, Value] | None = None
    value: float | None = None  # mean over the runs on the validation split
    gain: float | None = None  # positive is better
    gain_se: float | None = None
    replayed: float | None = None  # gain in the latest replay that measured it
    replayed_se: float | None = None
    same_budget: bool = True  # as the present run


@dataclass(frozen=True)
class Memory:
    """The trials of earlier sessions, oldest session first."""

    runs: tuple[str, ...] = ()
    attempts: tuple[PastAttempt, ...] = ()
    baselines: Mapping[str, float] | None = None  # mean value of the unchanged target by run
    points: bool = False  # whether search methods start from the points

    def repeat(self, base: str, form: str) -> PastAttempt | None:
        """The attempt that measured this change of this program under this budget, and was not kept.

        A kept edit may be measured again: the branch of the present run does not hold it.
        """
        found = (a for a in self.attempts if a.form == form and a.base == base and a.same_budget and base and form)
        return next((attempt for attempt in found if attempt.decision != "keep"), None)

    def page(self, present: str) -> str:
        """The page for the prompt; "" without attempts. ``present``: form of the present program."""
        if not self.attempts:
            return ""
        kept = [a for a in reversed(self.attempts) if a.decision == "keep"]
        lost = sorted((a for a in self.attempts if a.status == "ok" and a.decision != "keep"), key=_effect)
        again = [a for a in lost if _worth_another_look(a, present)]
        reverted = [a for a in lost if not _worth_another_look(a, present)]
        failed = [a for a in self.attempts if a.status != "ok"][-MOST_FAILURES:]
        parts = {
            "Kept there": kept,
            "Nearly kept there, on another program than the present one; may be worth another look": again,
            "Reverted there": reverted,
            "Failed there": failed,
        }
        lines = [line for title, found in parts.items() if found for line in (f"{title}:", *map(_line, found))]
        text = "\n".join(lines)
        if len(text) > PAGE_LIMIT:
            text = text[:PAGE_LIMIT].rsplit("\n", 1)[0] + "\n[more attempts are left out]"
        runs = ", ".join(one_line(run, 64) for run in self.runs)
        return fill("memory", runs=runs, page=block(text, "text"))

    def points_for(
        self, start: float | None, goal: Goal, form_of: Callable[[Mapping[str, Value]], str]
    ) -> list[tuple[PastAttempt, float | None]]:
        """Points of earlier sessions with their values for this session, to be minimised.

        Values are moved by the difference between the baselines, since machines differ between nights.

        Args:
            start: mean value of the present baseline.
            goal: of the metric.
            form_of: the form of the program that a point gives with the present file; "" if it gives none.
        """
        found: list[tuple[PastAttempt, float | None]] = []
        for attempt in self.attempts:
            before = (self.baselines or {}).get(attempt.run)
            if not self.points or attempt.params is None or not attempt.form or not attempt.same_budget:
                continue
            if form_of(attempt.params) != attempt.form:
                continue
            if attempt.value is None or attempt.status != "ok":
                found.append((attempt, None))
            elif start is not None and before is not None:
                found.append((attempt, minimised(attempt.value - before + start, goal)))
        return found


def _worth_another_look(attempt: PastAttempt, present: str) -> bool:
    """Within one standard error of a gain, on a program that is known not to be the present one."""
    if attempt.gain is None or attempt.gain_se is None:
        return False
    return attempt.gain + attempt.gain_se > 0 and attempt.base not in ("", present)


def _effect(attempt: PastAttempt) -> float:
    return -(attempt.gain if attempt.gain is not None else float("-inf"))


def effect_of(attempt: PastAttempt) -> str:
    """``gain +0.0210 ± 0.0040, in replay +0.0190 ± 0.0050``, or the failure and its reason."""
    if attempt.status != "ok":
        return f"{attempt.status.replace('_', ' ')}: {one_line(attempt.reason, 160)}"
    words = [f"gain {_with_error(attempt.gain, attempt.gain_se)}"] if attempt.gain is not None else ["no gain known"]
    if attempt.replayed is not None:
        words.append(f"in replay {_with_error(attempt.replayed, attempt.replayed_se)}")
    return ", ".join(words) + ("" if attempt.same_budget else " (another budget)")


def _with_error(value: float | None, error: float | None) -> str:
    return f"{value:+.4f} ± {error:.4f}" if error is not None else f"{value:+.4f}"


def _line(attempt: PastAttempt) -> str:
    category = f" [{one_line(attempt.category, 30)}]" if attempt.category else ""
    subject = one_line(attempt.subject or "no subject", 100)
    return f"- {one_line(attempt.run, 40)} #{attempt.trial}{category} {subject}: {effect_of(attempt)}"
