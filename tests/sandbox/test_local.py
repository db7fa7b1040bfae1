"""Supervised jobs of this machine: whoever starts or ends them, none outlives its session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import make_sandbox
from sandbox.cgroups import controllers
from sandbox.layout import label
from sandbox.selfcheck.bench import BEAT, SMALL, Bench
from sandbox.supervisor import resident
from sandbox.types import Guarantee, Running, SandboxBroken, SandboxUnavailable


@pytest.fixture(params=["process", "bwrap"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    place = make_sandbox(request.param)
    try:
        place.check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with Bench(place) as found:
        yield found


def test_a_job_lives_on_when_the_thread_that_started_it_has_ended(bench: Bench) -> None:
    job = bench.job("import time; print('ready', flush=True); time.sleep(0.5); print('[1]')")
    started: list[Running] = []
    thread = threading.Thread(target=lambda: started.append(bench.sandbox.start(job)))
    thread.start()
    thread.join()
    ran = bench.end(job, started[0])
    assert (ran.outcome.exit_code, ran.told) == (0, [1])


def supervisor_of(marker: str) -> int:
    """The process of the supervisor whose configuration has this word."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if b"supervisor.py" in text and marker.encode() in text:
            return int(path.parent.name)
    raise LookupError(marker)


def test_a_job_dies_with_its_supervisor(bench: Bench) -> None:
    job = bench.job(BEAT, env={"MARKER": bench.owner})
    running = bench.sandbox.start(job)
    bench.wait_for(running, "ready")
    os.kill(supervisor_of(bench.owner), signal.SIGKILL)
    outcome = running.finish()
    assert outcome.signal == signal.SIGKILL
    assert "the supervisor was killed" in outcome.problems
    bench.quiet("beat")


def test_the_job_holds_no_descriptor_of_its_supervisor(bench: Bench) -> None:
    assert bench.told("import json, os; print(json.dumps(sorted(map(int, os.listdir('/proc/self/fd')))))") == [
        0,
        1,
        2,
        3,
    ]


def test_a_command_that_is_not_there_is_the_job_s_failure(bench: Bench) -> None:
    from dataclasses import replace

    job = replace(bench.job(""), argv=("no-such-program",))
    outcome = bench.end(job, bench.sandbox.start(job)).outcome
    assert outcome.exit_code not in (0, None)
    assert "no-such-program" in outcome.log_tail


def test_finishing_twice_is_finishing_once(bench: Bench) -> None:
    running = bench.sandbox.start(bench.job("print(1)"))
    assert running.finish() is running.finish()
    running.kill()


def test_an_ordinary_user_s_other_processes_do_not_count(bench: Bench) -> None:
    if Guarantee.LIMITS_PROCESSES not in bench.sandbox.guarantees:
        pytest.skip("no limit of processes here")
    from dataclasses import replace

    from sandbox.selfcheck.bench import SMALL

    others = [threading.Thread(target=threading.Event().wait, args=(20,), daemon=True) for _ in range(60)]
    for thread in others:
        thread.start()
    program = "import os; p = os.fork(); os._exit(0) if p == 0 else os.wait(); print('[1]')"
    assert bench.told(program, limits=replace(SMALL, processes=32)) == [1]


def test_a_job_that_cannot_start_leaves_nothing(bench: Bench) -> None:
    from dataclasses import replace

    with pytest.raises(SandboxBroken):
        bench.sandbox.start(replace(bench.job(""), log=bench.folder / "none" / "log"))
    assert list(Path(tempfile.gettempdir()).glob(f"overnight-{label(bench.owner)}-*")) == []


NESTS = """
import os, time
os.chdir(os.environ["OUT"])
for _ in range(3000):
    os.mkdir("deep")
    os.chdir("deep")
print("ready", flush=True)
time.sleep(600)
"""


def test_a_job_that_hides_what_it_writes_is_ended_and_leaves_nothing(bench: Bench) -> None:
    """Folders deeper than a path can name. The supervisor died of them, and so did the session that cleaned up."""
    before = set(Path(tempfile.gettempdir()).glob(f"overnight-{label(bench.owner)}-*"))
    outcome = bench.run(NESTS).outcome
    assert outcome.signal == signal.SIGKILL
    assert "made folders that nobody can look into" in outcome.problems
    assert set(Path(tempfile.gettempdir()).glob(f"overnight-{label(bench.owner)}-*")) == before


BUSY = """
import json, os, resource, threading, time
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


@pytest.mark.skipif("cpu" not in controllers(), reason="no control group for processors here")
def test_more_processes_get_no_more_processor_than_was_agreed_on(bench: Bench) -> None:
    assert bench.told(BUSY, limits=replace(SMALL, cpus=0.5)) < 0.75


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
    ids=["of a process that we may read", "not of one that is not dumpable"],
)
def test_memory_that_belongs_to_no_process_is_counted(before: str, least: int) -> None:
    """Where there is no control group, a watchdog adds up; files without a name were not in its sum."""
    with subprocess.Popen(
        [sys.executable, "-c", before + HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        assert least << 20 <= resident([job.pid]) < 160 << 20
