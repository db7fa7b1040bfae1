"""TensorBoard event files, written without TensorFlow: one folder for the session, with one for each trial in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import indent

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from agent.observers.trackers.entries import About, Entry

FILE = "events.out.tfevents.{:010.0f}.overnight"  # a reader takes the files of a folder in the order of their names


class TensorBoard:
    """Writes the file of a trial as a whole, and appends to that of the session. See ``track.Tracker``."""

    def __init__(self, place: str, session: About):
        self._folder = folder = Path(place) / session.id
        folder.mkdir(parents=True, exist_ok=True)
        self.held = {int(file.parent.name) for file in folder.glob("[0-9]*/events.*") if file.parent.name.isdigit()}
        before = sorted(folder.glob("events.*"))
        self.points = 1 + max((event.step for file in before for event in _read(file)), default=-1)
        # a new file: the last record of an earlier one may be cut off
        self._path = folder / f"{FILE.format(session.began)}.{len(before):04d}"
        self._settings = {} if before else session.settings
        self._series: RecordWriter | None = None

    def trial(self, entry: Entry) -> None:
        folder = self._folder / f"{entry.number:04d}"
        folder.mkdir(exist_ok=True)
        scratch = folder / "new"
        with scratch.open("wb") as file:
            writer = RecordWriter(file)
            writer.write(_event(entry.started, file_version="brain.Event:2"))
            values = {**entry.labels, **entry.params}
            writer.write(_event(entry.started, summary=summary_v2.hparams_pb(values, entry.id, entry.started)))
            for name, words in entry.texts.items():
                if words:  # as a code block: TensorBoard reads Markdown, and a model wrote it
                    writer.write(_event(entry.started, summary=text_pb(name, indent(words, "    ", lambda _: True))))
            for point in entry.curve:
                moment = entry.started + point.progress * (entry.ended - entry.started)
                writer.write(_event(moment, point.step, scalar_pb("loss", point.loss)))
            for name, value in entry.figures.items():
                writer.write(_event(entry.ended, entry.number, scalar_pb(name, value)))
            writer.write(_event(entry.ended, summary=_end(entry.ended)))
        scratch.replace(folder / FILE.format(entry.started))

    def point(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        if self._series is None:
            self._series = RecordWriter(self._path.open("wb"))
            self._series.write(_event(time, file_version="brain.Event:2"))
            if self._settings:
                cells = {name: value.replace("|", "\\|") for name, value in self._settings.items()}
                rows = [f"| {name} | {value} |" for name, value in cells.items()]
                table = "\n".join(["| setting | value |", "|---|---|", *rows])
                self._series.write(_event(time, summary=text_pb("session", table)))
        for name, value in figures.items():
            self._series.write(_event(time, step, scalar_pb(f"session/{name}", value)))
        self._series.flush()

    def close(self) -> None:
        if self._series is not None:
            self._series.close()


def _read(file: Path) -> list[Event]:
    """The events of a file that hold a point of the series."""
    found = EventFileLoader(str(file)).Load()
    return [event for event in found if any(value.tag.startswith("session/") for value in event.summary.value)]


def _end(time: float) -> Summary:
    """The end of a trial, for the plugin of hyperparameters. Its own function for this needs TensorFlow."""
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time)
    about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    found = Summary()
    found.value.add(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
    return found


def _event(time: float, step: int = 0, summary: Summary | None = None, file_version: str = "") -> bytes:
    event = Event(wall_time=time, step=step)
    if file_version:
        event.file_version = file_version
    if summary is not None:
        event.summary.CopyFrom(summary)
    return bytes(event.SerializeToString())
