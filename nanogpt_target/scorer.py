"""The trusted scorer: a process of its own that owns the tokens, the bytes, the softmax and the sum.

    python -m nanogpt_target.scorer --data DIR --split validation --channel-a DIR --channel-b DIR --result FILE

Pass A scores the full rows. Pass B asks a fresh model process for a sample of the rows, shuffled, each cut at a random
place with a suffix from the training text: logits before the cut must agree with pass A, and so must the loss at the cut.
A model that looks ahead, or that keeps state between calls, cannot make them agree.

Bits per byte = -sum over targets of log2 p(target) / sum of their raw bytes. Targets that are BOS stand for no byte of
text and count on neither side.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanogpt_target.channel import ChannelError, ScorerSide

BATCH_BYTES = 32 << 20  # of logits in one message
SAMPLE_ROWS = 96  # of pass B; a peek on a share p of the positions goes unseen with probability (1 - p)^rows at the cuts
REPEATED_BATCHES = 1  # of pass A, to know the model's own noise
LOSS_TOLERANCE = 0.0002  # bits per byte, mean over the cuts
FLOOR, CAP = 2e-3, 0.25  # of the tolerance for a single log-probability, in nats

Ask = Callable[[np.ndarray, np.ndarray], None]


class Rejected(Exception):
    """The model broke the scoring contract."""


@dataclass(frozen=True)
class Score:
    """Mean bits per byte, and what it was taken over."""

    value: float
    tokens: int
    bytes: int
    noise: float
    rows_b: int


def log_probabilities(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Natural log-softmax in float32 at the targets. ``logits`` float32 [N, V] is overwritten; returns float64 [N].

    Raises:
        Rejected: a logit is not finite.
    """
    highest = logits.max(axis=1)
    if not np.isfinite(highest).all():
        raise Rejected("logits are not finite")
    chosen = logits[np.arange(len(targets)), targets].astype(np.float64)
    np.subtract(logits, highest[:, None], out=logits)
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, dtype=np.float32)
    if not np.isfinite(total).all():  # NaN or -inf elsewhere than at the maximum
        raise Rejected("logits are not finite")
    return chosen - highest.astype(np.float64) - np.log(total.astype(np.float64))


class Passes:
    """The two passes over one split. ``ask_a`` and ``ask_b`` fill float32 [B, T, V] from int64 [B, T]."""

    def __init__(self, rows: np.ndarray, token_bytes: np.ndarray, decoys: np.ndarray, batch: int, vocab: int):
        self.ids = rows[:, :-1].astype(np.int64)
        self.targets = rows[:, 1:].astype(np.int64)
        self.weights = token_bytes[self.targets]
        self.decoys, self.batch, self.vocab = decoys, batch, vocab
        self.random = np.random.default_rng(int.from_bytes(os.urandom(8), "little"))  # the model must not guess the cuts
        self.buffer = np.empty((batch, self.ids.shape[1], vocab), np.float32)

    def run(self, ids: np.ndarray, targets: np.ndarray, ask: Ask) -> np.ndarray:
        """Log-probability of each target, float64 [N, T]. The last batch is filled up with its own rows."""
        found = np.empty(ids.shape, np.float64)
        for start in range(0, len(ids), self.batch):
            part = np.arange(start, start + self.batch) % len(ids)
            ask(ids[part], self.buffer)
            values = log_probabilities(self.buffer.reshape(-1, self.vocab), targets[part].reshape(-1))
            keep = min(self.batch, len(ids) - start)
            found[start : start + keep] = values.reshape(self.batch, -1)[:keep]
        return found

    def score(self, ask_a: Ask, ask_b: Ask) -> Score:
        a = self.run(self.ids, self.targets, ask_a)
        repeat = min(len(self.ids), REPEATED_BATCHES * self.batch)
        order = self.random.permutation(len(self.ids))[:repeat]
        again = self.run(self.ids[order], self.targets[order], ask_a)
        noise = float(np.abs(again - a[order]).max())
        sample = self.compare(a, noise, ask_b)
        counted = self.weights > 0
        total, size = float(-a[counted].sum() / np.log(2)), int(self.weights.sum())
        if size == 0:
            raise Rejected("the split has no bytes")
        return Score(total / size, int(counted.sum()), size, noise, sample)

    def compare(self, a: np.ndarray, noise: float, ask_b: Ask) -> int:
        """Pass B. Raises ``Rejected`` when what comes before a cut depends on what comes after it."""
        rows, length = self.ids.shape
        sample = self.random.permutation(rows)[: min(rows, SAMPLE_ROWS)]
        cuts = self.random.integers(1, length, size=len(sample))
        ids = self.ids[sample].copy()
        after = np.arange(length)[None, :] >= cuts[:, None]
        decoys = self.decoys[self.random.integers(len(self.decoys), size=len(sample)), :length].astype(np.int64)
        ids[after] = decoys[after]
        b = self.run(ids, self.targets[sample], ask_b)
        tolerance = min(max(FLOOR, 8 * noise), CAP)
        apart = np.abs(b - a[sample])
        apart[after] = 0.0
        if apart.max() > tolerance:
            row = int(apart.max(axis=1).argmax())
            raise Rejected(
                f"looks ahead: changing what comes later moved log-probabilities of {int((apart > tolerance).sum())} "
                f"earlier targets, by up to {apart.max():.3g} nats (row {int(sample[row])}, tolerance {tolerance:.2g})"
            )
        at = (np.arange(len(sample)), cuts - 1)
        size = max(1, int(self.weights[sample][at].sum()))
        difference = abs(float((b[at] - a[sample][at])[self.weights[sample][at] > 0].sum())) / np.log(2) / size
        if difference > max(LOSS_TOLERANCE, 0.0):
            raise Rejected(f"looks ahead: the loss at the cuts differs by {difference:.2g} bits per byte")
        return len(sample)


def read_split(data: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Rows [N, T + 1], bytes of each token [V], decoy rows, and the vocabulary's size."""
    manifest = json.loads((data / "manifest.json").read_text())
    length = manifest["sequence_length"] + 1
    rows = np.fromfile(data / f"{split}.bin", np.uint16).reshape(-1, length)
    shard = np.memmap(data / manifest["train_shards"][0], np.uint16, "r").reshape(-1, length)
    return rows, np.load(data / "token_bytes.npy"), np.array(shard[-512:]), manifest["vocab_size"]


def score(data: Path, split: str, channel_a: Path, channel_b: Path, timeout: float) -> dict[str, object]:
    """The result as JSON: status ``ok``, ``invalid``, ``crash`` or ``timeout``, and the value."""
    rows, token_bytes, decoys, vocab = read_split(data, split)
    length = rows.shape[1] - 1
    batch = int(max(1, min(len(rows), BATCH_BYTES // (length * vocab * 4))))
    sides = [ScorerSide(channel, batch, length, vocab) for channel in (channel_a, channel_b)]
    began = time.monotonic()
    deadline = began + timeout

    def ask(side: ScorerSide) -> Ask:
        return lambda ids, out: side.ask(ids, deadline, out)

    try:
        found = Passes(rows, token_bytes, decoys, batch, vocab).score(ask(sides[0]), ask(sides[1]))
    except Rejected as error:
        return {"status": "invalid", "value": None, "reason": str(error)}
    except ChannelError as error:
        return {"status": "crash", "value": None, "reason": f"scoring: {error}"}
    except TimeoutError:
        return {"status": "timeout", "value": None, "reason": f"scoring took more than {timeout:.0f} s"}
    finally:
        for side in sides:
            side.close()
    seconds = round(time.monotonic() - began, 3)
    return {"status": "ok", "reason": "", **found.__dict__, "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nanogpt_target.scorer")
    parser.add_argument("--split", choices=("validation", "test"), required=True)
    for name in ("data", "channel-a", "channel-b", "result"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=300.0)
    arguments = parser.parse_args()
    found = score(arguments.data, arguments.split, arguments.channel_a, arguments.channel_b, arguments.timeout)
    scratch = arguments.result.with_suffix(".new")
    scratch.write_text(json.dumps(found))
    scratch.rename(arguments.result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
