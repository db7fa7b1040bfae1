"""``overnight llm serve`` with real processes and a stand-in for vLLM's executable.

tests/e2e/test_llm_serve.py runs vLLM itself.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from places import ROOT, TESTS

from agent.cli.llm import serve as serve_command
from agent.errors import EnvironmentProblem, OvernightError, UsageError
from agent.llm import server as serving
from agent.llm.client import ChatModel

STAND_IN = TESTS / "support" / "vllm_stand_in.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 240.0) -> None:
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
        self.script("nvidia-smi", f'case "$*" in *uuid*) echo GPU-a;; *memory.used*) cat {self.folder}/used;; esac')

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ, "STAND_IN": str(self.folder), "OVERNIGHT_LLM_API_KEY": "secret-of-the-session",
            "PATH": f"{self.folder}/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = subprocess.Popen(
            [sys.executable, "-P", "-m", "agent.cli", "llm", "serve", "some/model", "--port", str(self.port),
             "--log", str(self.folder / "vllm.log"), *words],
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
                seen += self.output[command.pid].get(timeout=240)
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


def test_server_restarts_after_crash_and_stops(place: Place) -> None:
    place.add_gpu(used=500)
    command = place.start("--max-model-len", "4096", "--", "--quantization", "fp8")
    assert command.stdout is not None
    url = f"http://127.0.0.1:{place.port}"
    assert command.stdout.readline() == f"overnight run --llm-base-url {url}/v1 --llm-model some/model\n"
    first = place.starts()[0]
    line = " ".join(first["argv"])
    assert line.startswith("serve some/model --served-model-name some/model --seed 0 ")
    for words in (
        "--gpu-memory-utilization 0.9", "--max-model-len 4096", "--enable-sleep-mode --quantization fp8",
        f"--host 127.0.0.1 --port {place.port}",
    ):  # fmt: skip
        assert words in line
    assert first["env"]["VLLM_SERVER_DEV_MODE"] == "1"
    assert "secret-of-the-session" not in first["env"].values()
    assert ChatModel(f"{url}/v1").complete([{"role": "user", "content": "?"}]).text == "a small change"

    place.add_gpu(used=60_000)  # a trial is running
    os.kill(first["pids"][0], signal.SIGKILL)
    output = place.await_output(command, "21 GB are free")
    assert "signal 9" in output
    assert not alive(first["pids"][1]), "a child of the crashed server is still running"
    assert len(place.starts()) == 1, "the server restarted beside a trial"
    place.add_gpu(used=500)
    place.await_output(command, "answers")
    assert ChatModel(f"{url}/v1").complete([{"role": "user", "content": "?"}]).text == "a small change"

    command.terminate()
    assert command.wait(240) == 0
    assert len(place.pids()) == 4
    assert not [pid for pid in place.pids() if alive(pid)]


def test_ctrl_c_stops_a_loading_server(place: Place) -> None:
    (place.folder / "silent").touch()
    command = place.start()
    wait_for(place.starts, "a start")
    place.await_output(command, "without sleep mode")
    assert "--enable-sleep-mode" not in place.starts()[0]["argv"]
    command.send_signal(signal.SIGINT)
    assert command.wait(240) == 130
    assert not [pid for pid in place.pids() if alive(pid)]


def test_server_ends_when_its_command_is_killed(place: Place) -> None:
    command = place.start()
    place.await_output(command, "answers")
    pids = place.pids()
    assert all(map(alive, pids))
    command.kill()
    command.wait()
    wait_for(lambda: not any(map(alive, pids)), "the server ends")
    assert place.pids() == pids, "no other server started"


def test_server_that_fails_to_start_is_not_retried(place: Place) -> None:
    (place.folder / "broken").touch()
    command = place.start()
    assert command.wait(240) == 1
    output = place.await_output(command, "overnight: ")
    assert "exit status 1: ValueError: no room for the weights" in output
    assert str(place.folder / "vllm.log") in output


def serve(place: Place, **changed: Any) -> int:
    given = {
        "action": "serve", "model": "some/model", "vllm": str(place.vllm), "port": place.port, "host": "127.0.0.1",
        "gpu_memory_utilization": None, "max_model_len": None, "sleep": None, "log": place.folder / "vllm.log",
        "cache": str(place.folder),
    }  # fmt: skip
    return serve_command(**{**given, **changed})


def test_server_that_keeps_crashing_is_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving, "PAUSES", (0.1, 0.1))
    monkeypatch.setenv("STAND_IN", str(place.folder))
    (place.folder / "dying").touch()
    with pytest.raises(OvernightError, match="exit status 1: ValueError: no room for the weights"):
        serve(place)
    assert len(place.starts()) == 3
    assert capsys.readouterr().out.count("overnight run") == 1
    assert not [pid for pid in place.pids() if alive(pid)]


def test_usage_errors_come_before_any_start(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place.folder))
    with pytest.raises(EnvironmentProblem, match=r"vllm.*--vllm.*OVERNIGHT_VLLM"):
        serve(place, vllm=None)
    monkeypatch.setenv("OVERNIGHT_VLLM", "/nowhere/vllm")
    with pytest.raises(EnvironmentProblem, match="/nowhere/vllm"):
        serve(place, vllm=None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", place.port))
        taken.listen()
        with pytest.raises(EnvironmentProblem, match=f"127.0.0.1:{place.port}.*--port"):
            serve(place)
    with pytest.raises(UsageError, match=r"--host 0\.0\.0\.0"):
        serve(place, host="0.0.0.0")
    for words in (["--port=1"], ["--gpu_memory_utilization", "0.5"], ["--enable-sleep-mode"]):
        with pytest.raises(UsageError, match=words[0]):
            serve(place, extra=words)
    with pytest.raises(UsageError, match="--gpu-memory-utilization"):
        serve(place, gpu_memory_utilization=30.0)
    assert not place.starts()


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("(APIServer pid=7) INFO 11-23 14:05:09 [api.py:3] started\nKilled", "Killed"),
        ("(EngineCore pid=7) ERROR 11-23 14:05:09 [core.py:3] torch.OutOfMemoryError: CUDA\n"
         "(APIServer pid=6) RuntimeError: Engine core initialization failed. See root cause above.",
         "torch.OutOfMemoryError: CUDA"),
        ("usage: vllm\nvllm: error: unrecognized arguments: --what", "vllm: error: unrecognized arguments: --what"),
        ("pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, No sleep here. "
         "[type=value_error, input_value=ArgsKwargs((), {})]\n    For further information visit x",
         "ValueError: No sleep here."),
        ("", ""),
    ],
)  # fmt: skip
def test_log_line_explains_the_crash(log: str, why: str) -> None:
    assert serving.reason_in([serving.without_prefix(line) for line in log.splitlines()]) == why


def test_plan_names_model_and_address(tmp_path: Path) -> None:
    def plan(model: str, *extra: str) -> serving.Plan:
        return serving.make_plan("vllm", model, "::1", 8000, False, False, None, 2048, tmp_path, extra)

    (tmp_path / "tiny").mkdir()
    assert plan(str(tmp_path / "tiny")).name == "tiny"
    assert plan("some/model", "--served-model-name=short").name == "short"
    assert plan("some/model", "--served-model-name", "short").name == "short"
    assert plan("some/model").root == "http://[::1]:8000"
    assert "--max-num-batched-tokens 2048" in " ".join(plan("some/model").argv)
