"""Jobs under a supervisor: they end with their session, and their limits hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.cgroups import controllers
from sandbox.layout import label
from sandbox.selfcheck.bench import SMALL, Bench
from sandbox.selfcheck.escapes import BEAT
from sandbox.supervisor import resident
from sandbox.types import Guarantee, Running, SandboxBroken


def left_of(bench: Bench) -> list[Path]:
    """The scratch directories of the bench's jobs."""
    return list(Path(tempfile.gettempdir()).glob(f"overnight-{label(bench.owner)}-*"))


def test_job_survives_the_thread_that_started_it(bench: Bench) -> None:
    job = bench.job("import time; print('ready', flush=True); time.sleep(0.5); print('[1]')")
    started: list[Running] = []
    thread = threading.Thread(target=lambda: started.append(bench.sandbox.start(job)))
    thread.start()
    thread.join()
    ran = bench.end(job, started[0])
    assert (ran.outcome.exit_code, ran.answer) == (0, [1])


def supervisor_of(marker: str) -> int:
    """The process id of the supervisor whose configuration contains ``marker``."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if b"supervisor.py" in text and marker.encode() in text:
            return int(path.parent.name)
    raise LookupError(marker)


def test_job_ends_with_its_supervisor(bench: Bench) -> None:
    running = bench.start(bench.job(BEAT, env={"MARKER": bench.owner}))
    os.kill(supervisor_of(bench.owner), signal.SIGKILL)
    outcome = running.finish()
    assert outcome.signal == signal.SIGKILL
    assert "the supervisor was killed" in outcome.problems
    bench.require_stopped()


def test_job_inherits_no_descriptors(bench: Bench) -> None:
    program = "import json, os; print(json.dumps(sorted(map(int, os.listdir('/proc/self/fd')))))"
    assert bench.answer(program) == [0, 1, 2, 3]


def test_missing_command_fails_the_job(bench: Bench) -> None:
    job = replace(bench.job(""), argv=("no-such-program",))
    outcome = bench.end(job, bench.sandbox.start(job)).outcome
    assert outcome.exit_code not in (0, None)
    assert "no-such-program" in outcome.log_tail


SPOIL = """import os
parent = f"/proc/{os.getppid()}/fd"
for name in os.listdir(parent):
    try:
        if os.readlink(f"{parent}/{name}").startswith("pipe:"):
            os.write(os.open(f"{parent}/{name}", os.O_WRONLY | os.O_NONBLOCK), b"x")
    except OSError:
        pass
"""


def test_spoiled_report_of_the_supervisor_fails_only_the_job(bench: Bench) -> None:
    job = bench.job(SPOIL)
    end = bench.end(job, bench.sandbox.start(job))
    assert end.outcome.problems in ((), ("the supervisor was killed",))
    if bench.sandbox.name == "process" and Path("/proc/self").exists():
        assert end.outcome.problems


def test_second_finish_returns_same_outcome(bench: Bench) -> None:
    running = bench.sandbox.start(bench.job("print(1)"))
    assert running.finish() is running.finish()
    running.kill()


def test_process_limit_ignores_the_users_other_processes(bench: Bench) -> None:
    if Guarantee.LIMITS_PROCESSES not in bench.sandbox.guarantees:
        pytest.skip("processes cannot be limited here")
    over = threading.Event()
    others = [threading.Thread(target=over.wait, daemon=True) for _ in range(60)]
    for thread in others:
        thread.start()
    program = "import os; p = os.fork(); os._exit(0) if p == 0 else os.wait(); print('[1]')"
    try:
        assert bench.answer(program, limits=replace(SMALL, processes=32)) == [1]
    finally:
        over.set()


def test_job_that_cannot_start_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(SandboxBroken):
        bench.sandbox.start(replace(bench.job(""), log=bench.root / "none" / "log"))
    assert left_of(bench) == []


NESTS = """
import os, time
os.chdir(os.environ["OUT"])
for _ in range(3000):
    os.mkdir("deep")
    os.chdir("deep")
print("ready", flush=True)
time.sleep(600)
"""


def test_folders_too_deep_end_the_job(bench: Bench) -> None:
    outcome = bench.run(NESTS).outcome
    assert outcome.signal == signal.SIGKILL
    assert "made folders that cannot be read" in outcome.problems
    assert left_of(bench) == []


BUSY = """
import json, os, resource, time
began = time.monotonic()
children = []
for _ in range(4):
    if (child := os.fork()) == 0:
        while time.monotonic() < began + 2.0:
            pass
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps((usage.ru_utime + usage.ru_stime) / (time.monotonic() - began)))
"""


@pytest.mark.skipif("cpu" not in controllers(), reason="CPU time cannot be limited here")
def test_cpu_limit_holds_for_several_processes(bench: Bench) -> None:
    assert bench.answer(BUSY, limits=replace(SMALL, cpus=0.5)) < 0.75


HOLD = """
import mmap, os, sys
held = os.memfd_create("held")
os.write(held, bytes(64 << 20))
shared = mmap.mmap(-1, 32 << 20)
shared.write(bytes(32 << 20))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("before", "least"),
    [("", 96), ("import ctypes; ctypes.CDLL(None).prctl(4, 0)\n", 32)],
    ids=["readable", "not dumpable"],
)
def test_watchdog_counts_unlinked_and_shared_memory(before: str, least: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", before + HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        assert least << 20 <= resident([job.pid]) < 160 << 20
