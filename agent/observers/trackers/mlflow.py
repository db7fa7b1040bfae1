"""MLflow: a server, a database, or a folder with an SQLite file. One parent run for the session, one run per trial."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

for _name, _value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}.items():
    os.environ.setdefault(_name, _value)  # read at import; ``follow`` itself tries again
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, Run, RunTag, ViewType  # noqa: E402

from agent.observers.trackers.entries import About, Entry  # noqa: E402

PARENT = "mlflow.parentRunId"
SESSION, TRIAL = "overnight.session", "overnight.trial"  # tags that find the runs of a session again
MOST_TAG = 5000  # characters
MOST_AT_ONCE = 900  # metrics of one request; MLflow accepts 1,000


class MLflow:
    """A run that is still RUNNING was cut off. See ``track.Tracker``."""

    def __init__(self, place: str, session: About):
        artifacts: str | None = None  # a server knows its own
        if "://" not in place:
            Path(place).mkdir(parents=True, exist_ok=True)
            place, artifacts = f"sqlite:///{place}/mlflow.db", f"{place}/artifacts"
        client = MlflowClient(tracking_uri=place)
        self._client, self._session = client, session
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "overnight"
        found = client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found else client.create_experiment(name, artifacts)
        runs = {run.data.tags[TRIAL]: run for run in self._runs()}
        parent = runs.pop("session", None)
        self._parent = (parent or self._start("session", session.tag, session.began, "")).info.run_id
        if parent is None:
            client.log_batch(self._parent, params=[Param(name, value) for name, value in session.settings.items()])
        else:
            client.update_run(self._parent, "RUNNING")
        self.held = {int(number) for number, run in runs.items() if run.info.status == "FINISHED"}
        self._partial = {int(number): run for number, run in runs.items() if run.info.status != "FINISHED"}
        history = client.get_metric_history(self._parent, "runs")
        self.points = 1 + max((metric.step for metric in history), default=-1)

    def trial(self, entry: Entry) -> None:
        if partial := self._partial.pop(entry.number, None):
            self._client.delete_run(partial.info.run_id)
        run = self._start(str(entry.number), entry.name, entry.started, self._parent).info.run_id
        began, ended = int(entry.started * 1000), int(entry.ended * 1000)
        metrics = [Metric(name, value, ended, entry.number) for name, value in entry.figures.items()]
        for point in entry.curve:
            moment = began + int(point.progress * (ended - began))
            metrics.append(Metric("loss", point.loss, moment, point.step))
        texts = {**entry.labels, "mlflow.note.content": entry.rationale[:MOST_TAG]}
        tags = [RunTag(name, value) for name, value in texts.items() if value]
        params = [Param(name, str(value)) for name, value in entry.params.items()]
        self._client.log_batch(run, metrics[:MOST_AT_ONCE], params, tags)
        if entry.diff:
            self._client.log_text(run, entry.diff, "edit.diff")
        self._client.set_terminated(run, "FINISHED", ended)

    def point(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        metrics = [Metric(name, value, int(time * 1000), step) for name, value in figures.items()]
        self._client.log_batch(self._parent, metrics)

    def close(self) -> None:
        self._client.set_terminated(self._parent, "FINISHED")

    def _start(self, number: str, name: str, began: float, parent: str) -> Run:
        tags = {SESSION: self._session.id, TRIAL: number, **({PARENT: parent} if parent else {})}
        return self._client.create_run(self._experiment, int(began * 1000), tags, name)

    def _runs(self) -> list[Run]:
        """All runs of the session; of two with one number, the one that was finished."""
        found: list[Run] = []
        token: str | None = None
        while token != "":
            page = self._client.search_runs(
                [self._experiment], f"tags.`{SESSION}` = '{self._session.id}'", ViewType.ACTIVE_ONLY, 1000,
                ["attributes.status DESC"], token,
            )  # fmt: skip
            found += page
            token = page.token or ""
        return found
