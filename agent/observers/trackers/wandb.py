"""Weights & Biases, offline: folders that ``wandb sync`` sends, one for each trial and one for the session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at import

import wandb

from agent.observers.trackers.entries import About, Entry

WHOLE = "overnight-whole"  # an empty file in the folder of a trial that was written to its end


class WandB:
    """The folder of a run is named after its id. See ``track.Tracker``."""

    def __init__(self, place: str, session: About):
        self._folder, self._session = Path(place), session
        self._folder.mkdir(parents=True, exist_ok=True)
        self.held: set[int] = set()
        for run in self._folders(session.id + "-*"):
            if (run / WHOLE).exists():
                self.held.add(int(run.name.rpartition("-")[2]))
            else:
                shutil.rmtree(run)
        for run in self._folders(session.id):
            shutil.rmtree(run)  # an offline run cannot be continued: the series is written again from its start
        self.points = 0
        self._series: Any = None

    def trial(self, entry: Entry) -> None:
        settings = {**entry.labels, **entry.params}
        run = self._init(entry.id, entry.name, "trial", settings, entry.rationale)
        for point in entry.curve:
            run.log({"loss": point.loss, "progress": point.progress}, step=point.step)
        run.summary.update({**entry.figures, "diff": entry.diff})
        run.finish()
        for folder in self._folders(entry.id):
            (folder / WHOLE).touch()

    def point(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        if self._series is None:
            self._series = self._init(self._session.id, self._session.tag, "session", self._session.settings, "")
        self._series.log({**figures, "unix_time": time}, step=step)

    def close(self) -> None:
        if self._series is not None:
            self._series.finish()

    def _folders(self, id: str) -> Iterator[Path]:
        return self._folder.glob(f"wandb/offline-run-*-{id}")

    def _init(self, id: str, name: str, kind: str, config: Mapping[str, Any], notes: str) -> Any:
        settings = wandb.Settings(
            mode="offline", console="off", silent=True, disable_git=True, disable_code=True, save_code=False,
            host="", x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
        )  # fmt: skip  # nothing about this machine, its code or its environment
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "overnight", dir=str(self._folder), id=id, name=name,
            group=self._session.id, job_type=kind, config=dict(config), notes=notes, reinit="create_new",
            settings=settings,
        )  # fmt: skip
