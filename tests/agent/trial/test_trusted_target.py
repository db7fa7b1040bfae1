"""Trusted targets: a second one needs one folder, and no untrusted target can have its own code imported."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_server import Answer, OpenAIServer
from places import TESTS
from sessions import check_whole, nothing, start, state_of
from targets import git, make_bowl

from agent.cli.entry import main
from agent.errors import UsageError
from agent.patch.apply import unified_diff
from agent.repo.repo import Repo
from agent.target import load_target
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.trial.trusted_target import prepare, trusted_target
from sandbox import make_sandbox
from sandbox.types import Device

SOURCE = TESTS / "targets" / "bigram"


def install(site: Path, name: str, module: str) -> None:
    """Register ``module`` as the trusted target ``name``, as an installed distribution does."""
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[overnight.targets]\n{name} = {module}\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment in which the bigram target is installed."""
    site = tmp_path / "site-packages"
    install(site, "bigram", "bigram_target")
    shutil.copy(SOURCE / "bigram_target.py", site)
    monkeypatch.setattr("site.getsitepackages", lambda: [str(site)])
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("bigram_target", None)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    files = [(SOURCE / name).read_text() for name in ("train.py", "target.toml")]
    return make_bowl(tmp_path / "target", *files)


@pytest.mark.usefixtures("installed")
def test_second_trusted_target_runs_a_session(target: Path, tmp_path: Path) -> None:
    directory = start(target, tmp_path / "runs", calibrate=2, trials=2, cache=str(tmp_path / "cache"))
    check_whole(directory, target, 2)
    state = state_of(directory)
    runs = [run for found in state.runs.values() for run in found]
    assert {run.status for run in runs} == {"ok"}
    assert not any(run.self_reported for run in runs)
    assert all(0 < run.value < 8 for run in runs if run.value is not None)
    assert all("test" in {run.role for run in record.runs} for record in state.kept)


@pytest.mark.usefixtures("installed")
def test_kept_edit_has_a_test_split_value(target: Path, tmp_path: Path) -> None:
    """The incumbent is measured again between the candidate's run and its verdict."""
    source = (target / "train.py").read_text()
    diff = unified_diff(source, source.replace("SMOOTHING = 30.0", "SMOOTHING = 0.1"), "train.py")
    replies = [f"Subject: Smooth less\n\n```diff\n{diff}```\n"]
    with OpenAIServer(replies, at_end=Answer(text="no more")) as server:
        directory = start(
            target, tmp_path / "runs", proposer="code", trials=1, calibrate=2, threads=1,
            cache=str(tmp_path / "cache"), llm_base_url=server.base_url,
        )  # fmt: skip
    check_whole(directory, target, 1)
    state = state_of(directory)
    (record,) = state.kept
    again = [run for run in state.baseline_runs if run.role == "incumbent"]
    assert again, "the incumbent was not measured again"
    assert [run.role for run in record.runs].count("test") == 1
    assert not list(directory.path.rglob("model.safetensors")), "checkpoints remain"


@pytest.mark.usefixtures("installed")
def test_invalid_checkpoint_of_second_target_has_no_value(target: Path, tmp_path: Path) -> None:
    source = (target / "train.py").read_text()
    (target / "train.py").write_text(source.replace("np.add.at(table,", "table -= 31\n    np.add.at(table,"))
    git(target, "commit", "-qam", "Negative counts")
    loaded, _ = load_target(target)
    data, repo = prepare(loaded, str(tmp_path / "cache"), nothing), Repo(target)
    experiment = Experiment(repo.tree, loaded, make_sandbox("process"), Device("cpu", threads=1), "test", data)
    run = experiment.measure(Order(0, repo.head(), "screen", 1, "run"), tmp_path / "run", lambda _phase, _info: None)
    assert (run.status, run.value) == ("invalid", None)
    assert "positive numbers" in run.reason


@pytest.mark.usefixtures("installed")
def test_data_error_of_second_target_is_usage_error(target: Path, tmp_path: Path) -> None:
    toml = (target / "target.toml").read_text()
    (target / "target.toml").write_text(toml.replace("size = 4000", "sise = 4000"))
    with pytest.raises(UsageError, match="sise"):
        prepare(load_target(target)[0], str(tmp_path / "cache"), nothing)


def test_unregistered_name_is_usage_error(target: Path) -> None:
    with pytest.raises(UsageError, match="trusted:bigram"):
        trusted_target(load_target(target)[0])


@pytest.mark.parametrize("written", ["trusted:", "trusted:../evil", "trusted:a b", "Trusted", "stdout:x"])
def test_malformed_score_is_usage_error(target: Path, written: str) -> None:
    toml = (target / "target.toml").read_text()
    (target / "target.toml").write_text(toml.replace("trusted:bigram", written))
    with pytest.raises(UsageError, match="score"):
        load_target(target)


@pytest.mark.parametrize("place", ["target", "."], ids=["target folder", "folder above the target"])
@pytest.mark.parametrize("registered", [True, False], ids=["shadows an installed one", "registers itself"])
def test_module_of_untrusted_repository_is_never_imported(
    target: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, registered: bool, place: str
) -> None:
    folder = (target.parent / place).resolve()
    if registered:
        request.getfixturevalue("installed")
    else:
        install(folder, "bigram", "bigram_target")
    (folder / "bigram_target.py").write_text(f"open({str(target / 'imported')!r}, 'w')\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)  # as after `python -m agent.cli` in this folder
    with pytest.raises(UsageError):
        trusted_target(load_target(target)[0])
    assert not (target / "imported").exists()


def test_preparing_a_self_reporting_target_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--target", str(make_bowl(tmp_path / "bowl"))]) == 0
    assert "stdout" in capsys.readouterr().err
