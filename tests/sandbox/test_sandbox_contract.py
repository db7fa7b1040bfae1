"""The process and bubblewrap sandboxes keep what they promise on this machine; Docker's turn is in tests/e2e."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox import make_sandbox
from sandbox.selfcheck.bench import Check
from sandbox.selfcheck.cases import CHECKS, run_check, run_checks
from sandbox.types import Guarantee, Job, Outcome, Running, Sandbox, SandboxBroken, SandboxUnavailable


@pytest.fixture(scope="module", params=["process", "bwrap"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    place = make_sandbox(request.param)
    try:
        place.check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    return place


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name.replace(" ", "-"))
def test_the_sandbox_keeps_its_promise(sandbox: Sandbox, check: Check) -> None:
    result = run_check(sandbox, check)
    if result.skipped:
        pytest.skip(result.detail)
    assert result.ok, result.detail


def test_every_guarantee_has_a_case() -> None:
    assert {check.guarantee for check in CHECKS} == {None, *Guarantee}


class Deaf:
    """A sandbox that promises all and keeps nothing: whatever it is told to run, it runs ``false`` without limits."""

    name = "deaf"
    guarantees = frozenset(Guarantee)

    def check(self) -> None: ...

    def sweep(self, owner: str) -> int:
        return 1

    def start(self, job: Job) -> Running:
        return Silent()


class Silent:
    def read(self, timeout: float) -> list[str] | None:
        return None

    def kill(self) -> None: ...

    def finish(self) -> Outcome:
        return Outcome(1, None, False, 0.0, None, "", False, {})


def test_a_sandbox_that_keeps_nothing_passes_no_case() -> None:
    quick = [check for check in CHECKS if check.name not in ("nothing left behind", "orphans")]
    assert [result.name for result in run_checks(Deaf(), quick) if result.ok] == []


class Broken(Deaf):
    def start(self, job: Job) -> Running:
        raise SandboxBroken("the daemon is gone")


def test_a_broken_sandbox_is_a_result_and_no_crash() -> None:
    results = list(run_checks(Broken(), CHECKS[:2]))
    assert [(r.ok, r.detail) for r in results] == [(False, "the daemon is gone")] * 2


def _names() -> Iterator[str]:
    return (check.name for check in CHECKS)


def test_cases_have_names_of_their_own() -> None:
    assert len(set(_names())) == len(CHECKS)
