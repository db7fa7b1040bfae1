"""Packs texts into rows of tokens of equal length, and writes the rows to shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

SHARD_BYTES = 1 << 28
TOKENIZER_CHARACTERS = 4_000_000  # training text of the tokenizer


def sample(texts: Iterator[str]) -> Iterator[str]:
    """The training text of the tokenizer."""
    left = TOKENIZER_CHARACTERS
    for text in texts:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def pack(documents: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Pack documents into blocks of rows, uint16 [N, length + 1]. Every row and every document begins with BOS (0).

    A document that does not fit continues in the next row. An incomplete last row is dropped.
    """
    bos = np.zeros(1, np.uint16)
    pieces: list[np.ndarray] = []
    size, room = 0, 0
    for document in documents:
        ids = document
        while len(ids):
            if room < 2:  # start a new row; BOS fills a single free place
                pieces.append(bos[:room])
                size += room
                room = length + 1
            part, ids = ids[: room - 1], ids[room - 1 :]
            pieces += [bos, part]
            size += len(part) + 1
            room -= len(part) + 1
        if size >= 1 << 22:
            flat = np.concatenate(pieces)
            whole = size // (length + 1) * (length + 1)
            yield flat[:whole].reshape(-1, length + 1)
            pieces, size = [flat[whole:]], size - whole
    flat = np.concatenate([np.empty(0, np.uint16), *pieces])
    whole = size // (length + 1) * (length + 1)
    yield flat[:whole].reshape(-1, length + 1)


def write_shards(blocks: Iterator[np.ndarray], length: int, folder: Path) -> tuple[list[str], int]:
    """Write the rows to shards; the names of the shards and the number of rows."""
    most = max(1, SHARD_BYTES // (2 * (length + 1)))
    names: list[str] = []
    count, left = 0, 0
    for block in blocks:
        rows = block
        while len(rows):
            if left == 0:
                names.append(f"train-{len(names):05d}.bin")
                left = most
            part, rows = rows[:left], rows[left:]
            with (folder / names[-1]).open("ab") as file:
                part.tofile(file)
            left -= len(part)
            count += len(part)
    return names, count
