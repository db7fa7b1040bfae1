"""How the scorer and a model process exchange fixed-size messages: files in a folder that both see.

The scorer makes every file with its final size, writes requests, and reads answers by ``pread`` into memory of its own.
It maps nothing: a file that the other side cuts short is a short read, not a crash. Another transport (CUDA IPC) has
the same two classes.
"""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import numpy as np

STOP = -1


class ChannelError(Exception):
    """The other side broke the protocol, or is gone."""


class ScorerSide:
    """Asks. ``rows`` × ``length`` ids go out, ``rows`` × ``length`` × ``vocab`` float32 logits come back."""

    def __init__(self, folder: Path, rows: int, length: int, vocab: int):
        self._shape = (rows, length, vocab)
        self._bytes = rows * length * vocab * 4
        self._folder = folder
        self._files = {
            name: _make(folder / name, size)
            for name, size in (("ids", rows * length * 8), ("logits", self._bytes), ("asked", 8), ("answered", 8))
        }
        header = folder / "header.new"
        header.write_text(json.dumps({"rows": rows, "length": length, "vocab": vocab}))
        header.rename(folder / "header.json")
        self._sequence = 0

    def ask(self, ids: np.ndarray, deadline: float, out: np.ndarray) -> None:
        """Send int64 [rows, T] and read the answer into ``out``, float32 [rows, T, V].

        Raises:
            TimeoutError: no answer before ``deadline`` (monotonic).
            ChannelError: the model process ended, or cut a file.
        """
        self._sequence += 1
        os.pwrite(self._files["ids"], np.ascontiguousarray(ids, np.int64).tobytes(), 0)
        os.pwrite(self._files["asked"], struct.pack("<q", self._sequence), 0)
        while os.pread(self._files["answered"], 8, 0) != struct.pack("<q", self._sequence):
            if time.monotonic() > deadline:
                raise TimeoutError
            if (self._folder / "gone").exists():
                raise ChannelError("the model process ended before it had answered")
            time.sleep(0.0005)
        view = memoryview(out).cast("B")
        done = 0
        while done < self._bytes:
            got = os.preadv(self._files["logits"], [view[done:]], done)
            if got == 0:
                raise ChannelError("the model process cut its answer short")
            done += got

    def close(self) -> None:
        os.pwrite(self._files["asked"], struct.pack("<q", STOP), 0)
        for file in self._files.values():
            os.close(file)


class ModelSide:
    """Answers, in the untrusted process."""

    def __init__(self, folder: Path):
        while not (folder / "header.json").exists():
            time.sleep(0.005)
        header = json.loads((folder / "header.json").read_text())
        self.rows, self.length, self.vocab = header["rows"], header["length"], header["vocab"]
        self._ids = np.memmap(folder / "ids", np.int64, "r", shape=(self.rows, self.length))
        self.logits = np.memmap(folder / "logits", np.float32, "r+", shape=(self.rows, self.length, self.vocab))
        self._asked = (folder / "asked").open("rb", buffering=0)
        self._answered = (folder / "answered").open("r+b", buffering=0)
        self._sequence = 0

    def next(self) -> np.ndarray | None:
        """The next request, int64 [rows, T]; None at the end."""
        while True:
            (number,) = struct.unpack("<q", os.pread(self._asked.fileno(), 8, 0))
            if number == STOP:
                return None
            if number == self._sequence + 1:
                return np.array(self._ids)
            time.sleep(0.0005)

    def answered(self) -> None:
        self._sequence += 1
        os.pwrite(self._answered.fileno(), struct.pack("<q", self._sequence), 0)


def _make(path: Path, size: int) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    os.fchmod(file, 0o666)  # the model process is another user
    os.ftruncate(file, size)
    return file
