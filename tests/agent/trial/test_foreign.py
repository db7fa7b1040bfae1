"""Projects not written for Overnight, from `overnight init --from` to the report, in bubblewrap."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import foreign
import pytest
from openai_server import OpenAIServer
from sessions import check_whole, state_of
from targets import git, make_bowl

from agent.cli.entry import main
from agent.errors import UsageError
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory
from agent.target import load_target
from agent.trial.experiment import Experiment
from agent.trial.mounts import check_mounts
from agent.trial.order import Order
from sandbox import make_sandbox
from sandbox.bwrap import BwrapSandbox
from sandbox.types import Device, SandboxUnavailable


@pytest.fixture(scope="module")
def bwrap() -> None:
    try:
        BwrapSandbox().check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("look_alike", foreign.ALL, ids=lambda look_alike: look_alike.name)
@pytest.mark.usefixtures("bwrap")
def test_session_over_look_alike_project(
    look_alike: foreign.LookAlike, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = foreign.user_project(look_alike, tmp_path / "project")
    target = project if look_alike.in_place else tmp_path / "target"
    runs = tmp_path / "runs"
    assert main(["init", str(target), "--from", str(project)]) == 0
    if look_alike.in_place:
        git(target, "add", "target.toml", "notes.md")
        git(target, "commit", "-q", "-m", "Add target.toml")
    assert git(target, "status", "--porcelain") == ""

    common = ["--target", str(target), "--runs", str(runs), "--sandbox", "bwrap", "--device", "cpu", "--threads", "1",
              "--policy", "greedy", "--calibrate", "1"]  # fmt: skip
    assert main(["run", *common, "--tag", "numbers", "--proposer", "cma-es", "--trials", "2"]) == 0
    source = (target / look_alike.script).read_text()
    with OpenAIServer([foreign.reply(look_alike, source)]) as server:
        words = ["--tag", "code", "--proposer", "code", "--trials", "1", "--llm-base-url", server.base_url]
        assert main(["run", *common, *words]) == 0

    for tag, trials in (("numbers", 2), ("code", 1)):
        directory = RunDirectory(runs, tag)
        check_whole(directory, target, trials)
        measured = [run for found in state_of(directory).runs.values() for run in found]
        assert {run.status for run in measured} == {"ok"}, measured
        assert all(run.self_reported for run in measured)
    record = state_of(RunDirectory(runs, "code")).records[0]
    assert record.decision == "keep", record
    assert record.verdict is not None
    assert record.verdict.gain is not None
    assert record.verdict.gain > 0, "the gain is positive for both goals"
    assert "self-reported" in git(target, "log", "-1", "--format=%B", "autoresearch/code")
    check_views_say_self_reported(runs, look_alike.metric, capsys)


def check_views_say_self_reported(runs: Path, metric: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every view marks the value as self-reported."""
    for command in (["log", "code"], ["status", "code"], ["list"]):
        capsys.readouterr()
        assert main([*command, "--runs", str(runs)]) == 0
        out = capsys.readouterr().out
        assert metric in out
        assert "self-reported" in out
    assert main(["log", "code", "--json", "--runs", str(runs)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["self_reported"]
    assert main(["report", "code", "--runs", str(runs)]) == 0
    page = Path(capsys.readouterr().out.strip()).read_text()
    assert "self-reported" in re.sub(r"<[^>]+>", "", page)


# mounts


def bowl(tmp_path: Path, *mounts: str) -> Path:
    made = make_bowl(tmp_path / "target")
    target = dataclasses.replace(load_target(made)[0], mounts=mounts)
    check_mounts(target)
    return made


@pytest.mark.parametrize("mount", ["nowhere", "~/nowhere", "/nowhere"])
def test_missing_mount_is_usage_error(tmp_path: Path, mount: str) -> None:
    with pytest.raises(UsageError, match="mounts"):
        bowl(tmp_path, mount)


@pytest.mark.parametrize("mount", [".", "..", "./", "../target"])
def test_mount_that_hides_code_is_usage_error(tmp_path: Path, mount: str) -> None:
    with pytest.raises(UsageError, match="mounts"):
        bowl(tmp_path, mount)


PROBE = """import sys
from pathlib import Path

places = [Path("data/set"), Path.home() / ".cache/set", Path(sys.argv[1]), Path(sys.argv[2])]
found = [(place / "x").read_text() for place in places]
try:
    (places[0] / "new").write_text("")
except OSError:
    found.append("read-only")
print("loss", len(found) if found == ["in", "home", "in", "home", *found[4:]] else "wrong", *found)
"""
TOML = r"""[target]
editable = ["train.py"]
train = ["python", "train.py", "{mount0}", "{mount1}"]
pattern = '^loss (\d+)'
mounts = ["data/set", "~/.cache/set"]
[budget]
seconds = 20
[[hyperparameters]]
name = "X"
low = 1
high = 9
"""


@pytest.mark.parametrize("sandbox", ["process", "bwrap"])
def test_mounts_appear_at_expected_paths(
    sandbox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if sandbox == "bwrap":
        request.getfixturevalue("bwrap")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/.cache/set").mkdir(parents=True)
    (tmp_path / "home/.cache/set/x").write_text("home")
    target = make_bowl(tmp_path / "target", PROBE + "X = 5\n", TOML)
    (target / "data/set").mkdir(parents=True)
    (target / "data/set/old").write_text("known to git")
    git(target, "add", "-A")
    git(target, "commit", "-q", "-m", "Data")
    (target / "data/set/x").write_text("in")
    assert main(["trust", str(target)]) == 0
    words = ["--target", str(target), "--runs", str(tmp_path / "runs"), "--tag", "t", "--proposer", "cma-es",
             "--device", "cpu", "--policy", "greedy", "--calibrate", "1", "--trials", "1"]  # fmt: skip
    assert main(["run", *words, "--sandbox", sandbox]) == 0
    values = {run.value for runs in state_of(RunDirectory(tmp_path / "runs", "t")).runs.values() for run in runs}
    assert values == {5.0 if sandbox == "bwrap" else 4.0}, "root may write to a mount in the sandbox process"
    (target / "data/set/new").unlink(missing_ok=True)


def test_smoke_test_and_run_share_the_mounts(tmp_path: Path) -> None:
    toml = TOML.replace(', "{mount0}", "{mount1}"', "").replace(', "~/.cache/set"', "")
    toml = toml.replace("mounts =", 'smoke = ["python", "train.py"]\nmounts =')
    folder = make_bowl(tmp_path / "target", "print('loss', open('data/set/x').read())\nX = 5\n", toml)
    (folder / "data/set").mkdir(parents=True)
    (folder / "data/set/x").write_text("5")
    assert main(["trust", str(folder)]) == 0
    repo, device = Repo(folder), Device("cpu", threads=1)
    experiment = Experiment(repo.tree, load_target(folder)[0], make_sandbox("process"), device, "test")
    order = Order(0, repo.head(), "screen", 1, "run", smoke=30.0)
    run = experiment.measure(order, tmp_path / "run", lambda _phase, _info: None)
    assert (run.status, run.value) == ("ok", 5.0), run.reason
    assert "smoke" in run.seconds


# what is printed


@pytest.mark.parametrize(
    ("printed", "status", "reason"),
    [
        ("loss 1.5\\nloss 2.5", "ok", ""),
        ("step 1\\rstep 2\\rloss 2.5", "ok", ""),
        ("nothing", "crash", "nothing that matches"),
        ("loss 1.0\\nloss nan", "diverged", "'nan'"),
        ("loss -Infinity", "diverged", "'-Infinity'"),
        ("loss tensor(0.5)", "invalid", "'tensor(0.5)'"),
        ("loss -1.7e308", "invalid", "-1.7e+308"),
        ("loss 1e31", "invalid", "1e+31"),
    ],
)
def test_last_printed_number_is_the_value(tmp_path: Path, printed: str, status: str, reason: str) -> None:
    toml = TOML.replace(', "{mount0}", "{mount1}"', "").replace(r"(\d+)", r"(\S+)").replace("mounts =", "# mounts =")
    folder = make_bowl(tmp_path / "target", f"print('{printed}')\nX = 5\n", toml)
    repo = Repo(folder)
    tree, target = repo.tree, load_target(folder)[0]
    experiment = Experiment(tree, target, make_sandbox("process"), Device("cpu", threads=1), "test")
    run = experiment.measure(Order(0, repo.head(), "screen", 1, "run"), tmp_path / "run", lambda _phase, _info: None)
    assert (run.status, run.value) == (status, 2.5 if status == "ok" else None)
    assert reason in run.reason


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("sys.exit(3)", "exit status 3, after: loss 2.5"),
        ("sys.exit('no data')", "exit status 1, after: no data"),
        ("raise ValueError('no data')", "ValueError: no data"),
    ],
)
def test_crash_reason_of_foreign_trainer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str, reason: str
) -> None:
    toml = TOML.replace(', "{mount0}", "{mount1}"', "").replace("mounts =", "# mounts =")
    folder = make_bowl(tmp_path / "my target", f"import sys\nprint('loss 2.5')\nX = 5\nif X != 5:\n    {end}\n", toml)
    words = ["--target", str(folder), "--runs", str(tmp_path / "runs"), "--tag", "t", "--proposer", "random",
             "--sandbox", "process", "--device", "cpu", "--policy", "greedy", "--calibrate", "1"]  # fmt: skip
    assert main(["run", *words, "--trials", "1"]) == 0
    assert f"git -C '{folder}' log autoresearch/t" in capsys.readouterr().err
    assert state_of(RunDirectory(tmp_path / "runs", "t")).records[0].runs[0].reason == reason
