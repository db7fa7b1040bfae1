"""The record of a session for other programs: tsv (the published results.tsv), csv, json, Optuna studies, or Parquet.

``export_json`` is schema ``overnight.export/1``. One object:

- session: the first event of the ledger
- baseline: value, runs and measurements
- attempts: the objects of ``log --json``, each with its measurements, params and diff
- branch

Texts are as recorded, with escape sequences that a model wrote.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import EnvironmentProblem, UsageError
from agent.ledger.events import fields_of
from agent.ledger.state import State
from agent.review.data.attempts import attempt_columns, attempt_json, attempt_of
from agent.rundir.directory import writing
from agent.rundir.results import TSV_HEADER, result_line
from agent.types import Param, Record, Value, is_number, to_json
from sandbox.packages import install_command

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

EXPORT_SCHEMA = "overnight.export/1"
MOST_DIFF = 2000  # characters of a diff in a study: its database has a limit for each attribute


def export(state: State, kind: str) -> str:
    """Return the record of a session as tsv, csv or json."""
    if kind == "tsv":
        records = [state.baseline_record, *state.finished] if 0 in state.observed else []
        return TSV_HEADER + "".join(result_line(record, state.session.goal) for record in records)
    if kind == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, list(attempt_columns()), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _inert(value) for key, value in row.items()} for row in _rows(state))
        return out.getvalue()
    return json.dumps(export_json(state), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _rows(state: State) -> list[dict[str, Any]]:
    """The objects of ``log --json``, one for each finished trial."""
    return [attempt_json(attempt_of(record)) for record in state.finished]


def _inert(value: Any) -> Any:
    """Put a quote before a text that a spreadsheet would read as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def export_json(state: State) -> dict[str, Any]:
    return {
        "schema": EXPORT_SCHEMA,
        "session": fields_of(state.session),
        "baseline": {
            "commit": state.baseline,
            "value": state.baseline_record.verdict.value if state.baseline_record.verdict else None,
            "measurements": to_json(state.baseline_runs),
        },
        "branch": {"name": f"autoresearch/{state.session.tag}", "head": state.head},
        "attempts": [
            {
                **row,
                "params": to_json(record.proposal.params),
                "rationale": record.proposal.rationale,
                "diff": record.proposal.diff,
                "measurements": to_json(record.runs),
            }
            for record, row in zip(state.finished, _rows(state), strict=True)
        ],
    }


@dataclass(frozen=True)
class Session:
    """A session to be written."""

    state: State
    columns: Mapping[str, str | int] = field(default_factory=dict)  # of a comparison: what tells it from the others


def write_file(sessions: Sequence[Session], kind: str, file: Path, params: Sequence[Param] = ()) -> None:
    """Write ``file``, which must not exist.

    Args:
        sessions: One session, or the sessions of a comparison.
        kind: "optuna": a study for each session, in SQLite, or in Optuna's journal where ``file`` ends in .log.
            "parquet": one row for each finished trial, with the columns of csv, after those of its session.
        params: The search space; without it, the values that occurred are the bounds.

    Raises:
        UsageError: The file exists.
        EnvironmentProblem: The tool's package is not installed, or the file cannot be written.
    """
    if file.exists():
        raise UsageError(f"--output {file} exists. Choose another file.")
    if not file.parent.is_dir():
        raise UsageError(f"--output {file}: there is no folder {file.parent}.")
    with writing(file):
        file.touch()  # SQLite does not say why it cannot create a file
        try:
            {"optuna": _optuna, "parquet": _parquet}[kind](sessions, file, params)
        except BaseException:
            file.unlink(missing_ok=True)  # half a file would refuse the next attempt
            raise


def _parquet(sessions: Sequence[Session], file: Path, _params: Sequence[Param]) -> None:
    with _needs("parquet needs pyarrow", "overnight[train]"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    rows = [{**session.columns, **row} for session in sessions for row in _rows(session.state)]
    kinds: dict[type, pa.DataType] = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    columns = {name: type(value) for name, value in sessions[0].columns.items()} | attempt_columns()
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    pq.write_table(pa.Table.from_pylist(rows, schema), file)


def _optuna(sessions: Sequence[Session], file: Path, params: Sequence[Param]) -> None:
    with _needs("optuna needs Optuna", "overnight[hpo]"):
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    storage = JournalStorage(JournalFileBackend(str(file))) if file.suffix == ".log" else f"sqlite:///{file.resolve()}"
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        for session in sessions:
            state = session.state
            name, goal = state.session.tag or "run", state.session.goal
            study = optuna.create_study(storage=storage, study_name=name, direction=goal)
            about = {"metric": state.session.metric, "proposer": state.session.proposer, **session.columns}
            for key, value in about.items():
                study.set_user_attr(key, value)
            distributions = _distributions(state.finished, params)
            rows = zip(state.finished, _rows(state), strict=True)
            study.add_trials([_trial(record, row, distributions) for record, row in rows])
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("sqlalchemy", "optuna"):
            raise
        raise EnvironmentProblem(f"cannot write {file}: {str(error).splitlines()[0]}") from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _trial(record: Record, row: Mapping[str, Any], distributions: dict[str, BaseDistribution]) -> Any:
    from optuna.trial import TrialState, create_trial

    values = dict(record.proposal.params or {})
    trial = create_trial(
        state=TrialState.FAIL if row["value"] is None else TrialState.COMPLETE,
        value=row["value"],
        params=values,
        distributions={name: distributions[name] for name in values},
        user_attrs={
            **{name: value for name, value in row.items() if value is not None},
            "diff": record.proposal.diff[:MOST_DIFF],
        },
    )
    trial.datetime_start = datetime.fromtimestamp(record.started)
    trial.datetime_complete = datetime.fromtimestamp(record.ended or record.started)
    return trial


def _distributions(records: Sequence[Record], params: Sequence[Param]) -> dict[str, BaseDistribution]:
    """One distribution for each name that holds all of its values."""
    seen: dict[str, list[Value]] = {}
    for record in records:
        for name, value in (record.proposal.params or {}).items():
            seen.setdefault(name, []).append(value)
    known = {param.name: param for param in params}
    return {name: _distribution(values, known.get(name)) for name, values in seen.items()}


def _distribution(values: list[Value], param: Param | None) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    numbers = [value for value in values if is_number(value)]
    if len(numbers) < len(values) or (param is not None and param.choices):
        return CategoricalDistribution(list(dict.fromkeys([*(param.choices if param else ()), *values])))
    bounds = [bound for bound in (param.low, param.high) if bound is not None] if param else []
    low, high = min(*numbers, *bounds, numbers[0]), max(*numbers, *bounds, numbers[0])
    log = bool(param and param.log) and low > 0
    if all(isinstance(number, int) for number in numbers):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


@contextmanager
def _needs(message: str, packages: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise EnvironmentProblem(f"--format {message}: {install_command(packages)}") from None
