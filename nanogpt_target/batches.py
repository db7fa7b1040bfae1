"""Batches of packed training rows in an order that depends on the seed; a thread reads ahead."""

from __future__ import annotations

import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

AHEAD = 4  # batches


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
        self._reader = ThreadPoolExecutor(1)  # one thread: batches are made in order
        self._ahead: deque[Future[Tensor]] = deque()
        self._rows = 0

    def next(self, rows: int) -> tuple[Tensor, Tensor]:
        """The next ids and targets, int64 [rows, T], on the device."""
        if rows != self._rows:  # the first call, or the trainer has changed its batch size
            for left in self._ahead:
                left.cancel()
            self._ahead = deque(self._reader.submit(self._make, rows) for _ in range(AHEAD))
            self._rows = rows
        self._ahead.append(self._reader.submit(self._make, rows))
        batch = self._ahead.popleft().result().to(self._device, non_blocking=True)
        return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)

    def _make(self, rows: int) -> Tensor:
        while len(self._order) < rows:
            self._order = np.concatenate([self._order, self._random.permutation(self._starts[-1])])
        taken, self._order = self._order[:rows], self._order[rows:]
        shards = np.searchsorted(self._starts, taken, side="right") - 1
        found = [self._shards[shard][k - self._starts[shard]] for shard, k in zip(shards, taken, strict=True)]
        batch = torch.from_numpy(np.stack(found).astype(np.int64))
        return batch.pin_memory() if self._device.type == "cuda" else batch
