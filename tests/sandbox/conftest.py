"""A bench for each sandbox that needs no Docker engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sandboxes import working

from sandbox.selfcheck.bench import Bench


@pytest.fixture(params=["process", "bwrap"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Bench(working(request.param)) as bench:
        yield bench


@pytest.fixture
def bwrap_bench() -> Iterator[Bench]:
    with Bench(working("bwrap")) as bench:
        yield bench
