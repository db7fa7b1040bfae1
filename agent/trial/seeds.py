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
    reason = "seed pinned: equal weights under different seeds"
    if any(o.initial_hash and o.initial_hash == run.initial_hash for o in others):
        return replace(run, status="invalid", value=None, reason=reason)
    if not run.self_reported and run.value is not None and any(o.value == run.value for o in others):
        return replace(run, status="invalid", value=None, reason=reason.replace("weights", "values"))
    return run
