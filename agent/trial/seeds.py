"""Seeds of runs, and a check that an edit does not pin the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from agent.types import Measurement


def session_seed(seed: int, k: int) -> int:
    """The k-th seed of a session. All commits share the seeds of a session, so that runs can be paired."""
    digest = hashlib.blake2b(f"{seed}//{k}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF


def with_seed_check(run: Measurement, runs: Iterable[Measurement]) -> Measurement:
    """``run``, or an invalid copy if the commit pins its seed: then repeated runs are not independent.

    A pinned seed shows as equal initial weights under different seeds. The edited code reports their hash and can lie,
    so bit-equal values of a trusted scorer count as well.
    """
    others = [other for other in runs if other.seed != run.seed]
    equal = ""
    if run.initial_hash and any(other.initial_hash == run.initial_hash for other in others):
        equal = "weights"
    elif not run.self_reported and run.value is not None and any(other.value == run.value for other in others):
        equal = "values"
    reason = f"seed pinned: equal {equal} under different seeds"
    return replace(run, status="invalid", value=None, reason=reason) if equal else run
