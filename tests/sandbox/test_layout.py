"""Checks, environment and marks that all sandboxes share; selection of a sandbox."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import layout, make_sandbox, missing
from sandbox.types import Collect, Device, Guarantee, Job, Mount, SandboxUnavailable


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(("{python}", "train.py"), {"code": Mount(tmp_path)}, "code")


def test_fill_keeps_unknown_braces() -> None:
    assert layout.fill("{out}/{x} {} {{out}}", {"out": "/o"}) == "/o/{x} {} {/o}"


def test_environment_inherits_nothing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "leak")
    env = layout.environment(replace(job, env={"HOME": "{out}", "A": "1"}), {"out": "/o"}, "/tmp")
    assert "SECRET" not in env
    assert (env["HOME"], env["A"], env["CUDA_VISIBLE_DEVICES"]) == ("/o", "1", "")


def test_environment_names_the_jobs_gpu(job: Job) -> None:
    env = layout.environment(replace(job, device=Device("cuda", "GPU-1", 4)), {}, "/tmp")
    assert (env["CUDA_VISIBLE_DEVICES"], env["OMP_NUM_THREADS"]) == ("GPU-1", "4")
    env = layout.environment(replace(job, device=Device("rocm", "c2ff74a0", number="3")), {}, "/tmp")
    assert env["CUDA_VISIBLE_DEVICES"] == "3"


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
def test_invalid_job_is_rejected_by_every_sandbox(job: Job, change: dict[str, object]) -> None:
    wrong = replace(job, **change)  # type: ignore[arg-type]
    for name in ("process", "bwrap"):
        with pytest.raises(ValueError):
            make_sandbox(name).start(wrong)


def test_name_is_orphaned_after_its_process_ends() -> None:
    process = subprocess.Popen(["sleep", "600"])
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


def test_reused_process_id_is_not_alive() -> None:
    assert not layout.alive(f"{os.getpid()}-1")


def test_process_sandbox_does_not_protect() -> None:
    sandbox = make_sandbox("process")
    assert Guarantee.NO_NETWORK in missing(sandbox)


def test_unknown_sandbox_is_rejected() -> None:
    with pytest.raises(ValueError, match="bwrap"):
        make_sandbox("vm")


def test_auto_says_how_to_install_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(SandboxUnavailable, match=r"systemctl start docker[\s\S]*apt-get install bubblewrap"):
        make_sandbox("auto")


def test_docker_without_python_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    sandbox = make_sandbox("docker")
    assert sandbox.guarantees == frozenset()
    assert sandbox.sweep("other") == 0
    with pytest.raises(SandboxUnavailable, match=r"pip install .*'overnight\[docker\]'"):
        sandbox.check()
