"""The sequential test of the policy ``confirm``: keep, drop, or make the run that tells most.

An edit is kept once the probability that it is a gain reaches 90 % (97 % after a single run). It is dropped once the
gain that it still promises is smaller than 1.5 times what a new idea promises. Until then the next run is the one,
of the candidate or of the incumbent, that reduces the uncertainty of the gain most.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Literal, NamedTuple

from agent.judge.belief import Belief, Estimate

KEEP = 0.9  # probability of a gain that keeps an edit
KEEP_COSTLY = 0.99  # the same for an edit that needs much more memory
KEEP_AFTER_ONE = 0.97  # the same after one run, which edits that depend on their seed could pass by chance
MAX_RUNS = 8  # per trial, of candidate and incumbent together
NEW_IDEA = 1.5  # weight of a new idea against an open edit, which needs further runs until it is kept
WINDOW = 8  # seeds in use at a time
KEEPS_PER_SEED = 4  # keeps after which the window of seeds moves on by one, so that a night does not fit its seeds


@dataclass(frozen=True)
class Evidence:
    """One open trial, and the seeds that both sides have run."""

    trial: int
    candidate: Set[int]
    incumbent: Set[int]
    runs: int  # scored runs of this trial, of the incumbent's too


class Next(NamedTuple):
    """The run to make next."""

    seed: int
    of_candidate: bool  # else of the incumbent


def window(kept: int) -> range:
    """Which seeds of the session may run after so many kept edits, by their index."""
    first = kept // KEEPS_PER_SEED
    return range(first, first + WINDOW)


def decide(
    belief: Belief, evidence: Evidence, seeds: Sequence[int], keep: float = KEEP
) -> tuple[Literal["keep", "revert"] | Next, Estimate]:
    """The decision on an open trial or its next run, and the estimate behind the decision."""
    found = belief.estimate(evidence.trial)
    if evidence.candidate:
        if found.probability > (keep if evidence.runs > 1 else max(keep, KEEP_AFTER_ONE)):
            return "keep", found
        if found.promise < NEW_IDEA * found.promise_of_new or evidence.runs >= MAX_RUNS:
            return "revert", found
    runs = [Next(seed, True) for seed in seeds if seed not in evidence.candidate]
    if evidence.candidate:
        runs += [Next(seed, False) for seed in seeds if seed not in evidence.incumbent]
    falls = belief.information(evidence.trial, runs)
    return runs[falls.index(max(falls))], found
