"""Bubblewrap beyond the contract: system calls, and who the job is outside of its namespace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import bwrap, seccomp
from sandbox.bwrap import BwrapSandbox
from sandbox.layout import UNPRIVILEGED
from sandbox.selfcheck import escapes as breaking
from sandbox.selfcheck.bench import Bench
from sandbox.types import SandboxUnavailable


@pytest.fixture
def bench() -> Iterator[Bench]:
    place = BwrapSandbox()
    try:
        place.check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with Bench(place) as found:
        yield found


@pytest.mark.skipif(seccomp.program() is None, reason="no libseccomp")
def test_system_calls_outside_the_list_are_refused(bench: Bench) -> None:
    assert bench.told(breaking.FORBIDDEN) == [[], "2"]


def test_the_job_is_nobody_of_the_host_s_privileged_users(bench: Bench) -> None:
    bench.run("import os; open(os.environ['SHARED'] + '/mine', 'w').close()")
    owner = (bench.shared / "mine").stat().st_uid
    assert owner == (os.geteuid() or UNPRIVILEGED)


def test_a_machine_without_bubblewrap_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        BwrapSandbox().check()


def test_every_standard_library_is_found_where_programs_bring_their_own(tmp_path: Path) -> None:
    for place in ("lib/python3", "lib/tool/bundled/lib/python3.12", "share/odd/library"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "os.py").touch()
    (tmp_path / "lib/python3/dist-packages/thing").mkdir(parents=True)
    (tmp_path / "lib/python3/dist-packages/thing/os.py").touch()
    found = {str(p.relative_to(tmp_path)) for p in bwrap._libraries(str(tmp_path))}
    assert found == {"lib/python3", "lib/tool/bundled/lib/python3.12", "share/odd/library"}
