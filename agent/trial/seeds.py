"""Seeds of runs: fresh for every run, and a check that an edit does not pin them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from agent.types import Measurement


def run_seed(session_seed: int, commit: str, k: int) -> int:
    """The harness seed of the k-th run of a commit: fresh for every run, the same at every resume."""
    digest = hashlib.blake2b(f"{session_seed}/{commit}/{k}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF


def with_seed_check(run: Measurement, runs: Iterable[Measurement]) -> Measurement:
    """A run beside the others of its commit. Equal weights under different seeds: the edit pins the seed, and repeats
    would prove nothing.

    The initial ones, as the harness reports them. Since the edit can report what it likes: also equal values, to
    the last bit, of a trusted scorer.
    """
    others = [other for other in runs if other.seed != run.seed]
    reason = "seed pinned: equal weights under different seeds"
    if any(o.initial_hash and o.initial_hash == run.initial_hash for o in others):
        return replace(run, status="invalid", value=None, reason=reason)
    if not run.self_reported and run.value is not None and any(o.value == run.value for o in others):
        return replace(run, status="invalid", value=None, reason=reason.replace("weights", "values"))
    return run
