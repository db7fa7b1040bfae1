"""`overnight llm serve` with vLLM itself: it comes up, is killed and comes back, sleeps and wakes, and leaves nothing.

On a CPU vLLM's sleep frees nothing, and it has no flag for it; its development endpoints are the same ones, and a
server that was told to sleep answers nobody until it is woken: that much is tried here.
"""

from __future__ import annotations

import contextlib
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
from conftest import ROOT, free_port, missing

from agent.errors import ModelUnavailable
from agent.llm.client import ChatModel
from agent.llm.sleep_mode import Sleeper, WakingChat, call

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
        "--max-model-len", 8192, "--log", tmp_path / "vllm.log", "--", "--enforce-eager", "--dtype", "float32",
    ]  # fmt: skip
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        command = subprocess.Popen(
            [*map(str, words)], stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, env={**os.environ, **CPU}
        )
    yield Served(command, tmp_path)
    command.kill()
    command.wait()


def engine_of(served: Served) -> int:
    """The process that computes, by what the newest one says in the log."""
    return int(re.findall(r"EngineCore pid=(\d+)", (served.folder / "vllm.log").read_text())[-1])


def descendants(root: int) -> list[int]:
    """Every process below one."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            rest = (folder / "stat").read_text().rpartition(")")[2]
            parents.setdefault(int(rest.split()[1]), []).append(int(folder.name))
    found, todo = [], [root]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def wait_for(served: Served, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + budgets.SERVER_START_SECONDS
    while not condition():
        if served.command.poll() is not None or time.monotonic() > deadline:
            pytest.fail(
                f"never: {what}\n{served.said}\n{(served.folder / 'vllm.log').read_text()[-4000:]}", pytrace=False
            )
        time.sleep(0.2)


def test_vllm_comes_up_comes_back_sleeps_and_goes(served: Served) -> None:
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
    assert call(sleeper.root, "GET", "/health", 10.0)[0] == 200, "asleep it looks dead to whoever watches it"
    hasty = ChatModel(line[3], "tiny", timeout=2, max_attempts=1)
    with pytest.raises(ModelUnavailable):
        hasty.complete(HELLO, max_tokens=4)
    assert WakingChat(model, sleeper).complete(HELLO, max_tokens=4).tokens_out == 4
    assert sleeper.sleeping() is False

    first = engine_of(served)
    os.kill(first, signal.SIGKILL)
    wait_for(served, lambda: served.said.count("tiny answers") == 2, "back after the engine was killed")
    assert model.complete(HELLO, max_tokens=4).tokens_out == 4

    before = descendants(served.command.pid)
    assert engine_of(served) in before
    assert first not in before
    served.command.terminate()
    assert served.command.wait(budgets.SERVER_STOP_SECONDS) == 0
    assert not [pid for pid in before if Path(f"/proc/{pid}").exists()]
    assert (served.folder / "out").read_text().count("overnight run") == 1
