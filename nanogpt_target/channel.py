"""The channel between the scorer and a model process: fixed-size messages in files of a shared folder.

The host creates every file with its final size; the sandbox of the model process has a read-only folder, in which only
``WRITABLE`` files can be written, and a limit on their size. The scorer writes requests and reads answers by ``pread``
into its own memory. It maps no file: a file that the model process truncates is a short read, not a crash. The model
process holds a named pipe open while it runs, so that the scorer notices its end at once, also across namespaces.

    header.json  shapes, by the scorer                        logits    float32 [rows, T, V], by the model
    ids          int64 [rows, T], by the scorer               answered  int64 sequence number, int64 code, by the model
    asked        int64 sequence number, by the scorer         alive     named pipe: one byte, by the model
"""

from __future__ import annotations

import json
import os
import statistics
import struct
import time
from pathlib import Path

import numpy as np

STOP = -1  # instead of a sequence number
READY = -2  # instead of a sequence number, by the model: loaded
OK, WRONG_SHAPE, WRONG_TYPE = range(3)  # codes of an answer
PAUSE = 0.0005  # seconds between checks for an answer
WRITABLE = ("logits", "answered")  # by the model process


class Rejected(Exception):
    """The model broke the scoring contract."""


class ModelGone(Exception):
    """The model process ended before it answered."""


_REASONS = {
    WRONG_SHAPE: "the model did not return one row of logits per position, [B, T, V]",
    WRONG_TYPE: "the model did not return floating point logits",
}


def make_files(folder: Path, rows: int, length: int, vocab: int) -> None:
    """Create the files of a channel in an empty folder.

    Raises:
        OSError: the disk is full.
    """
    for name, size in _sizes(rows, length, vocab).items():
        file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file, 0, size)  # a write to a full disk would end in a signal later
            os.truncate(file, size)
            os.fchmod(file, 0o666 if name in WRITABLE else 0o644)  # the model process may run as another user
        finally:
            os.close(file)
    os.mkfifo(folder / "alive")  # a lock would not do: the sandboxes deny locks on files that jobs may share
    (folder / "alive").chmod(0o622)


def _sizes(rows: int, length: int, vocab: int) -> dict[str, int]:
    return {"ids": rows * length * 8, "logits": rows * length * vocab * 4, "asked": 8, "answered": 16}


class ScorerSide:
    """The scorer's end: sends int64 [rows, length] ids, receives float32 [rows, length, vocab] logits.

    ``load_seconds`` bounds the time from the import of train.py to the first answer at normal speed: otherwise a model
    process could train while it loads.
    """

    def __init__(self, folder: Path, rows: int, length: int, vocab: int, load_seconds: float = float("inf")):
        self._load_seconds, self._row_bytes, self._sequence = load_seconds, vocab * 4, READY
        self._began = self._ready = float("inf")  # monotonic times: import of train.py, model loaded
        self._started = False  # the model process
        self.asked = False  # whether the model process has received any text
        self.startup = 0.0  # seconds until the model process was ready
        self.answers: list[float] = []  # seconds per answer
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        self._files = {name: os.open(folder / name, os.O_RDWR | flags) for name in _sizes(rows, length, vocab)}
        self._files["alive"] = os.open(folder / "alive", os.O_RDONLY | os.O_NONBLOCK | flags)
        header = folder / "header.new"
        header.write_text(json.dumps([rows, length, vocab]))
        header.chmod(0o644)  # the model process may run as another user
        header.rename(folder / "header.json")

    def ask(self, ids: np.ndarray, deadline: float) -> None:
        """Send ``ids`` int64 [rows, T] and wait for the answer, which ``read`` copies.

        Raises:
            TimeoutError: no answer before ``deadline`` (monotonic).
            ModelGone: the model process ended.
            Rejected: the answer has another form, or the model process truncated a file.
        """
        asked = time.monotonic()
        if not self.asked:
            self._await(deadline)
            self._ready = time.monotonic()
            self.startup, asked = self._ready - asked, self._ready
        self.asked = True
        self._sequence = max(0, self._sequence) + 1
        os.pwrite(self._files["ids"], np.ascontiguousarray(ids, np.int64).tobytes(), 0)
        os.pwrite(self._files["asked"], struct.pack("<q", self._sequence), 0)
        code = self._await(deadline)
        self.answers.append(time.monotonic() - asked)
        if code != OK:
            raise Rejected(_REASONS.get(code, "the model process answered with an unknown code"))

    def read(self, position: int, out: np.ndarray) -> None:
        """Copy the logits of the last answer, from a position in rows × T on, into ``out`` float32 [N, V].

        Several threads may call this at once.

        Raises:
            Rejected: the model process truncated the file.
        """
        view, start = out.reshape(-1).data.cast("B"), position * self._row_bytes
        done = 0
        while done < len(view):
            got = os.preadv(self._files["logits"], [view[done:]], start + done)
            if got == 0:
                raise Rejected("the model process cut its answer short")
            done += got

    @property
    def loading(self) -> float:
        """Seconds of loading. The excess time of the first answer counts."""
        loading = max(0.0, self._ready - self._began)  # 0 if the load ended before the first check
        return loading + max(0.0, self.answers[0] - statistics.median(self.answers))

    def check_load(self, seconds: float | None = None) -> None:
        """Raise ``TimeoutError`` if loading took too long; ``seconds``: so far, by default ``loading``."""
        if (self.loading if seconds is None else seconds) > self._load_seconds:
            raise TimeoutError(f"loading the model took more than {self._load_seconds:g} s")

    def _await(self, deadline: float) -> int:
        looks = 0
        while (code := self._code()) is None:
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError
            if not self.asked:
                self._ended()
                if self._began > now and self._started:
                    self._began = now
                self.check_load(now - self._began)
            looks += 1
            if looks % 64 == 0 and self._ended() and self._code() is None:  # it may have answered before its end
                raise ModelGone("the model process ended before it had answered")
            time.sleep(PAUSE)
        return code

    def _code(self) -> int | None:
        """The code of the answer to the last request; None before there is one."""
        answer = os.pread(self._files["answered"], 16, 0)
        if len(answer) != 16:
            raise Rejected("the model process cut its answer short")
        number, code = struct.unpack("<qq", answer)
        return int(code) if number == self._sequence else None

    def _ended(self) -> bool:
        """Whether the model process has started and ended. Sets ``_started``."""
        try:
            data = os.read(self._files["alive"], 1 << 16)
        except BlockingIOError:  # the process holds the writing end
            return False
        ended = self._started and not data
        self._started |= bool(data)
        return ended

    def close(self) -> None:
        """Ask the model process to end, and close the files."""
        if "asked" in self._files:
            os.pwrite(self._files["asked"], struct.pack("<q", STOP), 0)
        for file in self._files.values():
            os.close(file)
        self._files = {}


class ModelSide:
    """The model process's end. Waits until the scorer opens the channel; created before train.py is imported."""

    def __init__(self, folder: Path):
        while not (folder / "header.json").exists():
            time.sleep(0.005)
        self._alive = (folder / "alive").open("wb", buffering=0)  # a pipe, open until this process ends
        self._alive.write(b"\x01")
        rows, length, vocab = json.loads((folder / "header.json").read_text())
        self.shape: tuple[int, int, int] = (rows, length, vocab)
        self._ids = np.memmap(folder / "ids", np.int64, "r", shape=self.shape[:2])
        self.logits = np.memmap(folder / "logits", np.float32, "r+", shape=self.shape)
        self._asked = (folder / "asked").open("rb", buffering=0)
        self._answered = (folder / "answered").open("r+b", buffering=0)
        self._sequence = READY

    def next(self) -> np.ndarray | None:
        """The next request, int64 [rows, T]; None at the end."""
        if self._sequence == READY:
            self.answer()
            self._sequence = 0
        while True:
            (number,) = struct.unpack("<q", os.pread(self._asked.fileno(), 8, 0))
            if number == STOP:
                return None
            if number == self._sequence + 1:
                self._sequence += 1
                return np.array(self._ids)
            time.sleep(PAUSE)

    def answer(self, code: int = OK) -> None:
        """Send what is in ``logits`` float32 [rows, T, V], or the code of a problem."""
        os.pwrite(self._answered.fileno(), struct.pack("<qq", self._sequence, code), 0)
