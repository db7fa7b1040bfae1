"""A folder in which ``overnight llm serve`` runs the stand-in for vLLM, with an optional nvidia-smi."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from budgets import PROGRAM_SECONDS
from places import ROOT, TESTS
from ports import free_port

STAND_IN = TESTS / "support" / "vllm_stand_in.py"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PROGRAM_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"timeout: {what}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Place:
    """A folder with the stand-in and an optional nvidia-smi, and the commands that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.vllm = self.script("vllm", f'exec {sys.executable} {STAND_IN} "$@"')
        (folder / "agent").mkdir()  # must not be imported from the working directory
        (folder / "agent/__init__.py").write_text("raise SystemExit('imported from the working directory')")
        self.commands: list[subprocess.Popen[str]] = []
        self.output: dict[int, queue.Queue[str]] = {}

    def script(self, name: str, text: str) -> Path:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def add_gpu(self, used: int, total: int = 81920) -> None:
        """Add an nvidia-smi that shows one GPU with ``used`` MiB in use."""
        part = self.folder / "used.part"
        part.write_text(f"{used}, {total}\n")
        part.rename(self.folder / "used")
        (self.folder / "held").touch()
        self.script(
            "nvidia-smi",
            f'case "$*" in *uuid*) echo GPU-a;; *compute-apps*) cat {self.folder}/held;; '
            f"*memory.used*) cat {self.folder}/used;; esac",
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ, "STAND_IN": str(self.folder), "OVERNIGHT_LLM_API_KEY": "secret-of-the-session",
            "PATH": f"{self.folder}/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = subprocess.Popen(
            [sys.executable, "-P", "-m", "agent.cli", "llm", "serve", "some/model", "--port", str(self.port),
             "--log", str(self.folder / "vllm.log"), "--cache", str(self.folder), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=self.folder,
        )  # fmt: skip
        self.commands.append(command)
        lines = self.output[command.pid] = queue.Queue()

        def read() -> None:
            assert command.stderr is not None
            for line in command.stderr:
                lines.put(line)

        threading.Thread(target=read, daemon=True).start()
        return command

    def await_output(self, command: subprocess.Popen[str], words: str) -> str:
        seen = ""
        while words not in seen:
            try:
                seen += self.output[command.pid].get(timeout=PROGRAM_SECONDS)
            except queue.Empty:
                pytest.fail(f"no {words!r} in: {seen}")
        return seen

    def starts(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("started-*.json"))]

    def pids(self) -> list[int]:
        return [pid for started in self.starts() for pid in started["pids"]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for command in made.commands:
        command.kill()
        command.communicate()
    for pid in filter(alive, made.pids()):
        os.kill(pid, signal.SIGKILL)
