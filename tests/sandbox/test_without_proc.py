"""Systems without /proc, such as macOS: processes are listed by ps, and jobs run in the sandbox process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import budgets
import pytest
from places import ROOT
from sandboxes import working

from sandbox import layout, supervisor

CHILD = "import sys; print(1, flush=True); sys.stdin.read()"
TREE = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


@pytest.fixture
def tree() -> Iterator[int]:
    """The id of a process with one child."""
    words = [sys.executable, "-c", TREE]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()


def test_ps_lists_the_same_processes(tree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    known = supervisor.descendants(tree)
    assert len(known) == 1
    monkeypatch.setattr(supervisor, "HAS_PROC", False)
    assert supervisor.descendants(tree) == known
    assert supervisor.resident(known) > 1 << 20
    assert supervisor.descendants() != [], "this process has the tree below it"


def test_identity_of_a_process_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "PROC", Path("/nowhere"))
    assert layout.alive(layout.identity())
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert not layout.alive(layout.identity(ended.pid))


PS = """import glob
for path in glob.glob("ELSEWHERE/[0-9]*/stat"):
    try:
        fields = open(path).read().rpartition(")")[2].split()
        print(path.split("/")[-2], fields[1], int(fields[21]) * 4)
    except OSError:
        pass
"""

SITE = "import os\ndel os.sched_getaffinity, os.posix_fallocate\n"

PROGRAM = """
import importlib, pathlib, pkgutil, tempfile
assert not pathlib.Path("/proc/self").exists() and not pathlib.Path("/dev/shm").exists()
import agent, nanogpt_target, sandbox
skipped = ("agent.web", "agent.workers.ray", "agent.proposers.search", "agent.observers.trackers.",
           "nanogpt_target.presets.", "__main__")
for package in (agent, sandbox, nanogpt_target):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not any(part in found.name for part in skipped):
            importlib.import_module(found.name)
from agent.settings import Settings
from agent.workers.runtime import find_device
from nanogpt_target.channel import ScorerSide, make_files
from sandbox.process import ProcessSandbox
from sandbox.selfcheck.bench import Bench
assert find_device(Settings(device="cpu")).threads > 0
with tempfile.TemporaryDirectory() as folder:
    make_files(pathlib.Path(folder), 2, 4, 8)
    ScorerSide(pathlib.Path(folder), 2, 4, 8).close()
with Bench(ProcessSandbox()) as bench:
    job = bench.job("import subprocess; subprocess.Popen(['sleep', '99']); print(7)")
    outcome = bench.sandbox.start(job).finish()
    assert outcome.exit_code == 0 and outcome.log_tail.strip().endswith("7"), outcome
    assert outcome.problems == ("left 1 processes behind; killed",), outcome
    assert bench.sandbox.sweep(bench.owner) == 0
print("done")
"""


def test_job_runs_without_proc_and_linux_calls(tmp_path: Path) -> None:
    """bubblewrap hides /proc and /dev/shm; sitecustomize removes what Python has on Linux only."""
    working("bwrap")
    (tmp_path / "sitecustomize.py").write_text(SITE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "ps").write_text(f"#!{sys.executable} -IS\n{PS.replace('ELSEWHERE', str(elsewhere))}")
    (tmp_path / "ps").chmod(0o755)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["bwrap", "--dev-bind", "/", "/", "--bind", "/proc", str(elsewhere), "--tmpfs", "/proc", "--tmpfs", "/dev"]
    words += [word for node in ("/dev/null", "/dev/urandom") for word in ("--dev-bind", node, node)]
    words += [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=budgets.PROGRAM_SECONDS)
    assert done.stdout.strip().endswith("done"), done.stderr[-3000:]
