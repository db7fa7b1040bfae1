"""The output of a job: bounded in size, cleaned of control characters, split into lines as it arrives.

Covers: endless output, lines of any length, terminal escape sequences, any bytes. Readers get plain text of bounded
length. Does not cover: what the text says.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from sandbox.types import Outcome, SandboxBroken

LINE_BYTES = 64 * 1024  # longer lines are cut
TAIL_BYTES = 16 * 1024  # the end of the output is kept when its middle is dropped: errors are printed last

_ESCAPES = re.compile(
    r"(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # operating system commands: titles, clipboard, links
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c]*(?:\x1b\\|\x9c)?"  # device control strings and similar
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences: colours, cursor
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def clean(line: str) -> str:
    """Remove escape sequences, control characters and marks of writing direction from one line."""
    return _CONTROLS.sub("", _ESCAPES.sub("", line))


class Output:
    """Receives the raw bytes of a job in one thread and returns its lines in another."""

    def __init__(self, limit: int, log: Path | None = None) -> None:
        """Open the log.

        Args:
            limit: bytes kept as lines and in the log; of the rest only the last ``TAIL_BYTES`` are kept.
            log: file for the cleaned lines.

        Raises:
            SandboxBroken: the log cannot be written.
        """
        self.limit, self.received = limit, 0
        self.failure = ""  # why the log could not be written
        self._lines: list[str] = []
        self._partial = self._tail = b""
        self._ended = False
        self._changed = threading.Condition()
        self._log: BinaryIO | None = None
        if log:
            try:
                self._log = log.open("wb")
            except OSError as error:
                raise SandboxBroken(f"cannot write {log}: {error.strerror}; free some space") from error

    @property
    def dropped(self) -> int:
        """The number of bytes past the limit."""
        return max(0, self.received - self.limit)

    def feed(self, data: bytes) -> None:
        """Receive the next bytes. ``\\r`` ends a line too, so that progress bars become lines."""
        kept = data[: max(0, self.limit - self.received)]
        self.received += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        *lines, rest = re.split(rb"\r\n|\r|\n", kept)
        if lines:
            lines[0], self._partial = self._partial + lines[0], b""
        self._partial = (self._partial + rest)[:LINE_BYTES]
        self._publish(lines)

    def skip(self, count: int) -> None:
        """Count bytes that the sender dropped."""
        self.received += count

    def end(self) -> None:
        """End the output: append its tail to the log if the output was cut, then close the log."""
        with contextlib.suppress(OSError):  # ``check`` reports it; a reader must not wait forever
            self._publish([self._partial] if self._partial else [])
            if self.dropped:
                self._write(f"[... {self.dropped} bytes dropped; the end:]\n{self.tail()}\n")
            self._close()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raise ``SandboxBroken`` if the log could not be written."""
        if self.failure:
            raise SandboxBroken(self.failure)

    def outcome(
        self,
        status: int,
        *,
        seconds: float,
        peak: int,
        out_of_memory: bool,
        collected: Mapping[str, Path],
        problems: list[str],
        peak_vram_gb: float | None = None,
    ) -> Outcome:
        """The outcome of the job with this output. ``status``: its wait status; ``peak``: its memory in bytes."""
        number = status & 0x7F
        printed = [f"printed {self.dropped} bytes too many; dropped"] if self.dropped else []
        return Outcome(
            exit_code=None if number else status >> 8,
            signal=number or None,
            out_of_memory=out_of_memory,
            seconds=round(seconds, 3),
            peak_memory_gb=round(peak / 1e9, 3) if peak else None,
            peak_vram_gb=peak_vram_gb,
            log_tail=self.tail(),
            collected=collected,
            problems=(*problems, *printed),
        )

    def read(self, timeout: float) -> list[str] | None:
        """The lines since the last call; [] if none came within ``timeout`` seconds; None after the last line."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._ended, timeout)
            lines, self._lines = self._lines, []
            return None if self._ended and not lines else lines

    def tail(self) -> str:
        """The last lines of the output, cleaned."""
        lines = re.split(rb"[\r\n]+", self._tail)
        if self.received > len(self._tail) and len(lines) > 1:
            lines = lines[1:]  # the first line is incomplete
        return "\n".join(_decode(line) for line in lines if line)

    def _publish(self, raw: list[bytes]) -> None:
        if lines := [_decode(line[:LINE_BYTES]) for line in raw]:
            self._write("".join(f"{line}\n" for line in lines))
            with self._changed:
                self._lines += lines
                self._changed.notify_all()

    def _write(self, text: str) -> None:
        if self._log is not None:
            with self._noting_failure(self._log):
                self._log.write(text.encode())
                self._log.flush()

    def _close(self) -> None:
        """Close the log; a network file system may report only now that its disk is full."""
        if self._log is not None:
            with self._noting_failure(self._log):
                self._log.close()
            self._log = None

    @contextlib.contextmanager
    def _noting_failure(self, log: BinaryIO) -> Iterator[None]:
        """Keep why the log could not be written, for ``check``, and write no more to it."""
        try:
            yield
        except OSError as error:
            self.failure = f"cannot write {log.name}: {error.strerror}; free some space"
            with contextlib.suppress(OSError):
                log.close()
            self._log = None
            raise


def _decode(line: bytes) -> str:
    return clean(line.decode("utf-8", errors="replace"))
