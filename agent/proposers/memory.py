"""What earlier sessions of the same target have tried: a page for a model, repeats to leave out, points for a search.

Everything comes from the ledgers of those runs. Results on the test split are not part of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.llm.prompts import block, fill, one_line, title
from agent.text import gain
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
        """The trial that measured this change of this program under this budget, and was not kept.

        A kept edit may be measured again: the branch of the present session does not hold it.
        """
        found = (past for past in self.attempts if past.form == form and past.base == base and past.same_budget)
        return next((past for past in found if past.decision != "keep" and base and form), None)

    def page(self, present: str) -> str:
        """The page for the prompt; "" without trials. ``present``: form of the present program."""
        if not self.attempts:
            return ""
        lost = [past for past in self.attempts if past.status == "ok" and past.decision != "keep"]
        lost.sort(key=lambda past: math.inf if past.gain is None else -past.gain)
        parts = {
            "Kept there": [past for past in reversed(self.attempts) if past.decision == "keep"],
            "Nearly kept there, on another program than the present one; may be worth another look": [
                past for past in lost if _worth_another_look(past, present)
            ],
            "Reverted there": [past for past in lost if not _worth_another_look(past, present)],
            "Failed there": [past for past in self.attempts if past.status != "ok"][-MOST_FAILURES:],
        }
        text = "\n".join(line for name, found in parts.items() if found for line in (f"{name}:", *map(_line, found)))
        if len(text) > PAGE_LIMIT:
            text = text[:PAGE_LIMIT].rsplit("\n", 1)[0] + "\n[more trials are left out]"
        runs = ", ".join(one_line(run, 64) for run in self.runs)
        return fill("memory", runs=runs, page=block(text, "text"))

    def points_for(
        self, start: float | None, goal: Goal, form_of: Callable[[Mapping[str, Value]], str]
    ) -> list[tuple[PastAttempt, float | None]]:
        """Points of earlier sessions with their values for this session, to be minimised.

        Values are moved by the difference from ``start``, the mean value of the present baseline, since machines differ
        between nights. ``form_of``: the form of the program that a point gives with the present file; "" if none.
        """
        found: list[tuple[PastAttempt, float | None]] = []
        for past in self.attempts if self.points else ():
            before = (self.baselines or {}).get(past.run)
            if past.params is None or not past.form or not past.same_budget or form_of(past.params) != past.form:
                continue
            if past.value is None or past.status != "ok":
                found.append((past, None))
            elif start is not None and before is not None:
                found.append((past, minimised(past.value - before + start, goal)))
        return found


def _worth_another_look(past: PastAttempt, present: str) -> bool:
    """Within one standard error of a gain, on a program that is known not to be the present one."""
    known = past.gain is not None and past.gain_se is not None and past.gain + past.gain_se > 0
    return known and past.base not in ("", present)


def effect_of(past: PastAttempt) -> str:
    """``gain +0.0210 ± 0.0040, in replay +0.0190 ± 0.0050``, or the failure and its reason."""
    if past.status != "ok":
        return f"{past.status.replace('_', ' ')}: {one_line(past.reason, 160)}"
    words = "no gain known" if past.gain is None else f"gain {gain(past.gain, past.gain_se)}"
    words += "" if past.replayed is None else f", in replay {gain(past.replayed, past.replayed_se)}"
    return words + ("" if past.same_budget else " (another budget)")


def _line(past: PastAttempt) -> str:
    return f"- {one_line(past.run, 40)} #{past.trial} {title(past.category, past.subject)}: {effect_of(past)}"
