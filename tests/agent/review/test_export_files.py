"""``overnight export`` to a study of Optuna and to Parquet, read back with their own packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nights import write_night
from targets import make_bowl

from agent.cli.entry import main
from agent.ledger.journal import read
from agent.ledger.state import State, fold
from agent.review.data.export import Session, write_file

optuna = pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write_night(root / "jun12", 30, failures=0.3)
    return root


@pytest.fixture(scope="module")
def state(runs: Path) -> State:
    return fold(read(runs / "jun12" / "ledger.jsonl"))


@pytest.mark.parametrize("name", ["study.db", "study.log"])
def test_study_holds_every_attempt(name: str, runs: Path, state: State, tmp_path: Path) -> None:
    file = tmp_path / name
    assert main(["export", "jun12", "--runs", str(runs), "--format", "optuna", "--output", str(file)]) == 0
    journal = optuna.storages.journal.JournalFileBackend
    storage = optuna.storages.JournalStorage(journal(str(file))) if name.endswith("log") else f"sqlite:///{file}"
    study = optuna.load_study(study_name=state.session.tag, storage=storage)
    trials = study.get_trials()
    assert len(trials) == len(state.finished)
    for trial, record in zip(trials, state.finished, strict=True):
        assert trial.params == dict(record.proposal.params or {})
        assert trial.user_attrs["trial"] == record.number
        assert (trial.value is None) == (trial.state == optuna.trial.TrialState.FAIL)
    assert study.best_value == min(trial.value for trial in trials if trial.value is not None)


@pytest.mark.parametrize("kind", ["optuna", "parquet"])
def test_unwritable_output_names_the_file(kind: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = "/proc/study.db"  # no user can create a file there
    assert main(["export", "jun12", "--runs", str(runs), "--format", kind, "--output", file]) == 3
    assert f"cannot write {file}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["study.db", "study.log"])
def test_full_disk_ends_study_without_traceback(name: str, runs: Path, tmp_path: Path) -> None:
    file = tmp_path / name
    program = "from agent.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", program, "export", "jun12", "--runs", str(runs)]
    command += ["--format", "optuna", "--output", str(file)]
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 20; exec "$@"', "bash", *command], capture_output=True, text=True, timeout=120
    )
    assert limited.returncode == 3
    assert str(file) in limited.stderr
    assert "Traceback" not in limited.stderr
    assert not file.exists()


def test_parquet_has_a_row_for_each_attempt(runs: Path, state: State, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "run.parquet"
    assert main(["export", "jun12", "--runs", str(runs), "--format", "parquet", "--output", str(file)]) == 0
    table = pq.read_table(file)
    assert [row["trial"] for row in table.to_pylist()] == [record.number for record in state.finished]


def test_parquet_types_do_not_depend_on_values(runs: Path, state: State, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    write_file([Session(state)], "parquet", tmp_path / "whole.parquet")
    write_file([Session(State(session=state.session))], "parquet", tmp_path / "empty.parquet")
    whole, empty = (pq.read_schema(tmp_path / f"{name}.parquet") for name in ("whole", "empty"))
    assert whole == empty
    assert "null" not in map(str, whole.types)


@pytest.mark.parametrize("words", [[], ["--output", "{there}"], ["--output", "{none}/run.db"]])
def test_wrong_output_names_the_option(
    words: list[str], runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    words = [word.format(there=there, none=tmp_path / "none") for word in words]
    assert main(["export", "jun12", "--runs", str(runs), "--format", "optuna", *words]) == 2
    assert "--output" in capsys.readouterr().err
    assert there.read_text() == "mine"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A comparison of two methods and two seeds, of which the last session has not begun; and its runs."""
    folder = tmp_path_factory.mktemp("compared")
    bowl, runs = make_bowl(folder / "bowl"), folder / "runs"
    words = ["--target", str(bowl), "--runs", str(runs), "--tag", "cmp", "--sandbox", "process", "--device", "cpu"]
    assert main(["compare", *words, "--methods", "cma-es,random", "--seeds", "2", "--trials", "3"]) == 0
    shutil.rmtree(runs / "cmp-random-s1")
    return folder, runs


def test_each_session_of_comparison_is_one_study(compared: tuple[Path, Path]) -> None:
    folder, runs = compared
    file = folder / "studies.db"
    assert main(["export", "cmp", "--runs", str(runs), "--format", "optuna", "--output", str(file)]) == 0
    studies = {s.study_name: s for s in optuna.get_all_study_summaries(f"sqlite:///{file}")}
    assert studies.keys() == {"cmp-cma-es-s0", "cmp-cma-es-s1", "cmp-random-s0"}
    assert {s.user_attrs["method"] for s in studies.values()} == {"cma-es", "random"}
    for name in studies:
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{file}")
        state = fold(read(runs / name / "ledger.jsonl"))
        assert [trial.params for trial in study.trials] == [dict(r.proposal.params or {}) for r in state.finished]
        assert study.user_attrs["seed"] == int(name[-1])
        assert set(study.trials[0].distributions) == {"RATE", "DEPTH"}


def test_parquet_of_comparison_names_method_and_seed(compared: tuple[Path, Path]) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    folder, runs = compared
    file = folder / "all.parquet"
    assert main(["export", "cmp", "--runs", str(runs), "--format", "parquet", "--output", str(file)]) == 0
    rows = pq.read_table(file).to_pylist()
    found = [(row["comparison"], row["method"], row["seed"], row["trial"]) for row in rows]
    sessions = [("cma-es", 0), ("random", 0), ("cma-es", 1)]
    assert found == [("cmp", method, seed, trial) for method, seed in sessions for trial in (1, 2, 3)]


def test_text_format_of_comparison_is_refused(compared: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "cmp", "--runs", str(compared[1]), "--format", "tsv"]) == 2
    assert "--csv" in capsys.readouterr().err
