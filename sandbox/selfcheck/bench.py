"""What the checks of ``sandbox.selfcheck`` stand on: small programs run in a sandbox under a time limit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import make_sandbox
from sandbox.types import Guarantee, Job, Limits, Mount, Outcome, Running, Sandbox

PATIENCE = 60.0  # seconds; whatever takes longer hangs
SMALL = Limits(memory_gb=1.0, disk_gb=0.5, processes=128, output_mb=4.0)


class CheckFailed(AssertionError):
    """A promise does not hold; the message says what happened instead."""


@dataclass(frozen=True)
class Check:
    """One case. With a ``guarantee``, it is tried only where that is declared."""

    name: str
    guarantee: Guarantee | None
    run: Callable[[Bench], str]


@dataclass(frozen=True)
class Ran:
    """A program's end and what it printed last, which is JSON if it is anything."""

    outcome: Outcome
    told: Any
    directory: Path  # where its outputs were brought to
    log: Path


class Bench:
    """A sandbox and a folder for what its jobs see. Use it in a ``with``."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.owner = f"selfcheck-{secrets.token_hex(4)}"
        self.folder = Path(tempfile.mkdtemp(prefix="overnight-check-"))
        self.folder.chmod(0o755)
        self.code, self.shared = self.place("code"), self.place("shared", 0o777)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self, name: str, mode: int = 0o755) -> Path:
        """A new folder with this mode, whatever the umask."""
        folder = self.folder / name
        folder.mkdir()
        folder.chmod(mode)
        return folder

    def job(self, program: str, *, limits: Limits = SMALL, **more: Any) -> Job:
        """A job that runs ``program`` with {code} read-only and {shared} to write to."""
        name = f"p{secrets.token_hex(4)}"
        (self.code / f"{name}.py").write_text(program)
        (self.code / f"{name}.py").chmod(0o644)
        mounts = {"code": Mount(self.code), "shared": Mount(self.shared, readonly=False)}
        return dataclasses.replace(
            Job(("{python}", f"{name}.py"), mounts, "code", owner=self.owner, limits=limits),
            env={"SHARED": "{shared}", "OUT": "{out}", **more.pop("env", {})},
            collect_to=self.folder / name,
            log=self.folder / f"{name}.log",
            **more,
        )

    def run(self, program: str, **more: Any) -> Ran:
        """Run a program to its end."""
        job = self.job(program, **more)
        return self.end(job, self.sandbox.start(job))

    def end(self, job: Job, running: Running) -> Ran:
        """Read to the end; a job that hangs is killed and fails the check."""
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
        told = None
        with contextlib.suppress(ValueError):
            told = json.loads(last)
        return Ran(running.finish(), told, job.collect_to, job.log)

    def wait_for(self, running: Running, word: str) -> None:
        """Until the job prints a line that is ``word``."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and (lines := running.read(timeout=0.5)) is not None:
            if word in lines:
                return
        running.kill()
        raise CheckFailed(f"never printed {word!r}: {running.finish().log_tail[-300:]}")

    def told(self, program: str, **more: Any) -> Any:
        """What a program that must succeed has printed as JSON."""
        ran = self.run(program, **more)
        if ran.outcome.exit_code != 0 or ran.told is None:
            raise CheckFailed(f"the check's own program failed: {describe(ran.outcome)}")
        return ran.told

    def quiet(self, file: str) -> None:
        """Raises unless a file in {shared} that a process keeps writing to has stopped changing."""
        path = self.shared / file
        before = path.read_text()
        time.sleep(0.5)  # one that still lives writes every 0.02 s
        if path.read_text() != before:
            raise CheckFailed("a process of the job is still alive")

    def session(self, what: str) -> subprocess.Popen[str]:
        """A process of its own that starts a job here as a session would; ``what``: see ``main``."""
        image = getattr(self.sandbox, "image", "")
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "sandbox.selfcheck.bench",
                self.sandbox.name,
                image,
                self.owner,
                str(self.shared),
                what,
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )


def describe(outcome: Outcome) -> str:
    """How a job ended, in a line."""
    how = f"exit status {outcome.exit_code}" if outcome.signal is None else f"signal {outcome.signal}"
    extra = [*outcome.problems, *(["out of memory"] if outcome.out_of_memory else []), outcome.log_tail[-300:]]
    return "; ".join([how, *filter(None, extra)]).replace("\n", " | ")


def require(held: bool, otherwise: str) -> None:
    if not held:
        raise CheckFailed(otherwise)


BEAT = """
import os, sys, time
path = os.path.join(os.environ["SHARED"], sys.argv[1] if len(sys.argv) > 1 else "beat")
number = 0
while True:
    number += 1
    with open(path + ".new", "w") as file:
        file.write(str(number))
    os.replace(path + ".new", path)
    if number == 1:
        print("ready", flush=True)
    time.sleep(0.02)
"""


def main(name: str, image: str, owner: str, shared: str, what: str) -> None:
    """A session: starts a job that beats (``hang``: says so and waits), or one that ends (``end``)."""
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
