"""What all sandboxes do alike before a job starts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import layout, make_sandbox, missing, protects
from sandbox.types import Collect, Device, Guarantee, Job, Mount, SandboxUnavailable


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(("{python}", "train.py"), {"code": Mount(tmp_path)}, "code")


def test_places_are_filled_in_and_other_braces_stay() -> None:
    assert layout.fill("{out}/{x} {} {{out}}", {"out": "/o"}) == "/o/{x} {} {/o}"


def test_nothing_is_inherited_and_the_job_s_own_variables_win(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "leak")
    env = layout.environment(replace(job, env={"HOME": "{out}", "A": "1"}), {"out": "/o"}, "/tmp")
    assert "SECRET" not in env
    assert (env["HOME"], env["A"], env["CUDA_VISIBLE_DEVICES"]) == ("/o", "1", "")


def test_a_job_sees_the_gpu_it_was_given(job: Job) -> None:
    env = layout.environment(replace(job, device=Device("cuda", "GPU-1", 4)), {}, "/tmp")
    assert (env["CUDA_VISIBLE_DEVICES"], env["OMP_NUM_THREADS"]) == ("GPU-1", "4")


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ()},
        {"workdir": "elsewhere"},
        {"mounts": {"out": Mount(Path("/tmp"))}, "workdir": "out"},
        {"mounts": {"../up": Mount(Path("/tmp"))}, "workdir": "../up"},
        {"mounts": {"code": Mount(Path("/none/there"))}},
        {"collect": (Collect("a", 1),)},
        {"collect": (Collect("../a", 1),), "collect_to": Path("/tmp")},
        {"masked": ("../os.py",)},
        {"masked": ("/etc/passwd",)},
    ],
    ids=str,
)
def test_a_mistaken_job_is_refused_by_every_sandbox(job: Job, change: dict[str, object]) -> None:
    wrong = replace(job, **change)  # type: ignore[arg-type]
    for name in ("process", "bwrap"):
        with pytest.raises(ValueError):
            make_sandbox(name).start(wrong)


def test_a_name_is_orphaned_when_its_process_is_dead() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        mark = layout.identity(process.pid)
        name = f"overnight-{layout.label('me')}-{mark}-aa"
        assert layout.alive(mark)
        assert not layout.orphaned(name, "me")
    finally:
        process.kill()
        process.wait()
    assert layout.orphaned(name, "me")
    assert not layout.orphaned(name, "you")
    assert not layout.orphaned(layout.job_name("me"), "me")


def test_another_process_with_the_same_number_is_not_the_same() -> None:
    assert not layout.alive(f"{os.getpid()}-1")


def test_the_process_sandbox_says_that_it_does_not_protect() -> None:
    place = make_sandbox("process")
    assert not protects(place)
    assert Guarantee.NO_NETWORK in missing(place)


def test_a_sandbox_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="bwrap"):
        make_sandbox("vm")


def test_auto_names_what_would_mend_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(SandboxUnavailable, match=r"systemctl start docker[\s\S]*apt-get install bubblewrap"):
        make_sandbox("auto")


def test_without_its_python_package_docker_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    place = make_sandbox("docker")
    assert place.guarantees == frozenset()
    assert place.sweep("anybody") == 0
    with pytest.raises(SandboxUnavailable, match=r"pip install 'overnight\[docker\]'"):
        place.check()
