"""The trusted scorer: a process of its own that owns the tokens, the bytes, the softmax and the sum.

    python -m nanogpt_target.scorer --data DIR --split validation --channel-a DIR --channel-b DIR --result FILE

Pass A scores the full rows. Pass B asks a fresh model process for a sample of the rows, shuffled, each cut at a random
place with a suffix from the training text. The log-probability of every target before its cut must agree with pass A,
and so must the mean loss of the last target before the cut. A model that looks ahead, at other rows, or back at earlier
calls cannot make them agree: both passes would have to see the same future. The cuts are spread over all positions of
a row, so a peek that goes by the position is seen wherever a row has at most CUTS of them. One that goes by something
else, on a share p of the targets, stays unseen with a probability of at most (1 - p) ** CUTS.

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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nanogpt_target.channel import ModelGone, Rejected, ScorerSide

BATCH_BYTES = 8 << 20  # of logits in one message: what a CPU keeps in its cache
CHUNK = 1 << 18  # logits that go through the softmax at a time: they stay in the cache
CUTS = 256  # of pass B, each with a row of its own; a split with fewer rows gives its rows several times
REPEATED_ROWS = 64  # of pass A, at least: how far the model is from itself
LOSS_TOLERANCE = 0.0002  # bits per byte, mean over the cuts; and what the model's own noise adds to that mean
LOSS_CAP = 0.001  # of both together
FLOOR, CAP = 2e-3, 0.25  # nats: bounds of the tolerance for one log-probability
NOISE_FACTOR = 8.0  # that tolerance, in units of the largest difference within pass A
LN2 = float(np.log(2.0))

Ask = Callable[[np.ndarray, np.ndarray], None]  # from int64 [B, T] into float32 [B, T, V]


@dataclass(frozen=True)
class Score:
    """Bits per byte, and what it was taken over."""

    value: float
    tokens: int
    bytes: int
    noise: float  # nats, largest difference between two answers of one model process
    rows_b: int


@dataclass(frozen=True)
class Sample:
    """What pass B asks: ``ids`` [N, T] of ``rows``, foreign from position ``cut`` on; so targets before it are fair."""

    rows: np.ndarray
    cuts: np.ndarray
    ids: np.ndarray

    @property
    def fair(self) -> np.ndarray:
        """bool [N, T]: the inputs up to and at this position are those of pass A."""
        return np.arange(self.ids.shape[1])[None, :] < self.cuts[:, None]


def log_probabilities(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Log-softmax in nats at the targets. ``logits`` float32 [N, V] is overwritten; ``targets`` [N]; float64 [N].

    Raises:
        Rejected: a logit is not finite.
    """
    found = np.empty(len(targets), np.float64)
    step = max(1, CHUNK // logits.shape[1])
    for start in range(0, len(targets), step):
        part, target = logits[start : start + step], targets[start : start + step]
        highest = part.max(axis=1)  # NaN and inf come through
        if not (np.isfinite(highest).all() and np.isfinite(part.min())):
            raise Rejected("logits are not finite")
        chosen = part[np.arange(len(target)), target].astype(np.float64)
        with np.errstate(over="ignore", under="ignore"):  # finite numbers may be further apart than float32 can say
            np.subtract(part, highest[:, None], out=part)
            np.exp(part, out=part)
        total = part.sum(axis=1, dtype=np.float32).astype(np.float64)
        found[start : start + step] = chosen - highest.astype(np.float64) - np.log(total)
    return found


def run(ids: np.ndarray, targets: np.ndarray, ask: Ask, batch: int, vocab: int) -> np.ndarray:
    """Log-probability of each target, float64 [N, T]. The last batch is filled up with rows of the first."""
    found = np.empty(ids.shape, np.float64)
    buffer = np.empty((batch, ids.shape[1], vocab), np.float32)
    for start in range(0, len(ids), batch):
        part = np.arange(start, start + batch) % len(ids)
        ask(ids[part], buffer)
        values = log_probabilities(buffer.reshape(-1, vocab), targets[part].reshape(-1))
        keep = min(batch, len(ids) - start)
        found[start : start + keep] = values.reshape(batch, -1)[:keep]
    return found


def _orders(size: int, random: np.random.Generator) -> np.ndarray:
    """CUTS numbers below ``size``: random orders of all of them, one after the other."""
    return np.concatenate([random.permutation(size) for _ in range(-(-CUTS // size))])[:CUTS]


def draw(ids: np.ndarray, decoys: np.ndarray, vocab: int, random: np.random.Generator) -> Sample:
    """The rows of pass B, shuffled, each with the suffix of a training row from its cut on.

    Rows and cuts are whole random orders, one after the other: none comes a second time before each came once, and a
    small split is looked at as closely as a large one. The first foreign token is never the true one, so that a peek at
    the next token sees something else at every cut.
    """
    length = ids.shape[1]
    rows, cuts = _orders(len(ids), random), 1 + _orders(length - 1, random)
    mixed = Sample(rows, cuts, ids[rows].copy())
    foreign = decoys[random.integers(len(decoys), size=len(rows)), :length].astype(np.int64)
    mixed.ids[~mixed.fair] = foreign[~mixed.fair]
    first = (np.arange(len(rows)), cuts)
    same = mixed.ids[first] == ids[rows, cuts]
    mixed.ids[first] = np.where(same, (mixed.ids[first] + 1) % vocab, mixed.ids[first])
    return mixed


def compare(a: np.ndarray, b: np.ndarray, sample: Sample, weights: np.ndarray, noise: np.ndarray) -> None:
    """Log-probabilities [N, T] of the sampled rows in pass A and in pass B; ``weights``: bytes of their targets.

    ``noise``: differences in nats between two answers of one process to the same rows. Honest means over n cuts differ
    by their root mean square over √n; four times that is allowed.

    Raises:
        Rejected: what comes before a cut depends on what comes after it.
    """
    tolerance = min(max(FLOOR, NOISE_FACTOR * float(np.abs(noise).max())), CAP)
    apart = np.where(sample.fair, np.abs(b - a), 0.0)
    if apart.max() > tolerance:
        raise Rejected(
            f"looks ahead: other text after a position moved {int((apart > tolerance).sum())} of "
            f"{int(sample.fair.sum())} log-probabilities before it, by up to {apart.max():.3g} nats "
            f"(tolerance {tolerance:.2g})"
        )
    last = (np.arange(len(a)), sample.cuts - 1)
    counted = weights[last] > 0
    size = max(1, int(weights[last].sum()))
    difference = abs(float((b[last] - a[last])[counted].sum())) / LN2 / size
    own = 4 * float(np.sqrt(np.mean(noise**2) * counted.sum())) / LN2 / size
    allowed = min(LOSS_TOLERANCE + own, LOSS_CAP)
    if difference > allowed:
        raise Rejected(
            f"looks ahead: the loss just before other text differs by {difference:.2g} bits per byte "
            f"(tolerance {allowed:.2g})"
        )


def steady(noise: np.ndarray, weights: np.ndarray) -> None:
    """``noise`` [N, T]: log-probabilities of rows asked again, less those of the first time; ``weights``: bytes.

    A model's noise goes both ways, row by row. One that learns from what it is asked goes one way.

    Raises:
        Rejected: the mean moved by more than what such noise moves it.
    """
    size = max(1, int(weights.sum()))
    by_row = np.where(weights > 0, noise, 0.0).sum(axis=1) / LN2 / size
    moved = abs(float(by_row.sum()))
    allowed = min(LOSS_TOLERANCE + 4 * float(np.sqrt(np.sum(by_row**2))), LOSS_CAP)
    if moved > allowed:
        raise Rejected(
            f"keeps state: the same rows, asked again, differ by {moved:.2g} bits per byte (tolerance {allowed:.2g})"
        )


def score(
    rows: np.ndarray,
    token_bytes: np.ndarray,
    decoys: np.ndarray,
    ask_a: Ask,
    ask_b: Ask,
    batch: int,
    random: np.random.Generator,
    cancel: Callable[[], None] = lambda: None,
) -> Score:
    """Both passes at once over ``rows`` [N, T + 1]. ``cancel`` is called when pass A fails, and must end pass B.

    Raises:
        Rejected: the model broke the contract.
    """
    ids, targets = rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)
    weights, vocab = token_bytes[targets], len(token_bytes)
    sample = draw(ids, decoys, vocab, random)
    again = random.permutation(len(ids))[: max(batch, REPEATED_ROWS)]
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(run, sample.ids, targets[sample.rows], ask_b, batch, vocab)
        try:
            a = run(ids, targets, ask_a, batch, vocab)
            noise = run(ids[again], targets[again], ask_a, batch, vocab) - a[again]
        except BaseException:
            cancel()
            raise
        b = second.result()
    compare(a[sample.rows], b, sample, weights[sample.rows], noise)
    steady(noise, weights[again])
    counted = weights > 0
    size = int(weights.sum())
    largest = float(np.abs(noise).max())
    return Score(float(-a[counted].sum()) / LN2 / size, int(counted.sum()), size, largest, len(sample.rows))


def read_split(data: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows uint16 [N, T + 1], raw bytes of each token [V], and decoy rows from the training text."""
    manifest = json.loads((data / "manifest.json").read_text())
    length = manifest["sequence_length"] + 1
    rows = np.fromfile(data / f"{split}.bin", np.uint16).reshape(-1, length)
    shard = np.memmap(data / manifest["train_shards"][0], np.uint16, "r").reshape(-1, length)
    return rows, np.load(data / "token_bytes.npy"), np.array(shard[-1024:])


def score_channels(
    data: Path, split: str, channel_a: Path, channel_b: Path, timeout: float, seed: int | None = None
) -> dict[str, object]:
    """The result as JSON: ``status`` (ok, invalid, crash, timeout), ``value`` or None, ``reason``, and counts."""
    began = time.monotonic()
    deadline = began + timeout
    rows, token_bytes, decoys = read_split(data, split)
    length, vocab = rows.shape[1] - 1, len(token_bytes)
    batch = max(1, min(len(rows), CUTS, BATCH_BYTES // (length * vocab * 4)))
    random = np.random.default_rng(int.from_bytes(os.urandom(16), "little") if seed is None else seed)
    sides: list[ScorerSide] = []

    def asker(side: ScorerSide) -> Ask:
        return lambda ids, out: side.ask(ids, deadline, out)

    def cancel() -> None:
        sides[1].cancelled = True

    try:
        for channel in (channel_a, channel_b):
            sides.append(ScorerSide(channel, batch, length, vocab))
        found = score(rows, token_bytes, decoys, asker(sides[0]), asker(sides[1]), batch, random, cancel)
    except Rejected as error:
        return {"status": "invalid", "value": None, "reason": str(error)}
    except ModelGone as error:
        return {"status": "crash", "value": None, "reason": f"scoring: {error}", "asked": any(s.asked for s in sides)}
    except TimeoutError:
        return {"status": "timeout", "value": None, "reason": f"scoring took more than {timeout:g} s", "asked": True}
    finally:
        for side in sides:
            side.close()
    ended, ready = time.monotonic(), min(side.ready for side in sides)
    seconds = {"startup": ready - began, "scoring": ended - ready, "total": ended - began}
    return {
        "status": "ok",
        "reason": "",
        **asdict(found),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nanogpt_target.scorer")
    parser.add_argument("--split", choices=("validation", "test"), required=True)
    for name in ("data", "channel-a", "channel-b", "result"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds, from here to the result")
    parser.add_argument("--seed", type=int, help="of the cuts; without it they cannot be foreseen, as it should be")
    given = parser.parse_args()
    found = score_channels(given.data, given.split, given.channel_a, given.channel_b, given.timeout, given.seed)
    scratch = given.result.with_suffix(".new")
    scratch.write_text(json.dumps(found))
    scratch.rename(given.result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
