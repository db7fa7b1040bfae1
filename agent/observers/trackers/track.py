"""The setting ``track``: which trackers receive a session, and where."""

from __future__ import annotations

import importlib
import importlib.util
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies

from agent.errors import EnvironmentProblem, UsageError, check_choice
from agent.observers.trackers.entries import About, Entry

# each is a package, an extra, and a module beside this one with this class
TOOLS = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "WandB", "trackio": "Trackio"}
REMOTE = ("mlflow",)  # tools whose place may be the address of a server or a database
PORTS = {"http": 80, "https": 443}  # of a server's address without one
SCHEMES = (*PORTS, "databricks", "databricks-uc", "uc", "postgresql", "mysql", "sqlite", "mssql")  # of addresses
REACH_SECONDS = 5.0  # that a server may take to answer


class Tracker(Protocol):
    """One session in a tracker. Its constructor takes the place, and the session as ``About``; any method may raise.

    What a tracker holds decides what it still needs: it is asked again after every error and every start.
    """

    held: set[int]  # trials that it holds as a whole
    points: int  # points of the session's series that it holds

    def trial(self, entry: Entry) -> None:
        """Store one trial. A part of it that an earlier attempt left behind is replaced."""

    def point(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        """Append to the session's series. ``step``: number of the point, from 0; ``time``: seconds since the epoch."""

    def close(self) -> None:
        """Finish what is open."""


@dataclass(frozen=True)
class Track:
    """One tracker of the setting."""

    tool: str
    place: str  # an absolute folder, or the address of a server or a database

    def __str__(self) -> str:
        return f"{self.tool}:{self.place}"

    def unreachable(self) -> str:
        """Why the server of the address does not answer now; "" if it does, or if the place is no server."""
        parts = urlsplit(self.place)
        if parts.scheme not in PORTS or parts.scheme in getproxies():  # a proxy may reach what this machine cannot
            return ""
        try:
            socket.create_connection((str(parts.hostname), parts.port or PORTS[parts.scheme]), REACH_SECONDS).close()
        except OSError as error:
            return f"the server does not answer ({error.strerror or error})"
        return ""

    def open(self, session: About) -> Tracker:
        module = importlib.import_module(f"agent.observers.trackers.{self.tool}")
        tracker: Tracker = getattr(module, TOOLS[self.tool])(self.place, session)
        return tracker


def parse_tracks(setting: str, runs: str) -> tuple[Track, ...]:
    """The trackers of the setting ``track``, each of which is installed.

    Args:
        setting: ``TOOL`` or ``TOOL:URI``, several with commas.
        runs: folder of the run directories; a tool without a URI uses the folder of its name in there.

    Raises:
        UsageError: an unknown tool, or an address that is wrong or holds a password.
        EnvironmentProblem: the package of a tool is missing.
    """
    tracks = tuple(_parse(word.strip(), runs) for word in setting.split(",") if word.strip())
    tools = [track.tool for track in tracks]
    if len(set(tools)) < len(tools):
        raise UsageError(f"--track {setting}: each tool can be named once.")
    return tracks


def _parse(word: str, runs: str) -> Track:
    tool, _, uri = word.partition(":")
    check_choice(tool, TOOLS, "--track")
    spec = importlib.util.find_spec(tool)
    if spec is None or spec.origin is None:  # a folder of that name is no package
        raise EnvironmentProblem(f"--track {tool}: {tool} is not installed. Run: pip install 'overnight[{tool}]'")
    uri = uri or str(Path(runs) / tool)
    if "://" not in uri:
        return Track(tool, str(Path(uri).expanduser().resolve()))
    if tool not in REMOTE:
        raise UsageError(f"--track {word}: {tool} is written to a folder. Name the folder, or leave it out.")
    scheme, where = uri.partition("://")[0].partition("+")[0], f"--track {tool}: the scheme of the address"
    check_choice(scheme, (*SCHEMES, *entry_points(group="mlflow.tracking_store").names), where)
    try:
        parts = urlsplit(uri)
        usable = scheme not in PORTS or (parts.hostname and parts.port != 0)
    except ValueError:  # a wrong port or address of IPv6
        usable = False
    if not usable:
        raise UsageError(f"--track {tool}: this is no address. Write {tool}:http://HOST:PORT.")
    if parts.password or (parts.username and parts.scheme.startswith("http")):
        raise UsageError(
            f"--track {tool}: settings are readable by others, so the address may not hold a password. Set "
            f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment."
        )
    return Track(tool, uri)
