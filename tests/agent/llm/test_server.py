"""``overnight llm serve`` with real processes and a stand-in for vLLM's executable.

tests/e2e/test_llm_serve.py runs vLLM itself.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from budgets import PROGRAM_SECONDS
from serve_place import Place, alive, place, wait_for

from agent.cli.llm import serve as serve_command
from agent.errors import EnvironmentProblem, OvernightError, UsageError
from agent.llm import server as serving
from agent.llm.client import ChatModel
from agent.llm.server_plan import Plan, make_plan

__all__ = ["place"]


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
    assert command.wait(PROGRAM_SECONDS) == 0
    assert len(place.pids()) == 4
    assert not [pid for pid in place.pids() if alive(pid)]


def test_ctrl_c_stops_a_loading_server(place: Place) -> None:
    (place.folder / "silent").touch()
    command = place.start()
    wait_for(place.starts, "a start")
    place.await_output(command, "without sleep mode")
    assert "--enable-sleep-mode" not in place.starts()[0]["argv"]
    command.send_signal(signal.SIGINT)
    assert command.wait(PROGRAM_SECONDS) == 130
    assert not [pid for pid in place.pids() if alive(pid)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_leaves_no_server(place: Place, number: int) -> None:
    (place.folder / "slow").touch()
    command = place.start()
    place.await_output(command, "answers")
    command.send_signal(number)
    wait_for((place.folder / "ending").exists, "the server is asked to end")
    command.send_signal(number)
    command.wait(PROGRAM_SECONDS)
    assert not [pid for pid in place.pids() if alive(pid)]


def test_signal_during_a_restart_leaves_no_server(place: Place) -> None:
    (place.folder / "slow").touch()
    command = place.start()
    place.await_output(command, "answers")
    (place.folder / "llm" / f"serve-{place.port}.restart").write_text("restart")
    wait_for((place.folder / "ending").exists, "the server is asked to end")
    command.send_signal(signal.SIGTERM)
    assert command.wait(PROGRAM_SECONDS) == 0
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
    assert command.wait(PROGRAM_SECONDS) == 1
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
    def plan(model: str, *extra: str) -> Plan:
        return make_plan("vllm", model, "::1", 8000, False, False, None, 2048, tmp_path, extra)

    (tmp_path / "tiny").mkdir()
    assert plan(str(tmp_path / "tiny")).name == "tiny"
    assert plan("some/model", "--served-model-name=short").name == "short"
    assert plan("some/model", "--served-model-name", "short").name == "short"
    assert plan("some/model").root == "http://[::1]:8000"
    assert "--max-num-batched-tokens 2048" in " ".join(plan("some/model").argv)
