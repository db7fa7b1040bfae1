"""`overnight llm serve` with real vLLM: start, sleep, wake, restart after a kill, clean end.

On a CPU, vLLM's sleep mode frees no memory and has no flag. Its development endpoints exist, and a sleeping server does
not answer requests: the test uses that.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import budgets
import pytest
from conftest import ROOT, missing
from ports import free_port

from agent.errors import ModelUnavailable
from agent.llm.client import ChatModel
from agent.llm.control import RESTART, Control
from agent.llm.retries import Retries
from agent.llm.sleep_mode import Sleeper, call
from agent.llm.sleeping_server import SleepingServer, WakingChat
from sandbox.supervisor import descendants
from sandbox.types import Device

HELLO = [{"role": "user", "content": "Say something."}]
HOME = Path(os.environ.get("OVERNIGHT_CACHE", "~/.cache/overnight")).expanduser() / "e2e" / "vllm-0.32.0"
CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1",
    "VLLM_SERVER_DEV_MODE": "1",
}  # fmt: skip


@dataclass
class Served:
    command: subprocess.Popen[str]
    folder: Path

    @property
    def said(self) -> str:
        return (self.folder / "err").read_text()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    program = Path(sys.executable).parent / "overnight"
    script = ROOT / "scripts" / "vllm-server.sh"
    if subprocess.run([script, "installed"], stdin=subprocess.DEVNULL, capture_output=True).returncode != 0:
        missing("no vLLM environment")
    words = [
        program, "llm", "serve", HOME / "tiny", "--vllm", HOME / "venv" / "bin" / "vllm", "--port", free_port(),
        "--max-model-len", 8192, "--log", tmp_path / "vllm.log", "--cache", tmp_path, "--", "--enforce-eager",
        "--dtype", "float32",
    ]  # fmt: skip
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        command = subprocess.Popen(
            [*map(str, words)], stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, env={**os.environ, **CPU}
        )
    yield Served(command, tmp_path)
    command.kill()
    command.wait()


def engine_of(served: Served) -> int:
    """The newest engine process in the log."""
    return int(re.findall(r"EngineCore pid=(\d+)", (served.folder / "vllm.log").read_text())[-1])


def wait_for(served: Served, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + budgets.SERVER_START_SECONDS
    while not condition():
        if served.command.poll() is not None or time.monotonic() > deadline:
            pytest.fail(
                f"did not happen: {what}\n{served.said}\n{(served.folder / 'vllm.log').read_text()[-4000:]}",
                pytrace=False,
            )
        time.sleep(0.2)


def test_server_starts_sleeps_restarts_and_ends(served: Served) -> None:
    wait_for(served, lambda: "tiny answers" in served.said, "up")
    line = (served.folder / "out").read_text().split()
    assert line[:3] == ["overnight", "run", "--llm-base-url"]
    assert line[4:] == ["--llm-model", "tiny"]
    model = ChatModel(line[3])
    assert model.describe().structured == {"schema", "grammar"}
    assert model.complete(HELLO, max_tokens=4).tokens_out == 4

    sleeper = Sleeper(line[3])
    sleeper.asleep()
    assert sleeper.sleeping() is True
    assert call(sleeper.root, "GET", "/health", budgets.REQUEST_SECONDS)[0] == 200, (
        "a sleeping server must stay healthy"
    )
    hasty = ChatModel(line[3], "tiny", timeout=2, retries=Retries(max_attempts=1))
    with pytest.raises(ModelUnavailable):
        hasty.complete(HELLO, max_tokens=4)
    server, problems = SleepingServer(line[3], served.folder, Device("cpu")), list[str]()
    server.report = lambda problem, action: problems.append(f"{action}: {problem}")
    chat = WakingChat(model, server)
    control = Control(served.folder, int(line[3].rpartition(":")[2].removesuffix("/v1")))
    before = control.served()
    assert before is not None
    assert before.canary
    assert chat.complete(HELLO, max_tokens=4).tokens_out == 4
    assert sleeper.sleeping() is False
    server.asleep()
    before_restart = engine_of(served)
    control.restart(RESTART, lambda: False)
    assert engine_of(served) != before_restart
    assert chat.complete(HELLO, max_tokens=4).tokens_out == 4
    assert not problems, "vLLM answers the canary otherwise after sleep, wake and restart"

    first = engine_of(served)
    os.kill(first, signal.SIGKILL)
    wait_for(served, lambda: served.said.count("tiny answers") == 3, "back after the engine was killed")
    assert model.complete(HELLO, max_tokens=4).tokens_out == 4

    before = descendants(served.command.pid)
    assert engine_of(served) in before
    assert first not in before
    served.command.terminate()
    assert served.command.wait(budgets.SERVER_STOP_SECONDS) == 0
    assert not [pid for pid in before if Path(f"/proc/{pid}").exists()]
    assert (served.folder / "out").read_text().count("overnight run") == 1
