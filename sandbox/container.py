"""A job in a started container: its output, its end and its files. ``sandbox.docker`` makes the container.

Covers: the protocol with process 1 (``sandbox/init.py``), a container that does not end, an engine that stops, bounded
copies of outputs. Does not cover: the isolation, which is the container's configuration.
"""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sandbox import caches, gpu
from sandbox.collect import Dropped, write_bounded
from sandbox.layout import INSIDE, MB
from sandbox.output import Output
from sandbox.processor import ProcessorTime
from sandbox.types import Collect, Job, Outcome, SandboxBroken

OUT = f"{INSIDE}/out"
_KILL_SECONDS = 5.0  # for process 1 to kill the job; then the engine kills process 1
_END_SECONDS = 90.0  # for a killed container to end; then the engine counts as broken
_LARGEST_FRAME = 1 << 20


class ContainerRunning:
    """A job in a started container. ``attached``: the connection to stdin and stdout of process 1."""

    def __init__(self, api: Any, identifier: str, attached: Any, job: Job, watch: gpu.MemoryWatch) -> None:
        self._api, self._id, self._job = api, identifier, job
        self._attached, self._socket = attached, getattr(attached, "_sock", attached)
        self._gpu, self._processor = watch, ProcessorTime()
        self._output = Output(int(job.limits.output_mb * MB), job.log)
        self._report: dict[str, Any] | None = None
        self._stderr = b""  # of process 1 itself
        self._over = threading.Event()
        self._killed: float | None = None
        self._outcome: Outcome | None = None
        self._began = self._ended = time.monotonic()
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()
        if job.device.kind != "cpu":
            self._gpu.follow(self._root, self.kill)

    @cached_property
    def _root(self) -> int | None:
        """The host's process id of process 1."""
        with contextlib.suppress(Exception):  # ended, or the engine stopped: finish() handles both
            return int(self._api.inspect_container(self._id)["State"]["Pid"]) or None
        return None

    @property
    def processor_seconds(self) -> float:
        return self._processor.seconds(None if self._over.is_set() else self._root)

    def read(self, timeout: float) -> list[str] | None:
        return self._output.read(timeout)

    def kill(self) -> None:
        if self._over.is_set() or self._killed is not None:
            return
        self._killed = time.monotonic()
        with contextlib.suppress(OSError):
            self._socket.sendall(b"k")
        timer = threading.Timer(_KILL_SECONDS, self._end_process_1)
        timer.daemon = True
        timer.start()

    def finish(self) -> Outcome:
        if self._outcome is None:
            self._await_end()
            report = self._report or self._lost()
            problems: list[str] = list(report["problems"])
            try:
                out_of_memory = self._out_of_memory()
                collected = self._collect(report["found"], problems)
            except BaseException:
                with contextlib.suppress(SandboxBroken):
                    self._discard()
                raise
            self._discard()
            if self._job.forgotten:
                caches.drop()
            problems += self._gpu.problems()  # the driver frees memory after the container
            self._outcome = self._output.outcome(
                report["status"],
                seconds=self._ended - self._began,
                peak=report["peak"],
                out_of_memory=out_of_memory or bool(report["oom"]) or self._gpu.exceeded,
                peak_vram_gb=self._gpu.peak_gb,
                collected=collected,
                problems=problems,
            )
            self._output.check()
        return self._outcome

    def _await_end(self) -> None:
        while not self._over.wait(1.0):
            if self._killed is not None and time.monotonic() - self._killed > _END_SECONDS:
                raise SandboxBroken("the Docker engine cannot end a container: check docker ps and the engine's log")

    def _end_process_1(self) -> None:
        if not self._over.is_set():
            with contextlib.suppress(Exception):  # ended, or the engine stopped: finish() handles both
                self._api.kill(self._id, signal.SIGKILL)

    def _follow(self) -> None:
        """Read the frames of process 1 until its report or its end."""
        tail = b""
        try:
            for kind, data in _frames(self._stdout()):
                if kind == b"O":
                    self._output.feed(data)
                elif kind == b"T":
                    tail = data
                elif kind == b"E":
                    report = json.loads(data)
                    if report["dropped"]:
                        self._output.skip(report["dropped"] - len(tail))
                        self._output.feed(tail)
                    self._report = report
                    break
        except (OSError, ValueError):  # the log's disk is full, or the engine stopped: the job must not block
            self._end_process_1()
        finally:
            self._ended = time.monotonic()
            self._output.end()
            self._over.set()

    def _stdout(self) -> Iterator[bytes]:
        """The bytes of process 1's stdout."""
        from docker.utils.socket import STDOUT, frames_iter

        for stream, piece in frames_iter(self._socket, tty=False):
            if stream == STDOUT:
                yield piece
            else:
                self._stderr = (self._stderr + piece)[-4096:]

    def _out_of_memory(self) -> bool:
        """Whether the engine reports that memory ran out.

        Raises:
            SandboxBroken: the engine stopped, or something outside ended the container.
        """
        import docker

        state: dict[str, Any] = {}
        with contextlib.suppress(docker.errors.NotFound), _engine():
            state = self._api.inspect_container(self._id)["State"]
        memory = bool(state.get("OOMKilled"))
        if self._report is not None or self._killed is not None:
            return memory
        happened = self._events()
        if "oom" in happened or memory:
            return True
        if "kill" in happened or "die" not in happened:
            raise SandboxBroken("a container was ended from outside")
        return False

    def _events(self) -> set[str]:
        """The engine's events of this container. The engine also keeps those of removed containers."""
        began = time.time() - (time.monotonic() - self._began)
        filters = {"container": self._id, "event": ["oom", "kill", "die"]}
        with _engine():
            found = self._api.events(int(began) - 1, int(time.time()) + 1, filters, decode=True)
            return {event["Action"] for event in found}

    def _lost(self) -> dict[str, Any]:
        """The report for a process 1 that ended without one."""
        said = self._stderr.decode(errors="replace").strip()[-300:]
        problem = f"process 1 of the container ended, and the outputs are lost{said and f': {said}'}"
        return {"status": signal.SIGKILL, "problems": [problem], "found": [], "oom": 0, "peak": 0}

    def _collect(self, names: list[str], problems: list[str]) -> dict[str, Path]:
        """Copy the wanted files that process 1 has found."""
        found: dict[str, Path] = {}
        for item in self._job.collect:
            if item.name in names and self._job.collect_to is not None:
                try:
                    self._copy(item, self._job.collect_to / item.name)
                    found[item.name] = self._job.collect_to / item.name
                except Dropped as error:
                    problems.append(f"{item.name}: {error}; dropped")
        return found

    def _copy(self, item: Collect, destination: Path) -> None:
        """Copy one file out of the container, while process 1 keeps the file system in memory mounted."""
        import docker

        try:
            with _engine():
                stream, _ = self._api.get_archive(self._id, f"{OUT}/{item.name}")
        except docker.errors.NotFound:
            raise Dropped("gone") from None
        try:
            file: Any = _Stream(stream)
            with tarfile.open(fileobj=file, mode="r|") as archive:
                member = archive.next()
                source = archive.extractfile(member) if member is not None and member.isreg() else None
                if member is None or source is None:
                    raise Dropped("no regular file")
                if member.size > item.max_bytes:
                    raise Dropped(f"{member.size} bytes, at most {item.max_bytes} are taken")
                write_bounded(source.read, destination, item.max_bytes)
        except tarfile.TarError as error:
            raise Dropped(f"cannot be read ({error})") from error
        finally:
            stream.close()

    def _discard(self) -> None:
        """Remove the container."""
        import docker

        with contextlib.suppress(OSError):
            self._attached.close()
        with contextlib.suppress(docker.errors.NotFound), _engine():
            try:
                self._api.remove_container(self._id, v=True, force=True)
            except docker.errors.APIError as error:
                if error.status_code != 409:  # the engine is removing it already
                    raise


@contextlib.contextmanager
def _engine() -> Iterator[None]:
    """Turn exceptions of the engine's client into SandboxBroken, except NotFound."""
    import docker

    try:
        yield
    except docker.errors.NotFound:
        raise
    except Exception as error:
        raise SandboxBroken(f"the Docker engine failed while a job ran: {error}") from error


@dataclass(frozen=True)
class _Stream:
    """The pieces of an archive as the file that tarfile reads: without seeking, in pieces of any size.

    Raises:
        SandboxBroken: the engine stopped.
    """

    pieces: Iterator[bytes]

    def read(self, _size: int) -> bytes:
        with _engine():
            return next(self.pieces, b"")


def _frames(pieces: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Split the output of process 1 into its frames.

    Raises:
        ValueError: a frame is too long.
    """
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= 5:
            kind, size = struct.unpack(">cI", buffer[:5])
            if size > _LARGEST_FRAME:
                raise ValueError("a frame of process 1 is too long")
            if len(buffer) < 5 + size:
                break
            yield kind, bytes(buffer[5 : 5 + size])
            del buffer[: 5 + size]
