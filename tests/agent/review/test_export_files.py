"""``overnight export`` to a study of Optuna and to Parquet, read back with their own packages."""

from __future__ import annotations

from pathlib import Path

import pytest
from nights import write_night

from agent.cli.entry import main
from agent.ledger.journal import read
from agent.ledger.state import State, fold

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


def test_parquet_has_a_row_for_each_attempt(runs: Path, state: State, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "run.parquet"
    assert main(["export", "jun12", "--runs", str(runs), "--format", "parquet", "--output", str(file)]) == 0
    rows = pq.read_table(file).to_pylist()
    assert [row["trial"] for row in rows] == [record.number for record in state.finished]


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
