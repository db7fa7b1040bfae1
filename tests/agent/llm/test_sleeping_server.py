"""Checks of a model server after each sleep and each wake: a stand-in corrupts, leaks, or answers 200 with nonsense.

tests/e2e/test_llm_serve.py uses vLLM.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from llm_client import ASK
from openai_server import Answer, OpenAIServer, is_canary
from serve_place import Place, place

from agent.errors import ModelUnavailable
from agent.llm import control, sleeping_server
from agent.llm.client import ChatModel
from agent.llm.control import Control
from agent.llm.sleeping_server import SleepingServer, WakingChat
from sandbox.types import Device

__all__ = ["place"]
GPU, CPU = Device("cuda", "GPU-a"), Device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sleeping_server, "RECHECK", 0.1)
    monkeypatch.setattr(control, "POLL", 0.1)


class Watched:
    """A sleeping server with a model, and the problems that it reported."""

    def __init__(self, base_url: str, cache: Path, device: Device = CPU, may_split: bool = True) -> None:
        self.server = SleepingServer(base_url, cache, device, may_split)
        self.problems: list[tuple[str, str]] = []
        self.server.report = lambda *problem: self.problems.append(problem)
        self.chat = WakingChat(ChatModel(base_url, patience=0.0), self.server)

    @property
    def actions(self) -> list[str]:
        return [action for _, action in self.problems]

    def ask(self) -> str:
        return self.chat.complete(ASK).text

    def cycle(self, times: int = 1) -> None:
        """A trial and a request."""
        for _ in range(times):
            self.server.asleep()
            self.ask()


# a server that was not started by `overnight llm serve`


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(["fine"] * 9, sleeps=True) as made:
        yield made


def test_same_answer_after_each_wake_is_no_problem(server: OpenAIServer, tmp_path: Path) -> None:
    watched = Watched(server.base_url, tmp_path)
    assert watched.ask() == "fine"
    watched.cycle(2)
    assert not watched.problems
    canaries = [seen.body for seen in server.seen if is_canary(seen.body)]
    assert len(canaries) == 3 + 2, "three before the first request, one after each wake"
    assert {body["temperature"] for body in canaries} == {0.0}


@pytest.mark.parametrize("wrong", [Answer("!!!!"), Answer(raw="<html>fine</html>"), Answer(""), Answer(status=500)])
def test_wrong_answer_after_waking_makes_the_session_wait(server: OpenAIServer, tmp_path: Path, wrong: Answer) -> None:
    watched = Watched(server.base_url, tmp_path)
    watched.ask()
    healthy, server.woken = server.canary, wrong
    watched.server.asleep()
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match=r"[Rr]estart the server"):
            watched.ask()
    assert watched.actions == ["waiting"], "one message, however often the session asks"
    assert len(server.chats) == 1, "a request went to a server that answers wrongly"
    server.canary, server.woken = healthy, None  # the user has restarted it
    assert watched.ask() == "fine"


def test_growing_memory_of_a_server_started_otherwise_is_noted(
    server: OpenAIServer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{place.folder}/bin:/usr/bin:/bin")
    place.script(
        "nvidia-smi",
        f'case "$*" in *total*) echo "$(cat {place.folder}/used), 81920";; *) cat {place.folder}/used;; esac',
    )
    watched = Watched(server.base_url, place.folder, GPU)
    for used, problems in ((2000, 0), (3600, 0), (3700, 1), (9000, 1)):
        (place.folder / "used").write_text(str(used))
        watched.cycle()
        assert len(watched.problems) == problems
    assert watched.actions == ["noted"]
    assert "3.6 GB" in watched.problems[0][0]


def test_server_that_never_answers_twice_the_same_is_not_checked(server: OpenAIServer, tmp_path: Path) -> None:
    answers = iter(range(99))
    server.next_canary = lambda: Answer(str(next(answers)))
    watched = Watched(server.base_url, tmp_path)
    watched.ask()
    watched.cycle(2)
    assert watched.actions == ["noted"]


# a server of `overnight llm serve`


def served(place: Place, device: Device = GPU, may_split: bool = True) -> Watched:
    place.add_gpu(used=500)
    place.await_output(place.start(), "answers")
    return Watched(f"http://127.0.0.1:{place.port}/v1", place.folder, device, may_split)


@pytest.fixture
def smi(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{place.folder}/bin:/usr/bin:/bin")


def test_corrupt_server_is_restarted(place: Place, smi: None) -> None:
    (place.folder / "corrupt").write_text("once")
    watched = served(place)
    watched.ask()
    watched.cycle(2)
    assert watched.actions == ["restarted"]
    assert len(place.starts()) == 2
    watched.cycle()
    assert watched.actions == ["restarted"]


def test_restart_that_does_not_help_turns_sleep_off(place: Place, smi: None) -> None:
    (place.folder / "corrupt").write_text("always")
    watched = served(place)
    watched.cycle(3)
    assert watched.actions == ["restarted", "split"]
    assert watched.server.off
    words = [" ".join(start["argv"]) for start in place.starts()]
    assert ["--enable-sleep-mode" in line for line in words] == [True, True, False]
    assert "--gpu-memory-utilization 0.3" in words[2]


@pytest.mark.parametrize(("may_split", "most_gb"), [(False, 0.0), (True, 70.0)])
def test_session_waits_where_memory_is_not_split(place: Place, smi: None, may_split: bool, most_gb: float) -> None:
    (place.folder / "corrupt").write_text("always")
    watched = served(place, may_split=may_split)
    watched.server.most_gb = most_gb  # beside a server with 30 % of 86 GB there is no room for 70
    watched.cycle()
    watched.server.asleep()
    with pytest.raises(ModelUnavailable, match="otherwise after waking"):
        watched.ask()
    assert watched.actions == ["restarted", "waiting"]


def test_slow_leak_is_mended_by_each_restart(place: Place, smi: None) -> None:
    (place.folder / "leak").write_text("450")  # 1,638 MiB are allowed: too much at the fifth sleep
    watched = served(place)
    watched.cycle(4)
    assert not watched.problems
    watched.cycle(4)
    assert watched.actions == ["restarted"]
    watched.cycle(1)
    assert watched.actions == ["restarted", "restarted"]


def test_fast_leak_turns_sleep_off(place: Place, smi: None) -> None:
    (place.folder / "leak").write_text("2000")
    watched = served(place)
    watched.cycle(3)
    assert watched.actions == ["restarted", "split"]


def test_ended_command_is_no_manager(place: Place, smi: None) -> None:
    served(place)
    desk = Control(place.folder, place.port)
    assert desk.served() is not None
    place.commands[0].kill()
    place.commands[0].wait()
    assert desk.served() is None
    with pytest.raises(ModelUnavailable, match="did not come back"):
        desk.restart(control.RESTART, lambda: False)
