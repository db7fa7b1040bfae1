"""The checks that every sandbox passes. Each guarantee has at least one check that tries to break it.

Covers: all guarantees. A check of a guarantee that the sandbox does not declare is skipped. So checks that could harm
the machine (memory, processes, disk) run only where a limit is declared; their programs also limit themselves. Does not
cover: GPUs.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sandbox import caches
from sandbox.layout import COUNTERS
from sandbox.selfcheck import escapes, exhaustion, side_channels
from sandbox.selfcheck.bench import SMALL, Bench, CheckFailed, describe, require
from sandbox.types import Collect, Guarantee, Limits, Mount, Sandbox, SandboxBroken, SandboxUnavailable


@dataclass(frozen=True)
class Check:
    """One check: a function that returns what it found, or raises ``CheckFailed``."""

    name: str
    guarantee: Guarantee | None  # skipped where the sandbox does not declare it; None: always run
    run: Callable[[Bench], str]


@dataclass(frozen=True)
class Result:
    """The result of one check."""

    name: str
    ok: bool
    detail: str
    skipped: bool = False  # the guarantee is not declared


CHECKS: list[Check] = []


def run_check(sandbox: Sandbox, check: Check) -> Result:
    """Run one check. Its failure is a result, not an exception."""
    if check.guarantee is not None and check.guarantee not in sandbox.guarantees:
        return Result(check.name, True, f"skipped: {sandbox.name} does not guarantee this here", skipped=True)
    try:
        with Bench(sandbox) as bench:
            return Result(check.name, True, check.run(bench))
    except (CheckFailed, SandboxBroken, SandboxUnavailable) as error:
        return Result(check.name, False, str(error))


def _check(name: str, guarantee: Guarantee) -> Callable[[Callable[[Bench], str]], Callable[[Bench], str]]:
    """Register a function as a check."""

    def register(run: Callable[[Bench], str]) -> Callable[[Bench], str]:
        CHECKS.append(Check(name, guarantee, run))
        return run

    return register


@_check("kills the whole tree", Guarantee.KILLS_TREE)
def kills_daemons(bench: Bench) -> str:
    outcome = bench.run(escapes.DAEMON, env={"BEAT": escapes.BEAT}).outcome
    require(outcome.exit_code == 0, describe(outcome))
    bench.require_stopped("daemon")
    return "a detached daemon ended with its job"


@_check("limits memory", Guarantee.LIMITS_MEMORY)
def limits_memory(bench: Bench) -> str:
    for program in (exhaustion.EAT_MEMORY, exhaustion.EAT_MEMORY_TOGETHER):
        outcome = bench.run(program, limits=replace(SMALL, memory_gb=0.25)).outcome
        require(outcome.out_of_memory, f"700 MB could be used under a limit of 256 MiB: {describe(outcome)}")
    return "700 MB exceeded a limit of 256 MiB, in one process and in several"


@_check("limits processes", Guarantee.LIMITS_PROCESSES)
def limits_processes(bench: Bench) -> str:
    most = 40
    count = bench.answer(exhaustion.FORK, limits=replace(SMALL, processes=most))
    require(0 < count < most, f"{count} processes were started under a limit of {most}")
    return f"{count} of 200 processes were started under a limit of {most}"


@_check("limits disk", Guarantee.LIMITS_DISK)
def limits_disk(bench: Bench) -> str:
    limits = Limits(memory_gb=0.5, disk_gb=0.06, processes=64, output_mb=1.0)
    for where, unlink in (("OUT", ""), ("OUT", "1"), ("TMPDIR", "")):
        ran = bench.run(exhaustion.FILL, limits=limits, env={"WHERE": where, "UNLINK": unlink})
        written = ran.answer
        fits = isinstance(written, int) and 8 <= written < 512
        require(fits, f"{written} MiB were written to {where} under a limit of 61 MiB: {describe(ran.outcome)}")
    return "512 MiB could not be written under a limit of 61 MiB"


@_check("no network", Guarantee.NO_NETWORK)
def no_network(bench: Bench) -> str:
    abstract = f"\0overnight-{bench.owner}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(abstract)
        unix.listen()
        port = tcp.getsockname()[1]
        reached = bench.answer(escapes.CONNECT, env={"PORT": str(port), "UNIX": abstract[1:]})
    require(not reached, f"reached: {reached}")
    return "no connection to the host's loopback or sockets; no other interface"


@_check("read-only code", Guarantee.READ_ONLY_CODE)
def read_only(bench: Bench) -> str:
    data = bench.folder("data")
    (data / "shard").write_text("data")
    mounts = {"data": Mount(data)}
    job = bench.job(escapes.WRITE, mounts=mounts, env={"DATA": "{data}"}, masked=("turtle.py", "wsgiref"))
    before = sorted(p.name for p in bench.code.iterdir())
    answer = bench.end(job, bench.sandbox.start(job)).answer
    require(answer == [], f"could change: {answer}")
    require(sorted(p.name for p in bench.code.iterdir()) == before, "the code changed")
    require((data / "shard").read_text() == "data", "the data changed")
    return "code, data and system could not be changed"


@_check("cached names", Guarantee.ISOLATES_JOBS)
def cached_names(bench: Bench) -> str:
    token = secrets.token_hex(8)
    bench.answer(side_channels.LOOK_UP, env={"TOKEN": token, "STEP": "2"}, forgotten=True)
    looked_up, others = bench.answer(side_channels.LOOK_UP, env={"TOKEN": token, "STEP": "1"})
    if not caches.can_drop():
        return "not closed (needs root): a later job can time which names a model process looked up"
    require(looked_up > 0.75 * others, f"found again in {looked_up:.0f} ns, other names in {others:.0f} ns")
    return "no trace of the names that an earlier job looked up"


@_check("bounded output", Guarantee.BOUNDED_OUTPUT)
def bounded_output(bench: Bench) -> str:
    ran = bench.run(exhaustion.PRINT, limits=replace(SMALL, output_mb=1.0))
    size = ran.log.stat().st_size if ran.log.exists() else 0
    reported = "bytes too many" in " ".join(ran.outcome.problems)
    require(reported and size < 1.2e6, f"{size} bytes of 8 MB were kept under a limit of 1 MiB")
    require("the end" in ran.outcome.log_tail, f"the last line is missing: {ran.outcome.log_tail[-100:]!r}")
    controls = [c for c in ran.outcome.log_tail if ord(c) < 32 and c != "\n"]
    require(not controls, f"control characters were kept: {controls[:5]}")
    return "8 MB of output were cut to 1 MiB, with the last line and without escape sequences"


@_check("outputs", Guarantee.BOUNDED_OUTPUT)
def outputs(bench: Bench) -> str:
    wanted = {"good": 64, "large": 8, "link": 64, "second": 64, "pipe": 64, "folder": 64, "absent": 64}
    ran = bench.run(exhaustion.OUTPUTS, collect=tuple(Collect(n, size) for n, size in wanted.items()))
    found = sorted(p.name for p in ran.directory.glob("*")) if ran.directory.exists() else []
    require(found == ["good"] == sorted(ran.outcome.collected), f"collected {found}; {describe(ran.outcome)}")
    require((ran.directory / "good").read_text() == "fine", "the copy differs")
    text = " ".join(ran.outcome.problems)
    silent = [name for name in ("large", "link", "second", "pipe", "folder") if f"{name}:" not in text]
    require(not silent, f"{silent} were dropped without a word: {text}")
    return "one file was collected; links, a pipe, a folder and a large file were dropped"


@_check("masks files", Guarantee.MASKS_FILES)
def masks(bench: Bench) -> str:
    names = ("turtle.py", "this.py", "wsgiref")
    seen = bench.answer(escapes.READ_MASKED, env={"NAMES": " ".join(names)})
    require(bool(seen), "nothing to hide: this Python has none of the files")
    still = bench.answer(escapes.READ_MASKED, env={"NAMES": " ".join(names)}, masked=names)
    require(not still, f"could be read: {still}")
    text = bench.answer(escapes.READ_SOURCES, masked=("*.py", *names))
    require(not text, f"sources of the standard library could be read: {text[:5]}")
    return f"{len(seen)} files could be read, and none of them when masked"


@_check("hides the host", Guarantee.HIDES_HOST)
def hides_host(bench: Bench) -> str:
    secret = bench.folder("secret") / "secret.txt"
    secret.write_text(bench.owner)
    with _environment("OVERNIGHT_CHECK_SECRET", bench.owner):
        home = [str(p) for p in Path.home().iterdir() if p.is_file()]
        places = [str(secret), __file__, "/etc/shadow", "/etc/machine-id", *home]
        seen = bench.answer(escapes.LOOK, env={"PLACES": "\n".join(places), "SECRET": bench.owner[::-1]})
    require(not seen, f"visible: {seen}")
    return "no file, folder or process of the host was visible"


@_check("clean environment", Guarantee.CLEAN_ENVIRONMENT)
def clean_environment(bench: Bench) -> str:
    with _environment("OVERNIGHT_CHECK_SECRET", "leak"):
        seen = bench.answer("import json, os; print(json.dumps(sorted(os.environ)))")
    require("OVERNIGHT_CHECK_SECRET" not in seen, "the session's environment was inherited")
    return f"the job has {len(seen)} variables, none of them inherited"


def _finds_nothing(name: str, guarantee: Guarantee, program: str, good: str, **more: Any) -> None:
    """Register a program that lists what it could do."""

    @_check(name, guarantee)
    def run(bench: Bench) -> str:
        found = bench.answer(program, **more)
        require(not found, f"possible: {found[:10]}")
        return good


_finds_nothing("counters", Guarantee.ISOLATES_JOBS, side_channels.COUNTERS, "no counter of the machine is readable",
               env={"PLACES": " ".join(COUNTERS)}, hides_counters=True)  # fmt: skip
_finds_nothing("marks no file", Guarantee.READ_ONLY_CODE, side_channels.MARK,
               "no time stamp, mode, attribute or lock of a file outside the job could be changed")  # fmt: skip
_finds_nothing("page cache", Guarantee.ISOLATES_JOBS, side_channels.PAGE_CACHE,
               "no system call reports or changes what is cached")  # fmt: skip
_finds_nothing("locks", Guarantee.ISOLATES_JOBS, side_channels.LOCKS,
               "no lock, lease or watch on files that other jobs see")  # fmt: skip
_finds_nothing("unprivileged", Guarantee.UNPRIVILEGED, escapes.PRIVILEGES,
               "not root, no capabilities, no way to gain any")  # fmt: skip


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
