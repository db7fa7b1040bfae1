"""A cloned target does not choose its own protection."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from targets import TOML, make_bowl

from agent.cli.entry import main
from agent.errors import EnvironmentProblem, UsageError
from agent.settings import Settings, foreign_settings
from agent.target import load_target
from agent.trust import PROTECTED
from agent.workers.runtime import workplace

HARMLESS = {  # they change what is searched and when it ends, not where code runs or what the host shows
    "proposer", "budget", "device", "threads", "seed", "trials", "hours", "until", "train_hours", "breaker",
    "gpu_hours", "max_tokens_total", "max_cost", "price_in", "price_out", "llm_token_timeout",
    "llm_timeout", "llm_temperature", "on_llm_failure", "on_llm_loop", "ask_ahead", "memory", "ideas", "repairs",
    "on_sleep_failure",
    "smoke", "policy", "calibrate", "keep_simpler", "stop_hopeless", "centaur_share", "screen", "on_plateau", "workers",
    "notify_minutes",
}  # fmt: skip
RUN_KEYS = {
    "sandbox": '"process"', "image": '"evil:latest"', "llm_base_url": '"http://evil.example/v1"', "llm_model": '"m"',
    "runs": '"/tmp/runs"', "cache": '"/tmp/cache"', "notify": '"file"', "ray_address": '"evil:6379"',
    "target": '"../other"', "track": '"mlflow:http://evil.example"',
}  # fmt: skip


def target_with(folder: Path, old: str = "[budget]", new: str = "[budget]") -> Path:
    return make_bowl(folder, toml=TOML.replace(old, new, 1))


def refused(target: Path, capsys: pytest.CaptureFixture[str]) -> str:
    words = ["--proposer", "random", "--trials", "1", "--runs", str(target.parent / "runs")]
    assert main(["run", "--target", str(target), *words]) == 2
    assert not (target.parent / "runs").exists()
    return capsys.readouterr().err


def test_every_setting_is_protected_or_known_as_harmless() -> None:
    assert {field.name for field in dataclasses.fields(Settings)} == HARMLESS | PROTECTED
    assert not HARMLESS & PROTECTED


@pytest.mark.parametrize("key", RUN_KEYS)
def test_untrusted_target_cannot_set_protected_key(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = target_with(tmp_path / "target", new=f"[run]\n{key} = {RUN_KEYS[key]}\n[budget]")
    message = refused(target, capsys)
    assert f"[run] {key}" in message
    assert f"overnight trust {target}" in message


@pytest.mark.parametrize("command", ["prepare", "replay", "compare"])
def test_other_commands_refuse_untrusted_target(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = target_with(tmp_path / "target", new='[run]\nsandbox = "process"\n[budget]')
    words = {"replay": ["HEAD"], "compare": ["--methods", "random,cma-es", "--trials", "1"]}
    places = [] if command == "prepare" else ["--runs", str(tmp_path / "runs")]
    assert main([command, "--target", str(target), *words.get(command, []), *places]) == 2
    assert "[run] sandbox" in capsys.readouterr().err


@pytest.mark.parametrize("mount", ["~/.ssh", "/etc", "../sibling", "link", "data/../../sibling"])
def test_untrusted_target_cannot_mount_outside(mount: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = target_with(tmp_path / "target", "pattern =", f'mounts = ["{mount}"]\npattern =')
    (target / "link").symlink_to("/etc")
    (target / "data").mkdir()
    assert repr(mount) in refused(target, capsys)


def test_mount_inside_needs_no_trust(tmp_path: Path) -> None:
    target = target_with(tmp_path / "target", "pattern =", 'mounts = ["data/set"]\npattern =')
    assert load_target(target)[0].mounts == ("data/set",)


def test_untrusted_target_cannot_read_host_text(tmp_path: Path) -> None:
    target = target_with(tmp_path / "target", new='[data]\nsource = "~/notes"\n[budget]')
    with pytest.raises(UsageError, match="source"):
        load_target(target)


def test_trust_holds_until_the_file_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = target_with(tmp_path / "target", new='[run]\nsandbox = "process"\n[budget]')
    assert main(["trust", str(target)]) == 0
    assert "[run] sandbox" in capsys.readouterr().out
    assert load_target(target)[1] == {"sandbox": "process"}
    path = target / "target.toml"
    path.write_text(path.read_text() + "# changed\n")
    with pytest.raises(UsageError):
        load_target(target)


def test_trust_does_not_cover_a_copy_elsewhere(tmp_path: Path) -> None:
    toml = '[run]\nsandbox = "process"\n[budget]'
    assert main(["trust", str(target_with(tmp_path / "first", new=toml))]) == 0
    with pytest.raises(UsageError):
        load_target(target_with(tmp_path / "second", new=toml))


def test_target_written_by_init_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "project").mkdir()
    source = 'import os\nDATA = os.path.expanduser("~/.cache/set")\nprint(f"val_loss: {1.0}")\n'
    (tmp_path / "project" / "train.py").write_text(source)
    assert main(["init", str(tmp_path / "copy"), "--from", str(tmp_path / "project")]) == 0
    assert load_target(tmp_path / "copy")[0].mounts == ("~/.cache/set",)


def test_untrusted_target_cannot_choose_unprotected_numeric_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_with(tmp_path / "target", new='[run]\nproposer = "cma-es"\n[budget]')
    (tmp_path / "bin").mkdir()  # neither bubblewrap nor Docker
    (tmp_path / "bin" / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    settings = Settings(target=str(target), proposer="cma-es")
    with pytest.raises(EnvironmentProblem, match="bubblewrap"):
        workplace(settings, print)


@pytest.fixture
def copied_run(tmp_path: Path) -> Path:
    """A run under the sandbox ``process``, copied to another folder."""
    target = make_bowl(tmp_path / "target")
    words = ["--proposer", "random", "--sandbox", "process", "--trials", "1", "--calibrate", "2"]
    assert main(["run", "--target", str(target), *words, "--runs", str(tmp_path / "runs"), "--tag", "night"]) == 0
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("command", [["resume", "night", "--trials", "2"], ["replay", "night"]])
def test_copied_run_does_not_choose_its_sandbox(
    command: list[str], copied_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--runs", str(copied_run)]) == 2
    message = capsys.readouterr().err
    assert "sandbox = 'process'" in message
    assert f"overnight trust {copied_run / 'night'}" in message


@pytest.mark.parametrize("sandbox", ["docker", "bwrap"])
@pytest.mark.parametrize("proposer", ["cma-es", "code"])
def test_strong_sandbox_of_copied_run_needs_no_trust(sandbox: str, proposer: str) -> None:
    assert "sandbox" not in foreign_settings({"sandbox": sandbox, "proposer": proposer})
    assert "sandbox" in foreign_settings({"sandbox": "process", "proposer": proposer})


def test_copied_run_resumes_with_named_sandbox(copied_run: Path) -> None:
    assert main(["resume", "night", "--runs", str(copied_run), "--sandbox", "process", "--trials", "2"]) == 0
    assert main(["resume", "night", "--runs", str(copied_run), "--trials", "3"]) == 0


def test_copied_run_resumes_once_trusted(copied_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trust", str(copied_run / "night")]) == 0
    assert "sandbox = 'process'" in capsys.readouterr().out
    assert main(["resume", "night", "--runs", str(copied_run)]) == 0


def test_changed_ledger_needs_new_approval(copied_run: Path) -> None:
    own = copied_run.parent / "runs"
    with (own / "night" / "ledger.jsonl").open("a") as ledger:
        settings = {"llm_base_url": "http://evil.example/v1"}
        event = {"v": 1, "event": "resumed", "time": 1.0, "attempt": 1, "changes": {"settings": settings}}
        ledger.write(json.dumps(event) + "\n")
    assert main(["resume", "night", "--runs", str(own)]) == 2
