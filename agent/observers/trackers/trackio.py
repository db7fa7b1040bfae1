"""Trackio: a local SQLite file, through the functions that it shares with wandb. One run per trial and session."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from agent.observers.trackers.entries import About, Entry

PROJECT = "overnight"
PART = ".part"  # ends the name of a run that is not written to its end
ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_DATASET_ID", "TRACKIO_WEBHOOK_URL")


class Trackio:
    """Trackio warns where it cannot write, so what it holds is asked after each write. See ``track.Tracker``."""

    def __init__(self, place: str, session: About):
        os.environ |= {"TRACKIO_DIR": place, "HF_HUB_OFFLINE": "1"}  # read at import
        for name in ELSEWHERE:
            os.environ.pop(name, None)
        self._session = session
        self.held: set[int] = set()
        for name in (str(record["name"]) for record in _storage().get_run_records(PROJECT)):
            if name.startswith(f"{session.id}-"):
                if name.endswith(PART):
                    _storage().delete_run(PROJECT, name)
                else:
                    self.held.add(int(name.rpartition("-")[2]))
        self.points = self._last() + 1

    def trial(self, entry: Entry) -> None:
        rows = [({"loss": point.loss, "progress": point.progress}, point.step) for point in entry.curve]
        rows.append((dict(entry.figures), entry.curve[-1].step + 1 if entry.curve else 0))
        self._write(entry.id + PART, {**entry.texts, **entry.labels, **entry.params}, rows)
        _storage().rename_run(PROJECT, entry.id + PART, entry.id)  # raises if nothing was written

    def point(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        self._write(self._session.id, self._session.settings, [({**figures, "unix_time": time}, step)])
        if self._last() != step:
            raise OSError("the point was not written")

    def close(self) -> None:
        return

    def _last(self) -> int:
        found = _storage().get_max_step_for_run(PROJECT, self._session.id)
        return -1 if found is None else int(found)

    def _write(self, name: str, config: Mapping[str, Any], rows: Sequence[tuple[dict[str, float], int]]) -> None:
        import trackio

        trackio.init(
            PROJECT, name, self._session.id, config=dict(config), resume="allow", embed=False, auto_log_gpu=False,
            auto_log_cpu=False,
        )  # fmt: skip
        for figures, step in rows:
            trackio.log(figures, step)
        trackio.finish()


def _storage() -> Any:
    from trackio.sqlite_storage import SQLiteStorage

    return SQLiteStorage
