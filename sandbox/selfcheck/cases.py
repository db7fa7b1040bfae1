"""The contract of a sandbox as cases that any of them can be tried on: by the tests, and by ``overnight doctor``.

A guarantee that a sandbox declares has at least one case that tries to break it; one that it does not declare is passed
over, and said to be. Cases that could harm the machine (all memory, all processes, all disk) run only where their limit
is declared, and with small limits and ends of their own.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox.selfcheck import escapes as breaking
from sandbox.selfcheck.bench import BEAT, PATIENCE, SMALL, Bench, Check, CheckFailed, describe, require
from sandbox.types import Collect, Guarantee, Limits, Mount, Sandbox, SandboxBroken, SandboxUnavailable


@dataclass(frozen=True)
class Result:
    name: str
    ok: bool
    detail: str
    skipped: bool = False  # not declared, so not tried


def run_checks(sandbox: Sandbox, checks: Iterable[Check] | None = None) -> Iterator[Result]:
    """Try every case, one after the other; nothing is raised for a case that fails."""
    for check in CHECKS if checks is None else checks:
        yield run_check(sandbox, check)


def run_check(sandbox: Sandbox, check: Check) -> Result:
    if check.guarantee is not None and check.guarantee not in sandbox.guarantees:
        return Result(check.name, True, f"not tried: {sandbox.name} does not promise it here", skipped=True)
    try:
        with Bench(sandbox) as bench:
            return Result(check.name, True, check.run(bench))
    except (CheckFailed, SandboxBroken, SandboxUnavailable) as error:
        return Result(check.name, False, str(error))


# What every sandbox does, whatever it promises.


def exit_code(bench: Bench) -> str:
    ran = bench.run("import sys; print('[1]'); sys.exit(3)")
    require((ran.outcome.exit_code, ran.outcome.signal) == (3, None), describe(ran.outcome))
    require(ran.told == [1], "its output did not come through")
    return "exit status 3 came back as 3"


def end_by_signal(bench: Bench) -> str:
    outcome = bench.run("import os; os.kill(os.getpid(), 11)").outcome
    require((outcome.exit_code, outcome.signal) == (None, signal.SIGSEGV), describe(outcome))
    return "a segmentation fault came back as signal 11"


def killed_from_outside(bench: Bench) -> str:
    job = bench.job("import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n" + BEAT)
    running = bench.sandbox.start(job)
    bench.wait_for(running, "ready")
    running.kill()
    running.kill()
    outcome = bench.end(job, running).outcome
    require(outcome.signal == signal.SIGKILL, describe(outcome))
    bench.quiet("beat")
    return "a job that ignores signals ended by signal 9"


def outputs(bench: Bench) -> str:
    wanted = {"good": 64, "large": 8, "link": 64, "second": 64, "pipe": 64, "folder": 64, "absent": 64}
    ran = bench.run(breaking.OUTPUTS, collect=tuple(Collect(n, size) for n, size in wanted.items()))
    found = sorted(p.name for p in ran.directory.glob("*")) if ran.directory.exists() else []
    require(found == ["good"] == sorted(ran.outcome.collected), f"brought back {found}; {describe(ran.outcome)}")
    require((ran.directory / "good").read_text() == "fine", "a file changed on its way")
    text = " ".join(ran.outcome.problems)
    silent = [name for name in ("large", "link", "second", "pipe", "folder") if f"{name}:" not in text]
    require(not silent, f"said nothing of {silent}: {text}")
    return "one file came back; links, a pipe, a folder and a large file did not"


def outputs_after_kill(bench: Bench) -> str:
    job = bench.job(
        "import os\nopen(os.environ['OUT'] + '/part', 'w').write('x')\n" + BEAT, collect=(Collect("part", 9),)
    )
    running = bench.sandbox.start(job)
    bench.wait_for(running, "ready")
    running.kill()
    ran = bench.end(job, running)
    require("part" in ran.outcome.collected, describe(ran.outcome))
    return "what a killed job had written came back"


def late_files(bench: Bench) -> str:
    source, data = bench.place("source"), bench.place("data")
    (source / "shard").write_text("late")
    job = bench.job(breaking.WAIT_FOR_FILE, env={"DATA": "{data}"})
    job = replace(job, mounts={**job.mounts, "data": Mount(data)})
    running = bench.sandbox.start(job)
    bench.wait_for(running, "ready")
    os.link(source / "shard", data / "shard")
    require(bench.end(job, running).told == "late", "a file that was added later was not seen")
    return "a file linked into a mount was seen"


def shared_memory(bench: Bench) -> str:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="overnight-check-", dir=memory if memory.is_dir() else None) as name:
        channel = Path(name)
        channel.chmod(0o777)
        job = bench.job(breaking.ECHO, env={"CHANNEL": "{channel}"})
        job = replace(job, mounts={**job.mounts, "channel": Mount(channel, readonly=False)})
        running = bench.sandbox.start(job)
        bench.wait_for(running, "ready")
        (channel / "question").write_text("7")
        ran = bench.end(job, running)
        answer = channel / "answer"
        require(answer.exists() and answer.read_text() == "14", describe(ran.outcome))
    return "question and answer went through a writable mount"


def peak_memory(bench: Bench) -> str:
    outcome = bench.run("x = b'x' * 300_000_000; print(len(x))").outcome
    peak = outcome.peak_memory_gb
    require(peak is not None and 0.25 < peak < 1.1, f"300 MB measured as {peak} GB; {describe(outcome)}")
    return f"300 MB measured as {peak} GB"


def nothing_left(bench: Bench) -> str:
    session = bench.session("end")
    out, _ = session.communicate(timeout=PATIENCE)
    require(session.returncode == 0 and "done" in out, f"the session ended with {session.returncode}")
    left = bench.sandbox.sweep(bench.owner)
    require(left == 0, f"{left} things were left by a job that had ended")
    return "a job that ended left nothing"


def orphans(bench: Bench) -> str:
    with bench.session("hang") as session:
        try:
            assert session.stdout is not None
            ready = select.select([session.stdout], [], [], PATIENCE)[0]
            require(bool(ready) and session.stdout.readline() == "ready\n", "the session started no job")
        finally:
            session.kill()
    beat = bench.shared / "beat"
    changes = threading.Event()
    for _ in range(int(PATIENCE)):  # the end of a killed session's job takes a moment
        before = beat.read_text() if beat.exists() else ""
        changes.wait(1.0)
        if (beat.read_text() if beat.exists() else "") == before:
            break
    bench.sandbox.sweep(bench.owner)
    bench.quiet("beat")
    require(bench.sandbox.sweep(bench.owner) == 0, "a second sweep found something that the first should have removed")
    return "the job of a killed session died, and a sweep left nothing"


# What is promised.


def kills_daemons(bench: Bench) -> str:
    outcome = bench.run(breaking.DAEMON, env={"BEAT": BEAT}).outcome
    require(outcome.exit_code == 0, describe(outcome))
    bench.quiet("daemon")
    return "a daemon that had detached itself died with its job"


def limits_memory(bench: Bench) -> str:
    for program in (breaking.EAT_MEMORY, breaking.EAT_MEMORY_TOGETHER):
        outcome = bench.run(program, limits=replace(SMALL, memory_gb=0.25)).outcome
        require(outcome.out_of_memory, f"700 MB of 256 MiB were had: {describe(outcome)}")
    return "700 MB of 256 MiB were not to be had, alone or by several processes"


def limits_processes(bench: Bench) -> str:
    most = 40
    count = bench.told(breaking.FORK, limits=replace(SMALL, processes=most))
    require(0 < count < most, f"{count} processes were started, {most} are allowed")
    return f"of 200 processes {count} started, {most} are allowed"


def limits_disk(bench: Bench) -> str:
    limits = Limits(memory_gb=0.5, disk_gb=0.06, processes=64, output_mb=1.0)
    for place, program in (("OUT", breaking.FILL), ("OUT", breaking.FILL_DELETED), ("TMPDIR", breaking.FILL)):
        ran = bench.run(program, limits=limits, env={"WHERE": place})
        written = ran.told
        require(isinstance(written, int) and 8 <= written < 512, f"{written} MiB of {place}: {describe(ran.outcome)}")
    return "512 MiB of 61 MiB were not to be had"


def no_network(bench: Bench) -> str:
    abstract = f"\0overnight-{bench.owner}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(abstract)
        unix.listen()
        port = tcp.getsockname()[1]
        got = bench.told(breaking.CONNECT, env={"PORT": str(port), "UNIX": abstract[1:]})
    require(not got, f"reached: {got}")
    return "neither the host's loopback nor its sockets were reached; there is no other interface"


def read_only(bench: Bench) -> str:
    data = bench.place("data")
    (data / "shard").write_text("data")
    job = bench.job(breaking.WRITE, env={"DATA": "{data}"}, masked=("turtle.py", "wsgiref"))
    before = sorted(p.name for p in bench.code.iterdir())
    job = replace(job, mounts={**job.mounts, "data": Mount(data)})
    told = bench.end(job, bench.sandbox.start(job)).told
    require(told == [], f"could change: {told}")
    require(sorted(p.name for p in bench.code.iterdir()) == before, "the code changed")
    require((data / "shard").read_text() == "data", "the data changed")
    return "code, data and the system could not be changed"


def bounded_output(bench: Bench) -> str:
    ran = bench.run(breaking.PRINT, limits=replace(SMALL, output_mb=1.0))
    size = ran.log.stat().st_size if ran.log.exists() else 0
    require(ran.outcome.output_truncated and size < 1.2e6, f"{size} bytes of 8 MB were kept, 1 MiB is allowed")
    require("the end" in ran.outcome.log_tail, f"the end is missing: {ran.outcome.log_tail[-100:]!r}")
    wild = [c for c in ran.outcome.log_tail if ord(c) < 32 and c != "\n"]
    require(not wild, f"control characters came through: {wild[:5]}")
    return "8 MB of output were cut to 1 MiB, with its end kept and escape sequences removed"


def bounded_files(bench: Bench) -> str:
    ran = bench.run(
        "import os; open(os.environ['OUT'] + '/big', 'wb').truncate(1 << 28)", collect=(Collect("big", 1000),)
    )
    require("big:" in " ".join(ran.outcome.problems), describe(ran.outcome))
    require(not ran.outcome.collected and not (ran.directory / "big").exists(), "a file over its bound came back")
    return "a file over its bound did not come back"


def masks(bench: Bench) -> str:
    names = ("turtle.py", "this.py", "wsgiref")
    seen = bench.told(breaking.READ_MASKED, env={"NAMES": " ".join(names)})
    require(bool(seen), "the case proves nothing: its Python has none of these files")
    still = bench.told(breaking.READ_MASKED, env={"NAMES": " ".join(names)}, masked=names)
    require(not still, f"could be read: {still}")
    return f"{len(seen)} files could be read, and none when they were masked"


def hides_host(bench: Bench) -> str:
    secret = bench.place("secret") / "secret.txt"
    secret.write_text(bench.owner)
    with _environment("OVERNIGHT_CHECK_SECRET", bench.owner):
        home = [str(p) for p in Path.home().iterdir() if p.is_file()]
        places = [str(secret), __file__, "/etc/shadow", "/etc/machine-id", *home]
        seen = bench.told(breaking.LOOK, env={"PLACES": "\n".join(places), "SECRET": bench.owner[::-1]})
    require(not seen, f"saw {seen}")
    return "no file, folder or process of the host was seen"


def clean_environment(bench: Bench) -> str:
    with _environment("OVERNIGHT_CHECK_SECRET", "leak"):
        seen = bench.told("import json, os; print(json.dumps(sorted(os.environ)))")
    require("OVERNIGHT_CHECK_SECRET" not in seen, "the session's environment leaked")
    return f"the job has {len(seen)} variables, none inherited"


def unprivileged(bench: Bench) -> str:
    had = bench.told(breaking.PRIVILEGES)
    require(not had, f"it has {had}")
    return "no root, no capabilities, no way to gain any"


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


CHECKS: tuple[Check, ...] = (
    Check("exit code", None, exit_code),
    Check("end by signal", None, end_by_signal),
    Check("killed from outside", None, killed_from_outside),
    Check("outputs", None, outputs),
    Check("outputs after a kill", None, outputs_after_kill),
    Check("files added later", None, late_files),
    Check("channel in memory", None, shared_memory),
    Check("peak memory", None, peak_memory),
    Check("nothing left behind", None, nothing_left),
    Check("orphans", None, orphans),
    Check("kills the whole tree", Guarantee.KILLS_TREE, kills_daemons),
    Check("limits memory", Guarantee.LIMITS_MEMORY, limits_memory),
    Check("limits processes", Guarantee.LIMITS_PROCESSES, limits_processes),
    Check("limits disk", Guarantee.LIMITS_DISK, limits_disk),
    Check("no network", Guarantee.NO_NETWORK, no_network),
    Check("read-only code", Guarantee.READ_ONLY_CODE, read_only),
    Check("bounded output", Guarantee.BOUNDED_OUTPUT, bounded_output),
    Check("bounded files", Guarantee.BOUNDED_OUTPUT, bounded_files),
    Check("masks files", Guarantee.MASKS_FILES, masks),
    Check("hides the host", Guarantee.HIDES_HOST, hides_host),
    Check("clean environment", Guarantee.CLEAN_ENVIRONMENT, clean_environment),
    Check("unprivileged", Guarantee.UNPRIVILEGED, unprivileged),
)
