"""Batches of packed training rows in an order that depends on the seed; a thread reads ahead."""

from __future__ import annotations

import json
import queue
import threading
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Batches:
    """Rows of ``sequence_length + 1`` tokens that begin with BOS; every epoch is a new permutation of all rows."""

    def __init__(self, directory: Path, seed: int, device: torch.device):
        manifest = json.loads((directory / "manifest.json").read_text())
        length = int(manifest["sequence_length"]) + 1
        self._shards = [
            np.memmap(directory / name, np.uint16, "r").reshape(-1, length) for name in manifest["train_shards"]
        ]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self._random = np.random.default_rng([seed, 20_240_601])
        self._device = device
        self._order = np.empty(0, np.int64)
        self._rows = 0
        self._ready: queue.Queue[Tensor] = queue.Queue(maxsize=4)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def next(self, rows: int) -> tuple[Tensor, Tensor]:
        """The next ids and targets, int64 [rows, T], on the device."""
        if rows != self._rows:  # the first call, or the trainer has changed its batch size
            self.close()
            self._rows = rows
            self._closed = threading.Event()
            self._ready = queue.Queue(maxsize=4)
            self._thread = threading.Thread(target=self._fill, args=(rows, self._ready, self._closed), daemon=True)
            self._thread.start()
        batch = self._ready.get().to(self._device, non_blocking=True)
        return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            while self._thread.is_alive():
                try:
                    self._ready.get(timeout=0.01)
                except queue.Empty:
                    continue
            self._thread = None

    def _fill(self, rows: int, ready: queue.Queue[Tensor], closed: threading.Event) -> None:
        while not closed.is_set():
            batch = torch.from_numpy(np.stack([self._row(k) for k in self._take(rows)]).astype(np.int64))
            if self._device.type == "cuda":
                batch = batch.pin_memory()
            while not closed.is_set():
                try:
                    ready.put(batch, timeout=0.05)
                    break
                except queue.Full:
                    continue

    def _take(self, rows: int) -> np.ndarray:
        while len(self._order) < rows:
            self._order = np.concatenate([self._order, self._random.permutation(self._starts[-1])])
        taken, self._order = self._order[:rows], self._order[rows:]
        return taken

    def _row(self, k: int) -> np.ndarray:
        shard = int(np.searchsorted(self._starts, k, side="right")) - 1
        row: np.ndarray = self._shards[shard][k - self._starts[shard]]
        return row
