"""Runs small programs in a sandbox, within a time limit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.types import Job, Limits, Mount, Outcome, Running, Sandbox

PATIENCE = 120.0  # seconds; a program that takes longer hangs
SMALL = Limits(memory_gb=1.0, disk_gb=0.5, processes=128, output_mb=4.0)


class CheckFailed(AssertionError):
    """A guarantee does not hold; the message says what happened."""


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    outcome: Outcome
    answer: Any  # its last line, decoded from JSON; None if that fails
    directory: Path  # its collected outputs
    log: Path


class Bench(contextlib.AbstractContextManager["Bench"]):
    """A sandbox and the folders that its jobs see. A context manager."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.owner = f"selfcheck-{secrets.token_hex(4)}"
        self.root = Path(tempfile.mkdtemp(prefix="overnight-check-"))
        self.root.chmod(0o755)
        self.code, self.shared = self.folder("code"), self.folder("shared", 0o777)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def folder(self, name: str, mode: int = 0o755) -> Path:
        """A new folder with this mode, independent of the umask."""
        folder = self.root / name
        folder.mkdir()
        folder.chmod(mode)
        return folder

    def job(self, program: str, *, limits: Limits = SMALL, mounts: dict[str, Mount] | None = None, **more: Any) -> Job:
        """A job that runs ``program``, with {code} read-only, {shared} writable, and ``mounts``."""
        name = f"p{secrets.token_hex(4)}"
        (self.code / f"{name}.py").write_text(program)
        (self.code / f"{name}.py").chmod(0o644)
        mounts = {"code": Mount(self.code), "shared": Mount(self.shared, readonly=False), **(mounts or {})}
        return dataclasses.replace(
            Job(("{python}", f"{name}.py"), mounts, "code", owner=self.owner, limits=limits),
            env={"SHARED": "{shared}", "OUT": "{out}", **more.pop("env", {})},
            collect_to=self.root / name,
            log=self.root / f"{name}.log",
            **more,
        )

    def run(self, program: str, **more: Any) -> Ran:
        """Run a program to its end."""
        job = self.job(program, **more)
        return self.end(job, self.sandbox.start(job))

    def end(self, job: Job, running: Running) -> Ran:
        """Read a job's output to its end.

        Raises:
            CheckFailed: the job hangs.
        """
        deadline = time.monotonic() + PATIENCE
        last = ""
        while (lines := running.read(timeout=0.5)) is not None:
            last = lines[-1] if lines else last
            if time.monotonic() > deadline:
                running.kill()
                running.finish()
                raise CheckFailed(f"did not end within {PATIENCE:.0f} s")
        assert job.collect_to is not None
        assert job.log is not None
        answer = None
        with contextlib.suppress(ValueError):
            answer = json.loads(last)
        return Ran(running.finish(), answer, job.collect_to, job.log)

    def answer(self, program: str, **more: Any) -> Any:
        """The JSON in the last line of a program that must succeed.

        Raises:
            CheckFailed: the program fails or prints no JSON.
        """
        ran = self.run(program, **more)
        if ran.outcome.exit_code != 0 or ran.answer is None:
            raise CheckFailed(f"the program of the check failed: {describe(ran.outcome)}")
        return ran.answer

    def start(self, job: Job) -> Running:
        """Start a job and wait until it prints the line ``ready``.

        Raises:
            CheckFailed: it never does.
        """
        running = self.sandbox.start(job)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and (lines := running.read(timeout=0.5)) is not None:
            if "ready" in lines:
                return running
        running.kill()
        raise CheckFailed(f"never printed 'ready': {running.finish().log_tail[-300:]}")

    def require_stopped(self, file: str = "beat") -> None:
        """Raise ``CheckFailed`` if a process still writes to this file in {shared}."""
        path = self.shared / file
        before = path.read_text()
        time.sleep(0.5)  # BEAT writes every 0.02 s
        require(path.read_text() == before, "a process of the job is still alive")


def describe(outcome: Outcome) -> str:
    """How a job ended, in one line."""
    how = f"exit status {outcome.exit_code}" if outcome.signal is None else f"signal {outcome.signal}"
    extra = [*outcome.problems, *(["out of memory"] if outcome.out_of_memory else []), outcome.log_tail[-300:]]
    return "; ".join([how, *filter(None, extra)]).replace("\n", " | ")


def require(held: bool, otherwise: str) -> None:
    """Raise ``CheckFailed`` with the message ``otherwise`` unless the condition held."""
    if not held:
        raise CheckFailed(otherwise)
