"""What every sandbox does, whatever it guarantees: the interface of ``sandbox.types`` as checks.

    python sandbox_interface.py SANDBOX IMAGE OWNER FOLDER hang|end

starts one job as a session would, so that a check can kill that session.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from places import ROOT

from sandbox import make_sandbox
from sandbox.selfcheck.bench import PATIENCE, SMALL, Bench, describe, require
from sandbox.selfcheck.cases import Check
from sandbox.selfcheck.escapes import BEAT
from sandbox.types import Collect, Job, Mount

WAIT_FOR_FILE = """
import json, os, time
print("ready", flush=True)
path = os.path.join(os.environ["DATA"], "shard")
for _ in range(12000):
    if os.path.exists(path):
        print(json.dumps(open(path).read()))
        break
    time.sleep(0.01)
"""

DOUBLE = """
import os, time
os.chdir(os.environ["CHANNEL"])
print("ready", flush=True)
for _ in range(12000):
    if os.path.exists("question") and (text := open("question").read()):
        with open("answer", "w") as file:
            file.write(str(2 * int(text)))
        break
    time.sleep(0.01)
"""

# Prints forbidden system calls that the filter lets through, and the kernel's filter mode (2: filter).
FORBIDDEN = """
import ctypes, json, os, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
numbers = {"x86_64": dict(ptrace=101, unshare=272, mount=165, bpf=321, io_uring_setup=425, userfaultfd=323, keyctl=250,
                          perf_event_open=298, process_vm_readv=310, setns=308, open_by_handle_at=304, kexec_load=246,
                          init_module=175, pivot_root=155, add_key=248, mbind=237)}.get(platform.machine(), {})
allowed = []
for name, number in numbers.items():
    ctypes.set_errno(0)
    if libc.syscall(number, 0x10000000 if name == "unshare" else 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
        allowed.append(name + " " + os.strerror(ctypes.get_errno()))
for family in (socket.AF_VSOCK, socket.AF_ALG, socket.AF_NETLINK, socket.AF_PACKET):
    try:
        socket.socket(family, socket.SOCK_RAW if family != socket.AF_ALG else socket.SOCK_SEQPACKET).close()
        allowed.append(str(family))
    except PermissionError:
        pass
    except OSError as error:
        allowed.append(str(family) + str(error))
status = dict(line.rstrip().split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([allowed, status["Seccomp"].strip()]))
"""


def exit_code(bench: Bench) -> str:
    ran = bench.run("import sys; print('[1]'); sys.exit(3)")
    require((ran.outcome.exit_code, ran.outcome.signal) == (3, None), describe(ran.outcome))
    require(ran.answer == [1], "the output is missing")
    return "exit status 3 was reported"


def end_by_signal(bench: Bench) -> str:
    outcome = bench.run("import os; os.kill(os.getpid(), 11)").outcome
    require((outcome.exit_code, outcome.signal) == (None, signal.SIGSEGV), describe(outcome))
    return "a segmentation fault was reported as signal 11"


def killed_from_outside(bench: Bench) -> str:
    job = bench.job("import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n" + BEAT)
    running = bench.start(job)
    running.kill()
    running.kill()
    outcome = bench.end(job, running).outcome
    require(outcome.signal == signal.SIGKILL, describe(outcome))
    bench.require_stopped()
    return "a job that ignores signals was killed"


def outputs_after_kill(bench: Bench) -> str:
    program = "import os\nopen(os.environ['OUT'] + '/part', 'w').write('x')\n" + BEAT
    job = bench.job(program, collect=(Collect("part", 9),))
    running = bench.start(job)
    running.kill()
    ran = bench.end(job, running)
    require("part" in ran.outcome.collected, describe(ran.outcome))
    return "the output of a killed job was collected"


def late_files(bench: Bench) -> str:
    source, data = bench.folder("source"), bench.folder("data")
    (source / "shard").write_text("late")
    job = bench.job(WAIT_FOR_FILE, mounts={"data": Mount(data)}, env={"DATA": "{data}"})
    running = bench.start(job)
    os.link(source / "shard", data / "shard")
    require(bench.end(job, running).answer == "late", "the job did not see a file that was added later")
    return "the job saw a file that was linked into a mount later"


def shared_memory(bench: Bench) -> str:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="overnight-check-", dir=memory if memory.is_dir() else None) as name:
        channel = Path(name)
        channel.chmod(0o777)
        mounts = {"channel": Mount(channel, readonly=False)}
        job = bench.job(DOUBLE, mounts=mounts, env={"CHANNEL": "{channel}"})
        running = bench.start(job)
        (channel / "question").write_text("7")
        ran = bench.end(job, running)
        answer = channel / "answer"
        require(answer.exists() and answer.read_text() == "14", describe(ran.outcome))
    return "request and reply went through a writable mount"


def peak_memory(bench: Bench) -> str:
    outcome = bench.run("x = b'x' * 300_000_000; print(len(x))").outcome
    peak = outcome.peak_memory_gb
    require(peak is not None and 0.25 < peak < 1.1, f"300 MB measured as {peak} GB; {describe(outcome)}")
    return f"300 MB measured as {peak} GB"


def nothing_left(bench: Bench) -> str:
    process = session(bench, "end")
    out, _ = process.communicate(timeout=PATIENCE)
    require(process.returncode == 0 and "done" in out, f"the session ended with status {process.returncode}")
    left = bench.sandbox.sweep(bench.owner)
    require(left == 0, f"a job that had ended left {left} objects behind")
    return "a job that ended left nothing"


def orphans(bench: Bench) -> str:
    with session(bench, "hang") as process:
        try:
            assert process.stdout is not None
            ready = select.select([process.stdout], [], [], PATIENCE)[0]
            require(bool(ready) and process.stdout.readline() == "ready\n", "the session started no job")
        finally:
            process.kill()
    beat = bench.shared / "beat"
    for _ in range(int(PATIENCE)):  # the job of a killed session ends a moment later
        before = beat.read_text() if beat.exists() else ""
        time.sleep(1.0)
        if (beat.read_text() if beat.exists() else "") == before:
            break
    bench.sandbox.sweep(bench.owner)
    bench.require_stopped()
    require(bench.sandbox.sweep(bench.owner) == 0, "a second sweep removed what the first one left")
    return "the job of a killed session ended, and a sweep removed the rest"


INTERFACE = [
    Check(name, None, run)
    for name, run in (
        ("exit code", exit_code),
        ("end by signal", end_by_signal),
        ("killed from outside", killed_from_outside),
        ("outputs after a kill", outputs_after_kill),
        ("files added later", late_files),
        ("channel in memory", shared_memory),
        ("peak memory", peak_memory),
        ("nothing left behind", nothing_left),
        ("orphans", orphans),
    )
]


def session(bench: Bench, what: str) -> subprocess.Popen[str]:
    """A process that starts a job as a session would. ``what``: ``hang`` or ``end``."""
    words = [bench.sandbox.name, getattr(bench.sandbox, "image", ""), bench.owner, str(bench.shared), what]
    return subprocess.Popen(
        [sys.executable, __file__, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def main(name: str, image: str, owner: str, shared: str, what: str) -> None:
    """Start a job that writes until it is killed (``hang``), or one that ends (``end``), and relay its output."""
    sandbox = make_sandbox(name, image=image) if image else make_sandbox(name)
    code = Path(shared).with_name("session")
    code.mkdir(exist_ok=True)
    code.chmod(0o755)
    (code / "p.py").write_text(BEAT if what == "hang" else "print('done')")
    mounts = {"code": Mount(code), "shared": Mount(Path(shared), readonly=False)}
    job = Job(("{python}", "p.py"), mounts, "code", {"SHARED": "{shared}"}, SMALL, owner=owner)
    running = sandbox.start(job)
    while (lines := running.read(timeout=60)) is not None:
        for line in lines:
            print(line, flush=True)
    running.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
