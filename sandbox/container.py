"""A job in a container: its frames, its outputs, its end. The container itself is made by ``sandbox.docker``."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import struct
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from sandbox import gpu
from sandbox.layout import INSIDE, MB
from sandbox.output import Output
from sandbox.types import Job, Outcome, SandboxBroken

OUT = f"{INSIDE}/out"
_GRACE = 5.0  # seconds that process 1 has to end the job before the engine ends process 1
_HOPELESS = 90.0  # seconds after which a container that was to be killed will not end any more
_CHUNK = 1 << 20
_LARGEST_FRAME = 1 << 20


class ContainerRunning:
    """A started container; the connection ``attached`` carries its frames out, and our word in."""

    def __init__(self, api: Any, identifier: str, attached: Any, job: Job, watch: gpu.MemoryWatch) -> None:
        self._api, self._id, self._job = api, identifier, job
        self._attached, self._socket = attached, getattr(attached, "_sock", attached)
        self._gpu = watch
        self._output = Output(int(job.limits.output_mb * MB), job.log)
        self._report: dict[str, Any] | None = None
        self._complaint = b""  # of process 1 itself
        self._over = threading.Event()
        self._killed: float | None = None
        self._outcome: Outcome | None = None
        self._began = self._ended = time.monotonic()
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()
        if job.device.kind == "cuda":
            self._gpu.follow(self._root(), self.kill)

    def _root(self) -> int | None:
        """Process 1 of the container, as the host calls it."""
        with contextlib.suppress(Exception):  # it has ended already, or the engine is gone: finish() finds out
            return int(self._api.inspect_container(self._id)["State"]["Pid"]) or None
        return None

    def read(self, timeout: float) -> list[str] | None:
        return self._output.read(timeout)

    def kill(self) -> None:
        if self._over.is_set() or self._killed is not None:
            return
        self._killed = time.monotonic()
        with contextlib.suppress(OSError):
            self._socket.sendall(b"k")
        threading.Thread(target=self._insist, daemon=True).start()

    def finish(self) -> Outcome:
        if self._outcome is None:
            self._await_end()
            try:
                self._outcome = self._collect(self._ran_out())
            except BaseException:
                self._discard(quietly=True)
                raise
            self._discard()
            self._outcome = _with_gpu(self._outcome, self._gpu)
            self._output.check()
        return self._outcome

    def _await_end(self) -> None:
        while not self._over.wait(1.0):
            if self._killed is not None and time.monotonic() - self._killed > _HOPELESS:
                raise SandboxBroken("the Docker engine cannot end a container: see docker ps, and the engine's log")

    def _insist(self) -> None:
        if not self._over.wait(_GRACE):
            with contextlib.suppress(Exception):  # it has just ended, or the engine is gone: finish() finds out
                self._api.kill(self._id, signal.SIGKILL)

    def _follow(self) -> None:
        """Take the frames of process 1 until its report, or until its end."""
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
        except (OSError, ValueError):  # the disk of the log is full, or the engine is gone: the job must not hang on it
            with contextlib.suppress(Exception):
                self._api.kill(self._id, signal.SIGKILL)
        finally:
            self._ended = time.monotonic()
            self._output.end()
            self._over.set()

    def _stdout(self) -> Iterator[bytes]:
        """The bytes that process 1 wrote to its output, out of the engine's own frames."""
        buffer = bytearray()
        while data := self._socket.recv(1 << 16):
            buffer += data
            while len(buffer) >= 8:
                stream, size = struct.unpack(">BxxxL", buffer[:8])
                if len(buffer) < 8 + size:
                    break
                piece = bytes(buffer[8 : 8 + size])
                del buffer[: 8 + size]
                if stream == 1:
                    yield piece
                else:
                    self._complaint = (self._complaint + piece)[-4096:]

    def _ran_out(self) -> bool:
        """Whether the engine saw memory run out.

        Raises:
            SandboxBroken: the engine is gone, or the container ended for no reason that a job could give it.
        """
        import docker

        try:
            state = self._api.inspect_container(self._id)["State"]
        except docker.errors.NotFound:
            state = {}
        except Exception as error:
            raise SandboxBroken(f"the Docker engine went away while a job ran: {error}") from error
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
        """What the engine says has happened to the container; it remembers that of removed ones, too."""
        began = time.time() - (time.monotonic() - self._began)
        found: set[str] = set()
        try:
            filters = {"container": self._id, "event": ["oom", "kill", "die"]}
            for event in self._api.events(int(began) - 1, int(time.time()) + 1, filters, decode=True):
                found.add(event["Action"])
        except Exception as error:
            raise SandboxBroken(f"the Docker engine went away while a job ran: {error}") from error
        return found

    def _collect(self, memory: bool) -> Outcome:
        report = self._report
        problems: list[str] = []
        found: dict[str, Path] = {}
        if report is None:
            status: int = signal.SIGKILL
            said = self._complaint.decode(errors="replace").strip()[-300:]
            problems.append(f"process 1 of the container ended, and the outputs are gone{said and f': {said}'}")
        else:
            status = report["status"]
            problems += report["problems"]
            target, bounds = self._job.collect_to, {item.name: item.max_bytes for item in self._job.collect}
            for name in report["found"]:
                if target is not None and name in bounds:
                    target.mkdir(parents=True, exist_ok=True)
                    problem = self._bring(name, target / name, bounds[name])
                    if problem:
                        problems.append(f"{name}: {problem}; dropped")
                    else:
                        found[name] = target / name
        if self._output.truncated:
            problems.append(f"printed {self._output.dropped} bytes too many; dropped")
        signalled = status & 0x7F
        return Outcome(
            exit_code=None if signalled else status >> 8,
            signal=signalled or None,
            out_of_memory=memory or bool(report and report["oom"]),
            seconds=round(self._ended - self._began, 3),
            peak_memory_gb=round(report["peak"] / 1e9, 3) if report and report["peak"] else None,
            log_tail=self._output.tail(),
            output_truncated=self._output.truncated,
            collected=found,
            problems=tuple(problems),
        )

    def _bring(self, name: str, destination: Path, limit: int) -> str:
        """Copy one file out of the container, whose process 1 keeps the memory alive that holds it."""
        import docker

        try:
            stream, _ = self._api.get_archive(self._id, f"{OUT}/{name}")
        except docker.errors.NotFound:
            return "gone"
        except Exception as error:
            raise SandboxBroken(f"the Docker engine does not hand out {name}: {error}") from error
        try:
            pieces = io.BufferedReader(_Stream(stream), _CHUNK)
            with tarfile.open(fileobj=pieces, mode="r|", bufsize=_CHUNK) as archive:
                member = archive.next()
                source = archive.extractfile(member) if member is not None and member.isreg() else None
                if member is None or source is None:
                    return "no regular file"
                if member.size > limit:
                    return f"{member.size} bytes, at most {limit} are taken"
                _write(source, destination, member.size)
        except tarfile.TarError as error:
            return f"cannot be read ({error})"
        finally:
            stream.close()
        return ""

    def _discard(self, quietly: bool = False) -> None:
        import docker

        with contextlib.suppress(OSError):
            self._attached.close()
        try:
            self._api.remove_container(self._id, v=True, force=True)
        except docker.errors.NotFound:
            pass
        except docker.errors.APIError as error:
            if error.status_code != 409 and not quietly:  # 409: the engine is removing it at this moment
                raise SandboxBroken(f"a container could not be removed: {error}") from error
        except Exception as error:
            if not quietly:
                raise SandboxBroken(f"the Docker engine went away: {error}") from error


def _with_gpu(outcome: Outcome, watch: gpu.MemoryWatch) -> Outcome:
    """The outcome, and what was seen of the GPU's memory. Call it when the container is gone."""
    return replace(
        outcome,
        problems=(*outcome.problems, *watch.problems()),
        out_of_memory=outcome.out_of_memory or watch.exceeded,
        peak_vram_gb=watch.peak_gb,
    )


class _Stream(io.RawIOBase):
    """The pieces of an archive as a file that can only be read on."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _write(source: IO[bytes], destination: Path, size: int) -> None:
    try:
        with destination.open("wb") as file:
            left = size
            while left and (block := source.read(min(left, _CHUNK))):
                file.write(block)
                left -= len(block)
    except OSError as error:
        destination.unlink(missing_ok=True)
        raise SandboxBroken(f"cannot write {destination}: {error.strerror}; free some space") from error


def _frames(pieces: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Split what process 1 wrote into its frames.

    Raises:
        ValueError: that is no frame.
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
