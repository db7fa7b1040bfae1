"""How sessions have ``overnight llm serve`` restart its server: files in the cache.

``serve-PORT.lock`` is locked while the command runs. It writes ``serve-PORT.json`` each time its server is ready; a
session asks for a restart with ``serve-PORT.restart``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.errors import EnvironmentProblem, Interrupted, ModelUnavailable
from agent.files import acquire, replace_file

POLL = 0.5  # seconds between looks at a server that restarts
LOCK_SECONDS = 5.0  # for the lock of a port, which a session holds for an instant
LONGEST_START = 1800.0  # seconds for stopping the server and loading its weights again
RESTART, SPLIT = "restart", "split"  # requests; the second restarts without sleep mode, with a share of the memory


@dataclass(frozen=True)
class Served:
    """A server that ``overnight llm serve`` runs."""

    pid: int  # of the command
    root: str  # address without /v1
    starts: int  # number of times that it became ready
    canary: str | None  # answer to ``agent.llm.canary`` when it was first ready; None if it has no fixed one


class Control:
    """The files of one port below the folder ``cache``."""

    def __init__(self, cache: Path, port: int) -> None:
        self._folder, self._port = cache.expanduser() / "llm", port

    def _file(self, kind: str) -> Path:
        return self._folder / f"serve-{self._port}.{kind}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """By the command: hold the lock. Raises EnvironmentProblem if another command holds it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._file("lock").open("a") as lock:
            if not acquire(lock, LOCK_SECONDS):
                raise EnvironmentProblem(f"another `overnight llm serve` holds {lock.name}. Choose another --port.")
            for kind in ("json", "restart"):  # of an earlier command
                self._file(kind).unlink(missing_ok=True)
            yield

    def publish(self, served: Served) -> None:
        """By the command: the server is ready."""
        replace_file(self._file("json"), json.dumps(asdict(served)))

    def requested(self) -> str:
        """By the command: the request of a session, once; "" without one."""
        file = self._file("restart")
        with suppress(OSError):
            wanted = file.read_text()
            file.unlink()
            return wanted if wanted in (RESTART, SPLIT) else ""
        return ""

    def served(self) -> Served | None:
        """By a session: the server; None unless a running command keeps it, and its server was ready once."""
        try:
            with self._file("lock").open("r+") as lock:
                if acquire(lock):
                    return None  # no command holds it
            return Served(**json.loads(self._file("json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def restart(self, how: str, stop: Callable[[], bool]) -> None:
        """By a session: have the server restarted by ``RESTART`` or ``SPLIT``, and wait until it is ready.

        Raises:
            ModelUnavailable: the command has ended, or the server is not ready within ``LONGEST_START``.
            Interrupted: ``stop`` says that the user wants the session to end.
        """
        before, deadline = self.served(), time.monotonic() + LONGEST_START
        if before is not None:
            replace_file(self._file("restart"), how)
        while before is not None and (now := self.served()) is not None and time.monotonic() < deadline:
            if now.starts > before.starts or now.pid != before.pid:
                return
            if stop():
                raise Interrupted
            time.sleep(POLL)
        self._file("restart").unlink(missing_ok=True)
        where = f"the model server on port {self._port}"
        raise ModelUnavailable(f"{where} did not come back after a restart. Look at its log.")
