"""The process and bwrap sandboxes pass the contract suite on this machine. tests/e2e runs it on Docker."""

from __future__ import annotations

import pytest
from sandbox_interface import INTERFACE
from sandboxes import working

from sandbox.selfcheck.cases import CHECKS, Check, run_check
from sandbox.types import Guarantee, Job, Outcome, Running, Sandbox, SandboxBroken


@pytest.fixture(scope="module", params=["process", "bwrap"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return working(request.param)


@pytest.mark.parametrize("check", [*INTERFACE, *CHECKS], ids=lambda check: check.name.replace(" ", "-"))
def test_sandbox_passes_check(sandbox: Sandbox, check: Check) -> None:
    result = run_check(sandbox, check)
    if result.skipped:
        pytest.skip(result.detail)
    assert result.ok, result.detail


def test_every_guarantee_has_a_check() -> None:
    assert {check.guarantee for check in CHECKS} == {*Guarantee}


def test_check_names_are_unique() -> None:
    assert len({check.name for check in [*INTERFACE, *CHECKS]}) == len(INTERFACE) + len(CHECKS)


class Useless:
    """A sandbox that declares every guarantee and runs nothing."""

    name = "useless"
    guarantees = frozenset(Guarantee)

    def check(self) -> None: ...

    def sweep(self, owner: str) -> int:
        return 1

    def start(self, job: Job) -> Running:
        return Failed()


class Failed:
    """A job that failed at once without output."""

    def read(self, timeout: float) -> list[str] | None:
        return None

    def kill(self) -> None: ...

    def finish(self) -> Outcome:
        return Outcome(1, None, False, 0.0, None, "", {})


def test_useless_sandbox_fails_every_check() -> None:
    quick = [check for check in [*INTERFACE, *CHECKS] if check.name not in ("nothing left behind", "orphans")]
    assert [check.name for check in quick if run_check(Useless(), check).ok] == []


class Broken(Useless):
    """A sandbox that cannot start a job."""

    def start(self, job: Job) -> Running:
        raise SandboxBroken("the daemon is gone")


def test_broken_sandbox_is_a_failed_result() -> None:
    results = [run_check(Broken(), check) for check in CHECKS[:2]]
    assert [(r.ok, r.detail) for r in results] == [(False, "the daemon is gone")] * 2
