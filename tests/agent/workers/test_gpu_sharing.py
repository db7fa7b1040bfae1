"""A model server that sleeps while trials run, against a stand-in with vLLM's endpoints.

The trial itself asks the server whether it sleeps. tests/e2e/test_llm_serve.py uses vLLM.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai_server import Answer, OpenAIServer
from serve_place import Place, place
from sessions import USUAL, check_whole, nothing, resume, start, state_of
from targets import TRAIN, make_bowl

from agent.cli.doctor import check
from agent.cli.entry import main
from agent.errors import EnvironmentProblem, ModelUnavailable, UsageError
from agent.ledger.events import Lost
from agent.ledger.journal import read
from agent.llm import control
from agent.llm import sleep_mode as sleeping
from agent.llm.sleep_mode import Sleeper
from agent.observers.notify import Notifier
from agent.patch.apply import unified_diff
from agent.repo.repo import Repo
from agent.session import setup as launch
from agent.settings import Settings, make_settings
from agent.target import load_target
from agent.workers.gpu_sharing import SharedExperiment, find_sleeper, memory_for_trials
from agent.workers.runtime import workplace
from sandbox import make_sandbox
from sandbox.types import Device

__all__ = ["place"]
GPU = Device("cuda", "GPU-a")


def trainer(server: OpenAIServer, more: str = "") -> str:
    """A trial that asks the server whether it sleeps."""
    ask = f'import urllib.request\n\nurllib.request.urlopen("{Sleeper(server.base_url).root}/is_sleeping?by=trial")\n'
    return f"{ask}{more}\n{TRAIN}"


def replies(text: str) -> list[Answer]:
    edits = (("RATE = 0.01", "RATE = 0.05"), ("value() + noise:.6f", "noise + value():.6f"))
    diffs = (unified_diff(text, text.replace(*edit), "train.py") for edit in edits)
    return [
        Answer(f"Category: optimiser\nSubject: An edit\nRationale: Why not.\n\n```diff\n{diff}```\n") for diff in diffs
    ]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(sleeps=True, models={"tiny": 32768}) as made:
        yield made


def session(target: Path, runs: Path, server: OpenAIServer, **settings: Any) -> Any:
    given = {"proposer": "code", "policy": "greedy", "calibrate": 1, "trials": 2, "llm_sleep": "on", **settings}
    return start(target, runs, llm_base_url=server.base_url, **given)


def test_server_sleeps_during_runs_and_wakes_for_proposals(server: OpenAIServer, tmp_path: Path) -> None:
    text = trainer(server)
    server.replies += replies(text)
    target = make_bowl(tmp_path / "target", train=text)
    server.asleep = True  # as after a killed session
    directory = session(target, tmp_path / "runs", server)
    states = {"/is_sleeping?by=trial": "run", "/v1/chat/completions": "idea"}
    seen = [(states[s.path], s.asleep) for s in server.seen if s.path in states]
    order = [("run", True), ("idea", False), ("run", True), ("idea", False), ("run", True)]
    assert [step for step in seen if step != ("idea", False)] == [("run", True)] * 3
    assert [step for k, step in enumerate(seen) if k == 0 or step != seen[k - 1]][1:] == order
    assert [r.status for r in state_of(directory).records] == ["ok", "ok"]
    assert server.asleep, "the GPU is not free after the session"


def test_server_stays_awake_when_trials_use_cpu(server: OpenAIServer, tmp_path: Path) -> None:
    server.replies += replies(TRAIN)
    session(make_bowl(tmp_path / "target"), tmp_path / "runs", server, llm_sleep="auto")
    assert not [seen.path for seen in server.seen if "sleep" in seen.path or "wake" in seen.path]


def test_server_that_stays_awake_ends_session_without_loss(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies += replies(TRAIN)
    target = make_bowl(tmp_path / "target")
    server.moving = 500
    with monkeypatch.context() as hasty:
        hasty.setattr(sleeping, "PATIENCE", 0.2)
        with pytest.raises(EnvironmentProblem, match="500"):
            session(target, tmp_path / "runs", server)
    server.moving = 200
    directory = resume(tmp_path / "runs")
    check_whole(directory, target, 2)
    assert [r.status for r in state_of(directory).records] == ["ok", "ok"]


def test_run_beside_awake_server_is_repeated(server: OpenAIServer, tmp_path: Path) -> None:
    """The server wakes up during the second of three runs, as after a restart."""
    root, mark = Sleeper(server.base_url).root, tmp_path / "runs-so-far"
    wake = f"""
with open({str(mark)!r}, "a+") as mark:
    mark.write("x")
    mark.seek(0)
    if mark.read() == "xx":
        urllib.request.urlopen({root + "/wake_up"!r}, data=b"")
"""
    text = trainer(server, wake)
    server.replies += replies(text)
    target = make_bowl(tmp_path / "target", train=text)
    directory = session(target, tmp_path / "runs", server)
    lost = [event.reason for event in read(directory.ledger) if isinstance(event, Lost)]
    assert len(lost) == 1
    assert "woke up" in lost[0]
    check_whole(directory, target, 2)
    assert mark.read_text() == "xxxx"


class Sent(Notifier):
    """A notifier that keeps its messages."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, str]] = []
        super().__init__(lambda *message: bool(self.messages.append(message)) or True, "night", 600.0)


@pytest.mark.parametrize("corrupt", ["once", "always"])
def test_night_goes_on_when_the_server_is_corrupt_after_waking(
    place: Place, corrupt: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model server runs under `overnight llm serve`, which restarts it; no idea is blamed."""
    monkeypatch.setattr(control, "POLL", 0.1)
    (place.folder / "corrupt").write_text(corrupt)
    (place.folder / "replies").mkdir()
    for number, answer in enumerate(replies(TRAIN)):
        (place.folder / "replies" / f"{number}.md").write_text(str(answer.text))
    place.await_output(place.start("--sleep"), "answers")
    target, url, sent = make_bowl(place.folder / "target"), f"http://127.0.0.1:{place.port}/v1", Sent()
    given = {
        **USUAL, "target": str(target), "runs": str(place.folder / "runs"), "tag": "night", "cache": str(place.folder),
        "llm_base_url": url, "proposer": "code", "policy": "greedy", "calibrate": 1, "trials": 2, "llm_sleep": "on",
    }  # fmt: skip
    directory = launch.start(make_settings(given, None), sent, nothing)
    state = state_of(directory)
    assert [record.status for record in state.records] == ["ok", "ok"]
    assert state.lost == 0
    actions = ["restarted"] if corrupt == "once" else ["restarted", "split"]
    assert [found.action for found in state.server_problems] == actions
    runs = ["night", "--runs", str(place.folder / "runs")]
    shown = []
    for words in (["status", *runs], ["status", *runs, "--json"], ["report", *runs]):
        assert main(words) == 0
        shown.append(capsys.readouterr().out)
    assert [found["action"] for found in json.loads(shown[1])["server_problems"]] == actions
    notified = [body for _, title, body in sent.messages if "model server" in title]
    assert len(notified) == len(actions)
    for text in (*shown[:2], Path(shown[2].strip()).read_text(), directory.log.read_text(), *notified):
        assert "answers a fixed question otherwise" in " ".join(text.replace("│", "").split())
    check_whole(directory, target, 2)


def test_missing_sleep_mode_is_refused_only_with_on(tmp_path: Path) -> None:
    with OpenAIServer(replies(TRAIN)) as plain:
        target = make_bowl(tmp_path / "target")
        with pytest.raises(EnvironmentProblem, match="--llm-sleep on"):
            session(target, tmp_path / "runs", plain)
        assert not (tmp_path / "runs").exists()
        session(target, tmp_path / "runs", plain, llm_sleep="auto")


def test_llm_sleep_setting_selects_the_sleeper(server: OpenAIServer) -> None:
    def sleeps(device: Device, **settings: Any) -> bool:
        return find_sleeper(Settings(**{"llm_base_url": server.base_url, **settings}), device) is not None

    elsewhere = "http://model.example:8000"
    assert sleeps(GPU)
    assert not sleeps(Device("cpu"))
    assert sleeps(Device("cpu"), llm_sleep="on")
    assert not sleeps(GPU, llm_sleep="off")
    assert not sleeps(GPU, llm_base_url=elsewhere)
    assert not sleeps(GPU, proposer="cma-es", llm_sleep="on")
    assert sleeps(GPU, proposer="centaur", llm_base_url=server.base_url.replace("127.0.0.1", "localhost"))
    server.sleeps = False
    assert not sleeps(GPU)


def test_stopped_server_counts_as_asleep() -> None:
    with OpenAIServer(sleeps=True) as server:
        sleeper = Sleeper(server.base_url)
        sleeper.asleep()
        assert server.asleep
    sleeper.awake()
    sleeper.asleep()
    sleeper.check_slept()


def test_server_that_does_not_wake_is_unavailable(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = Sleeper(server.base_url)
    sleeper.asleep()
    server.moving = 503
    with monkeypatch.context() as hasty:
        hasty.setattr(sleeping, "PATIENCE", 0.1)
        with pytest.raises(ModelUnavailable, match="503"):
            sleeper.awake()
    server.moving = 200
    sleeper.awake()
    assert not server.asleep


def test_doctor_does_not_wake_the_server(server: OpenAIServer, tmp_path: Path) -> None:
    server.asleep = True
    findings = {f.name: f for f in check(server.base_url, tmp_path, tmp_path, "", None)}
    assert findings["model server"].ok
    assert "asleep" in findings["model server"].found
    assert not server.chats
    assert server.asleep


@pytest.mark.parametrize(("device", "limit"), [(GPU, "48.5"), (Device("cpu"), None)])
def test_trial_receives_its_gpu_memory_limit(tmp_path: Path, device: Device, limit: str | None) -> None:
    target = replace(load_target(make_bowl(tmp_path / "target"))[0], vram_gb=48.5)
    repo = Repo(target.folder)
    experiment = SharedExperiment(repo.tree, target, make_sandbox("process"), device, "x")
    assert experiment._base(tmp_path).env.get("OVERNIGHT_VRAM_GB") == limit


def test_several_workers_refuse_a_sleeping_server(
    tmp_path: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = workplace(Settings(target=str(make_bowl(tmp_path / "t")), sandbox="process", device="cpu"), nothing)
    monkeypatch.setattr(type(place), "sleeper", Sleeper(server.base_url))
    with pytest.raises(UsageError, match="--workers 2"):
        place.experiments("x", lambda: False, 2)


@pytest.mark.parametrize(
    ("used", "given", "limit"),
    [(500, None, None), (500, 76.0, 76.0), (30720, None, 47.5), (30720, 76.0, 47.5), (30720, 40.0, 40.0)],
)
def test_trial_gets_gpu_memory_left_by_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: int, given: float | None, limit: float | None
) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(f"#!/bin/sh\necho {used}, 81920\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:/usr/bin:/bin")
    folder = tmp_path / "target"
    folder.mkdir()
    text = '[target]\neditable = ["train.py"]\ntrain = ["python"]\n[budget]\nsteps = 1\n'
    (folder / "target.toml").write_text(text + (f"[limits]\nvram_gb = {given}\n" if given else ""))
    target, said = load_target(folder)[0], list[str]()
    shared = Settings(llm_base_url="http://127.0.0.1:8000/v1")
    assert memory_for_trials(target, shared, GPU, None, said.append).vram_gb == limit
    assert bool(said) == (limit != given)
    assert memory_for_trials(target, shared, GPU, Sleeper("http://x/v1"), said.append) is target
    assert memory_for_trials(target, Settings(proposer="tpe"), GPU, None, said.append) is target
