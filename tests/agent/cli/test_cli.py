"""The program: help, commands that read, signals, locks, background sessions."""

from __future__ import annotations

import fcntl
import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import budgets
import pytest
from openai_server import Answer, OpenAIServer, event
from sessions import check_whole, start, state_of
from targets import TOML, TRAIN, git, make_bowl

from agent.cli.demo import activation
from agent.cli.entry import main
from agent.cli.parser import build_parser, commands_of
from agent.rundir.directory import RunDirectory
from agent.target import load_target

PATIENCE = budgets.PROGRAM_SECONDS
SLOW = TRAIN.replace("\nnoise =", "import time\n\ntime.sleep(0.3)\nnoise =")
# Every trial but the baseline trains until the file GO exists.
HELD = TRAIN.replace(
    "\nnoise =",
    """
import pathlib
import time

while RATE != 0.01 and not pathlib.Path(GO).exists():
    time.sleep(0.02)
noise =""",
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "target")


def make_held(folder: Path) -> tuple[Path, Path]:
    """A target whose trials train until a file exists; and that file."""
    go = folder / "go"
    return make_bowl(folder / "target", HELD.replace("GO", repr(str(go))), TOML.replace("= 20", "= 600")), go


def program(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "agent.cli", *map(str, words)]


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def running(target: Path, runs: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], RunDirectory]]:
    """A running session, with its first trial asked for."""
    command = program(
        "run", "--target", target, "--runs", runs, "--tag", "night", "--proposer", "random", "--sandbox", "process",
        "--policy", "greedy", "--calibrate", "1", *words,
    )  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    directory = RunDirectory(runs, "night")
    try:
        wait_for(lambda: process.poll() is not None or (directory.ledger.exists() and state_of(directory).records))
        yield process, directory
    finally:
        process.kill()
        process.communicate()


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom agent.cli.entry import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if '.' not in m), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    heavy = {"torch", "numpy", "openai", "docker", "git", "rich", "cmaes", "optuna", "sklearn", "scipy", "unidiff",
             "tokenizers", "jinja2", "matplotlib", "asyncio", "http"}  # fmt: skip
    assert "usage: overnight" in done.stdout
    assert not [name for name in heavy if f"'{name}'" in done.stderr]


@pytest.mark.parametrize("command", commands_of(build_parser()))
def test_every_command_has_a_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as found:
        main([command, "--help"])
    assert found.value.code == 0
    assert f"usage: overnight {command}" in capsys.readouterr().out


def test_function_of_every_command_exists() -> None:
    for parser in commands_of(build_parser()).values():
        assert callable(pkgutil.resolve_name(parser.get_default("function")))


def test_help_of_run_has_groups_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    groups = ["what to run", "when to end", "model", "acceptance", "search", "scale", "notification and trackers"]
    places = [text.index(f"\n{group}:\n") for group in groups]
    assert places == sorted(places)
    assert text.count("\n  overnight run ") >= 2


def test_options_of_earlier_versions_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["list", "--cache", "somewhere"]) == 0


def test_reading_commands_print_text_and_json(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = str(tmp_path / "runs")
    directory = start(target, tmp_path / "runs", policy="greedy", seed=1, trials=3)

    def read(*words: str) -> str:
        capsys.readouterr()
        assert main([*words, "--runs", runs]) == 0
        return capsys.readouterr().out

    state = state_of(directory)
    log = json.loads(read("log", "night", "--json"))
    assert [t["trial"] for t in log] == [1, 2, 3]
    assert [t["decision"] for t in log] == [r.decision for r in state.records]
    assert log[0]["source"] == "cma"
    assert json.loads(read("list", "--json"))[0]["tag"] == "night"
    assert json.loads(read("status", "--json"))["tag"] == "night"
    assert json.loads(read("show", "night", "1", "--json"))["trial"] == 1
    assert "night" in read("list")
    assert "3 of 3" in read("status", "night")
    assert state.records[0].proposal.subject[:20] in read("log", "night", "--all")
    assert "RATE" in read("show", "night", "1")
    assert Path(read("report", "night").strip()).read_text().startswith("<!doctype html>")
    for words in (["status"], ["show", "1"], ["list"]):
        assert not re.search(r" $", read(*words), re.M), "spaces at the end of a line"
    for words in (["log", "--all"], ["log", "--json"], ["show", "1"], ["report"]):
        assert read(*words) == read(words[0], "night", *words[1:]), "the newest run is the default"


def test_closed_pipe_is_no_error(target: Path, tmp_path: Path) -> None:
    start(target, tmp_path / "runs", trials=2)
    command = " ".join(program("log", "night", "--all", "--runs", tmp_path / "runs"))
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"{command} | head -c 1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_ctrl_c_ends_after_the_running_trial(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", SLOW)
    with running(target, tmp_path / "runs") as (process, directory):
        wait_for(lambda: any(record.candidate for record in state_of(directory).records))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "once more ends at once" in err
    state = state_of(directory)
    assert state.ended == "stopped by the user"
    check_whole(directory, target, len(state.records))


def test_ctrl_c_ends_a_session_whose_model_streams(tmp_path: Path) -> None:
    thinking = Answer(
        events=tuple(piece for _ in range(20_000) for piece in (event({"reasoning_content": "so "}), 0.05))
    )
    with OpenAIServer([thinking]) as server:
        command = program(
            "run", "--target", make_bowl(tmp_path / "target"), "--runs", tmp_path / "runs", "--sandbox", "process",
            "--policy", "greedy", "--calibrate", "1", "--llm-base-url", server.base_url, "--tag", "night",
        )  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: process.poll() is not None or server.chats)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert server.left.wait(PATIENCE), "the server still generates"
    state = state_of(RunDirectory(tmp_path / "runs", "night"))
    assert (state.ended, state.records) == ("stopped by the user", ())


def test_resume_repeats_trial_after_second_ctrl_c(tmp_path: Path) -> None:
    target, go = make_held(tmp_path)
    runs = tmp_path / "runs"
    with running(target, runs) as (process, directory):
        wait_for(lambda: any(started.trial for started in state_of(directory).started))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any("once more ends at once" in line for line in process.stderr)  # two simultaneous signals count as one
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    state = state_of(directory)
    assert "at once" in str(state.ended)
    assert not state.started
    go.touch()
    (number,) = state.open
    assert main(["resume", "night", "--runs", str(runs), "--trials", str(number)]) == 0
    check_whole(directory, target, number)


@pytest.mark.parametrize("now", [False, True])
def test_stop_command_ends_session(tmp_path: Path, now: bool) -> None:
    target, go = make_held(tmp_path)
    runs = tmp_path / "runs"
    with running(target, runs) as (process, directory):
        wait_for(lambda: any(started.trial for started in state_of(directory).started))
        done = subprocess.run(
            program("stop", "night", "--runs", runs, *(["--now"] if now else [])), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        if not now:
            go.touch()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == (130 if now else 0), err
    assert not directory.running()
    go.touch()
    number = len(state_of(directory).records) + 1
    assert main(["resume", "night", "--runs", str(runs), "--trials", str(number)]) == 0
    check_whole(directory, target, number)


def test_run_allows_one_session_repository_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = make_bowl(tmp_path / "target", SLOW)
    runs = tmp_path / "runs"
    with running(target, runs, "--trials", "100") as (process, directory):
        assert main(["resume", "night", "--runs", str(runs)]) == 2
        assert f"process {process.pid}" in capsys.readouterr().err
        start(target, runs, tag="other", trials=1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    check_whole(RunDirectory(runs, "other"), target, 1)
    state = state_of(directory)
    if state.open:  # the signal came after a proposal and before its commit
        assert main(["resume", "night", "--runs", str(runs), "--trials", str(len(state.records))]) == 0
    check_whole(directory, target, len(state.records))


def test_killed_session_leaves_no_lock(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", SLOW)
    runs = tmp_path / "runs"
    with running(target, runs) as (process, directory):
        process.kill()
        process.wait()
        number = len(state_of(directory).records)
        assert main(["resume", "night", "--runs", str(runs), "--trials", str(number)]) == 0
    check_whole(directory, target, number)


def test_lock_waits_for_forked_child(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "night")
    directory.path.mkdir()
    with (directory.path / "lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(file.fileno(),))
    assert directory.running()
    assert child.stdin is not None
    threading.Timer(1.5, child.stdin.close).start()  # a machine under load forks slowly
    with directory.lock():
        assert directory.running()
    child.wait()


def test_detached_session_survives_its_terminal(target: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    command = program(
        "run", "--detach", "--target", target, "--runs", runs, "--proposer", "random", "--sandbox", "process",
        "--policy", "greedy", "--calibrate", "1", "--trials", "3",
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 0, done.stderr
    directory = RunDirectory(runs, done.stdout.strip())
    wait_for(lambda: directory.ledger.exists() and state_of(directory).ended)
    wait_for(lambda: not directory.running())
    check_whole(directory, target, 3)


def test_settings_precedence_flag_file_target(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    toml = target / "target.toml"
    run = '[run]\nproposer = "random"\nsandbox = "process"\npolicy = "greedy"\ntrials = 9\ncalibrate = 2\nseed = 5\n'
    toml.write_text(toml.read_text() + run)
    git(target, "commit", "-qam", "Settings")
    assert main(["trust", str(target)]) == 0
    config = tmp_path / "night.toml"
    config.write_text("trials = 4\ncalibrate = 1\n")
    words = ["--target", str(target), "--config", str(config), "--runs", str(tmp_path / "runs"), "--tag", "night"]
    assert main(["run", *words, "--trials", "2"]) == 0
    state = state_of(RunDirectory(tmp_path / "runs", "night"))
    assert len(state.records) == 2
    assert sum(run.role == "calibrate" for run in state.baseline_runs) == 1
    assert state.session.seed == 5
    assert state.session.proposer == "random"


def test_init_makes_committed_target_per_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for preset in ("demo", "cpu", "gpu"):
        folder = tmp_path / preset
        assert main(["init", str(folder), "--preset", preset]) == 0
        assert git(folder, "log", "--format=%s") == f"Start from preset {preset}"
        assert git(folder, "status", "--porcelain") == ""
        assert sorted(p.name for p in folder.iterdir() if p.name != ".git") == [
            "README.md",
            "notes.md",
            "target.toml",
            "train.py",
        ]
    assert "overnight run" in capsys.readouterr().out
    assert load_target(tmp_path / "demo")[1] == {"threads": 1}


def test_session_output_is_plain_in_a_pipe(target: Path, tmp_path: Path) -> None:
    words = ("--target", target, "--runs", tmp_path / "runs", "--proposer", "random", "--sandbox", "process",
             "--trials", "2", "--policy", "greedy")  # fmt: skip
    environment = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(program("run", *words), capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert "trial 2/2" in done.stderr


def test_interrupt_while_modules_load_has_no_traceback() -> None:
    program = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'agent.cli.parser':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from agent.cli import main\n"
        "sys.exit(main(['--version']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "overnight: interrupted\n")


def test_demo_says_how_to_put_overnight_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / ".venv/bin/activate"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert activation().endswith(". .venv/bin/activate")
    (script.parent / "overnight").touch(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    assert activation() == ""


def test_resume_without_open_trial_names_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(make_bowl(tmp_path / "target"), tmp_path / "runs", trials=2)
    hint = "overnight resume night --trials 12"
    for words in ([], ["--trials", "1"]):
        capsys.readouterr()
        assert main(["resume", "night", "--runs", str(tmp_path / "runs"), *words]) == 0
        err = capsys.readouterr().err
        assert hint in err
        assert "2 of 1" not in err
    assert main(["resume", "night", "--runs", str(tmp_path / "runs"), "--trials", "3"]) == 0
    assert hint not in capsys.readouterr().err
