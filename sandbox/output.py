"""What a job prints: cut to size, cleaned of control characters, split into lines as they come.

The bytes come from code that nobody has read. They may be endless, hold terminal escapes, or never end a line; what
leaves this module is plain text of bounded length.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import deque
from pathlib import Path
from typing import BinaryIO

from sandbox.types import SandboxBroken

LINE_BYTES = 64 * 1024  # a longer line is cut
TAIL_BYTES = 16 * 1024  # the end of the output is kept even when its middle is dropped: errors stand there

_ESCAPES = re.compile(
    r"(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # operating system commands: titles, clipboard, links
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c]*(?:\x1b\\|\x9c)?"  # device control strings and their like
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences: colours, cursor
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def clean(line: str) -> str:
    """One line of text without escape sequences, control characters and marks that turn the writing direction."""
    return _CONTROLS.sub("", _ESCAPES.sub("", line))


def clean_bytes(line: bytes) -> str:
    return clean(line.decode("utf-8", errors="replace"))


class Output:
    """Takes the raw bytes of a job from one thread and hands out its lines to another.

    The first ``limit`` bytes are kept as lines and in the log; of the rest the last ``TAIL_BYTES`` are remembered.
    """

    def __init__(self, limit: int, log: Path | None = None) -> None:
        self.limit = limit
        self.received = 0
        self._lines: deque[str] = deque()
        self._partial = bytearray()
        self._skipping = False  # inside a line that was cut
        self._tail = b""
        self._ended = False
        self.failure = ""  # why the log could not be written to its end: the job's fault never, the machine's always
        self._changed = threading.Condition()
        self._log: BinaryIO | None = None
        if log:
            try:
                self._log = log.open("wb")
            except OSError as error:
                raise SandboxBroken(f"cannot write {log}: {error.strerror}; free some space") from error

    @property
    def truncated(self) -> bool:
        return self.received > self.limit

    @property
    def dropped(self) -> int:
        """Bytes past the limit."""
        return max(0, self.received - self.limit)

    def feed(self, data: bytes) -> None:
        """Take the next bytes, of any number."""
        kept = data[: max(0, self.limit - self.received)]
        self.received += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:] if len(data) < TAIL_BYTES else data[-TAIL_BYTES:]
        if kept:
            self._publish(self._split(kept))

    def skip(self, count: int) -> None:
        """Of the next bytes, ``count`` were dropped on the way here."""
        self.received += count

    def end(self) -> None:
        """No more bytes will come. Writes the end of a cut output into the log and closes it."""
        last = [] if self._skipping or not self._partial else [clean_bytes(bytes(self._partial))]
        self._partial.clear()
        try:
            self._publish(last)
            if self._log and self.truncated:
                self._log.write(f"[... {self.dropped} bytes dropped; the end:]\n{self.tail()}\n".encode())
            if self._log:
                self._log.close()
        except OSError as error:
            self._fail(error)
        self._log = None
        with self._changed:  # whatever became of the log: who reads must not wait for ever
            self._ended = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raises ``SandboxBroken`` if the log could not be written."""
        if self.failure:
            raise SandboxBroken(self.failure)

    def _fail(self, error: OSError) -> None:
        log, self._log = self._log, None
        self.failure = f"cannot write {log.name if log else 'the log'}: {error.strerror}; free some space"
        if log:
            with contextlib.suppress(OSError):
                log.close()

    def read(self, timeout: float) -> list[str] | None:
        """The lines since the last call; ``[]`` if none came within ``timeout`` seconds; ``None`` after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._ended, timeout)
            lines = list(self._lines)
            self._lines.clear()
            return None if self._ended and not lines else lines

    def tail(self) -> str:
        """The last lines, cleaned."""
        lines = re.split(rb"[\r\n]+", self._tail)
        if self.received > len(self._tail) and len(lines) > 1:
            lines = lines[1:]  # its beginning is lost
        return "\n".join(clean_bytes(line) for line in lines if line)

    def _split(self, data: bytes) -> list[str]:
        """Whole lines; ``\\r`` ends a line too, so that progress bars come out as lines."""
        pieces = re.split(rb"\r\n|\r|\n", data)
        lines: list[str] = []
        for number, piece in enumerate(pieces):
            if number:
                if not self._skipping:
                    lines.append(clean_bytes(bytes(self._partial)))
                self._partial.clear()
                self._skipping = False
            if not self._skipping:
                self._partial += piece
                if len(self._partial) > LINE_BYTES:
                    lines.append(clean_bytes(bytes(self._partial[:LINE_BYTES])))
                    self._partial.clear()
                    self._skipping = True
        return lines

    def _publish(self, lines: list[str]) -> None:
        if not lines:
            return
        if self._log:
            try:
                self._log.write("".join(line + "\n" for line in lines).encode())
                self._log.flush()
            except OSError as error:
                self._fail(error)
                raise
        with self._changed:
            self._lines.extend(lines)
            self._changed.notify_all()
