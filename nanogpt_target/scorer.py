"""The trusted scorer: a process of its own that owns the tokens, the bytes, the softmax and the sum.

    python -m nanogpt_target.scorer --data DIR --split validation --channel-a DIR --channel-b DIR --result FILE

Pass A scores the full rows. Then its model process ends, and pass B asks a fresh one, which has run no line of
train.py before, for a sample of the rows, each cut at a random place with a suffix from the training text. The
log-probability of every target before its cut must agree with pass A, and so must the mean loss of the last target
before the cut. A model that looks ahead, at other rows, or back at earlier calls cannot make them agree: both passes
would have to see the same future. The cuts are spread over all positions of a row, so a peek that goes by the position
is seen wherever a row has at most CUTS of them. One that goes by something else, on a share p of the targets, stays
unseen with a probability of at most (1 - p) ** CUTS. Such a peek pays only where it moves much. So where
``--reference`` has the log-probabilities of an earlier run, SUSPECTS more cuts go to targets that are better than
there, by the square of how much.

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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanogpt_target.channel import ModelGone, Rejected, ScorerSide

BATCH_BYTES = 8 << 20  # of logits in one message: what a CPU keeps in its cache
CHUNK = 1 << 18  # logits that go through the softmax at a time: they stay in the cache
CUTS = 256  # of pass B, each with a row of its own; a split with fewer rows gives its rows several times
SUSPECTS = 64  # more, where an earlier run tells what is suspicious
REPEATED_ROWS = 64  # of pass A, at least: how far the model is from itself
LOSS_TOLERANCE = 0.0002  # bits per byte, mean over the cuts; and what the model's own noise adds to that mean
LOSS_CAP = 0.001  # about what both may be together: of a noisier model nobody could tell whether it looks ahead
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
    log_p: np.ndarray  # [N, T], nats: of every target in pass A


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


_softmax = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="softmax")


def log_probabilities(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Log-softmax in nats at the targets. ``logits`` float32 [N, V] is overwritten; ``targets`` [N]; float64 [N].

    On all processors: a GPU leaves them idle. Each row for itself, so that no bit depends on how many there are.

    Raises:
        Rejected: a logit is not finite.
    """
    step = max(1, CHUNK // logits.shape[1])
    parts = [slice(start, start + step) for start in range(0, len(targets), step)]
    return np.concatenate(list(_softmax.map(lambda part: _log_probabilities(logits[part], targets[part]), parts)))


def _log_probabilities(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    highest = logits.max(axis=1)  # NaN and inf come through
    if not (np.isfinite(highest).all() and np.isfinite(logits.min())):
        raise Rejected("logits are not finite")
    chosen = logits[np.arange(len(targets)), targets].astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):  # finite numbers may be further apart than float32 can say
        np.subtract(logits, highest[:, None], out=logits)
        np.exp(logits, out=logits)
    total = logits.sum(axis=1, dtype=np.float32).astype(np.float64)
    return np.asarray(chosen - highest.astype(np.float64) - np.log(total))


def run(ids: np.ndarray, targets: np.ndarray, ask: Ask, batch: int, vocab: int) -> np.ndarray:
    """Log-probability of each target, float64 [N, T]. The last batch is filled up with rows of the first.

    The softmax of one batch is taken while the model computes the next.
    """
    found = np.empty(ids.shape, np.float64)
    buffers = [np.empty((batch, ids.shape[1], vocab), np.float32) for _ in range(2)]
    pending: list[tuple[int, Future[np.ndarray]]] = []

    def finish() -> None:
        start, values = pending.pop()
        keep = min(batch, len(ids) - start)
        found[start : start + keep] = values.result().reshape(batch, -1)[:keep]

    with ThreadPoolExecutor(1) as pool:
        for start in range(0, len(ids), batch):
            part = np.arange(start, start + batch) % len(ids)
            ask(ids[part], buffers[0])
            if pending:
                finish()
            logits = buffers[0].reshape(-1, vocab)
            pending.append((start, pool.submit(log_probabilities, logits, targets[part].reshape(-1))))
            buffers.reverse()
        finish()
    return found


def _orders(size: int, random: np.random.Generator) -> np.ndarray:
    """CUTS numbers below ``size``: random orders of all of them, one after the other."""
    return np.concatenate([random.permutation(size) for _ in range(-(-CUTS // size))])[:CUTS]


def suspects(gain: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and cuts just behind a target: at most SUSPECTS of them, by the square of a gain [N, T] in nats."""
    chance = np.square(gain[:, :-1].clip(0.0, 1e3)).ravel()  # behind the last target there is nothing to cut
    possible = np.flatnonzero(chance)
    rank = np.log(chance[possible]) + random.gumbel(size=len(possible))
    rows, places = np.divmod(possible[np.argsort(-rank)[:SUSPECTS]], gain.shape[1] - 1)
    return rows, places + 1


def draw(
    ids: np.ndarray, decoys: np.ndarray, vocab: int, random: np.random.Generator, gain: np.ndarray | None = None
) -> Sample:
    """The rows of pass B, shuffled, each with the suffix of a training row from its cut on.

    Rows and cuts are whole random orders, one after the other: none comes a second time before each came once, and a
    small split is looked at as closely as a large one. A row that comes again comes with a later cut: what was shown
    of it before does not tell what stands behind. The first foreign token is never the true one, so that a peek at the
    next token sees something else at every cut. ``gain`` [N, T]: how much better than in another run a target is.
    """
    length = ids.shape[1]
    rows, cuts = _orders(len(ids), random), 1 + _orders(length - 1, random)
    if gain is not None:
        more = suspects(gain, random)
        rows, cuts = np.concatenate([rows, more[0]]), np.concatenate([cuts, more[1]])
    turn = np.array([np.sum((rows == row) & (cuts < cut)) for row, cut in zip(rows, cuts, strict=True)])
    order = np.lexsort((random.random(len(rows)), turn))
    rows, cuts = rows[order], cuts[order]
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
    allowed = LOSS_TOLERANCE + own
    if difference > allowed:
        raise Rejected(
            f"looks ahead: the loss just before other text differs by {difference:.2g} bits per byte "
            f"(tolerance {allowed:.2g})"
        )


def repeats_itself(noise: np.ndarray, weights: np.ndarray) -> None:
    """Whether a model's own noise is so small that looking ahead could be told from it. ``weights`` [M, T]: bytes.

    Raises:
        Rejected: it is not. An honest model is told that, and not that it looks ahead.
    """
    largest, typical = float(np.abs(noise).max()), float(np.sqrt(np.mean(noise**2)))
    own = 4 * typical / LN2 / float(np.sqrt(CUTS)) / max(1.0, float(weights[weights > 0].mean()))
    if largest > CAP or LOSS_TOLERANCE + own > LOSS_CAP:
        raise Rejected(
            f"does not repeat itself: rows that were asked again moved by {typical:.2g} nats (root mean square; at "
            f"most {largest:.2g}), too much to tell from looking ahead; state, or dropout?"
        )


def steady(noise: np.ndarray, weights: np.ndarray, what: str = "the same rows, asked again,") -> None:
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
        raise Rejected(f"keeps state: {what} differ by {moved:.2g} bits per byte (tolerance {allowed:.2g})")


def score(
    rows: np.ndarray,
    token_bytes: np.ndarray,
    decoys: np.ndarray,
    ask_a: Ask,
    ask_b: Ask,
    batch: int,
    random: np.random.Generator,
    reference: np.ndarray | None = None,
    between: Callable[[], None] = lambda: None,
) -> Score:
    """Both passes over ``rows`` [N, T + 1], with a call of ``between`` between them.

    ``reference``: ``log_p`` of another run on the same rows.

    Raises:
        Rejected: the model broke the contract.
    """
    ids, targets = rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)
    weights, vocab = token_bytes[targets], len(token_bytes)
    order = np.random.default_rng(0).permutation(len(ids))  # else a row's neighbours would go on with its text
    a = np.empty(ids.shape, np.float64)
    a[order] = run(ids[order], targets[order], ask_a, batch, vocab)
    again = random.permutation(len(ids))[: max(batch, REPEATED_ROWS)]
    noise = run(ids[again], targets[again], ask_a, batch, vocab) - a[again]
    repeats_itself(noise, weights)
    steady(noise, weights[again])
    between()
    counted = weights > 0
    gain = None if reference is None or reference.shape != a.shape else np.where(counted, a - reference, 0.0)
    sample = draw(ids, decoys, vocab, random, gain)
    b = run(sample.ids, targets[sample.rows], ask_b, batch, vocab)
    compare(a[sample.rows], b, sample, weights[sample.rows], noise)
    fair = np.where(sample.fair, weights[sample.rows], 0)
    for rows_of in (slice(batch), slice(None)):  # a process that was asked nothing yet, and all of them
        steady((b - a[sample.rows])[rows_of], fair[rows_of], "rows, asked in a fresh process,")
    size = int(weights.sum())
    value = float(-a[counted].sum()) / LN2 / size
    return Score(value, int(counted.sum()), size, float(np.abs(noise).max()), len(sample.rows), a)


def read_split(data: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows uint16 [N, T + 1], raw bytes of each token [V], and decoy rows from the training text."""
    manifest = json.loads((data / "manifest.json").read_text())
    length = manifest["sequence_length"] + 1
    rows = np.fromfile(data / f"{split}.bin", np.uint16).reshape(-1, length)
    shard = np.memmap(data / manifest["train_shards"][0], np.uint16, "r").reshape(-1, length)
    return rows, np.load(data / "token_bytes.npy"), np.array(shard[-1024:])


def score_channels(
    data: Path,
    split: str,
    channel_a: Path,
    channel_b: Path,
    timeout: float,
    load_seconds: float = float("inf"),
    seed: int | None = None,
    reference: Path | None = None,
    between: Path | None = None,
) -> tuple[dict[str, object], np.ndarray | None]:
    """The result as JSON: ``status`` (ok, invalid, crash, timeout), ``value`` or None, ``reason``, and counts.

    And the log-probabilities of pass A, if it is ok. ``between`` is a file that is made after pass A: whoever started
    the first model process removes it when that is gone, and pass B begins.
    """
    began = time.monotonic()
    deadline = began + timeout
    rows, token_bytes, decoys = read_split(data, split)
    length, vocab = rows.shape[1] - 1, len(token_bytes)
    batch = max(1, min(len(rows), CUTS, BATCH_BYTES // (length * vocab * 4)))
    random = np.random.default_rng(int.from_bytes(os.urandom(16), "little") if seed is None else seed)
    sides: list[ScorerSide] = []

    def begin(channel: Path) -> None:
        sides.append(ScorerSide(channel, batch, length, vocab, load_seconds))

    def ask(ids: np.ndarray, out: np.ndarray) -> None:
        sides[-1].ask(ids, deadline, out)

    def turn() -> None:
        sides[0].check_load()
        sides[0].close()
        if between is not None:
            between.touch()
            while between.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError
                time.sleep(0.002)
        begin(channel_b)

    earlier = None if reference is None else np.load(reference, allow_pickle=False).astype(np.float64)
    try:
        begin(channel_a)
        found = score(rows, token_bytes, decoys, ask, ask, batch, random, earlier, turn)
        sides[1].check_load()
    except Rejected as error:
        return {"status": "invalid", "value": None, "reason": str(error)}, None
    except ModelGone as error:
        asked = any(side.asked for side in sides)
        return {"status": "crash", "value": None, "reason": f"scoring: {error}", "asked": asked}, None
    except TimeoutError as error:
        reason = str(error) or f"scoring took more than {timeout:g} s"
        return {"status": "timeout", "value": None, "reason": reason, "asked": True}, None
    finally:
        for side in sides:
            side.close()
    total, scoring = time.monotonic() - began, sum(side.answering for side in sides)
    seconds = {"startup": total - scoring, "scoring": scoring, "total": total}
    counts = {"value": found.value, "tokens": found.tokens, "bytes": found.bytes}
    return {
        "status": "ok",
        "reason": "",
        **counts,
        "noise": found.noise,
        "rows_b": found.rows_b,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }, found.log_p


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nanogpt_target.scorer")
    parser.add_argument("--split", choices=("validation", "test"), required=True)
    for name in ("data", "channel-a", "channel-b", "result"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds, from here to the result")
    parser.add_argument("--load-seconds", type=float, default=float("inf"), help="that loading the model may take")
    parser.add_argument("--seed", type=int, help="of the cuts; without it they cannot be foreseen, as it should be")
    parser.add_argument("--reference", type=Path, help="log-probabilities (.npy) of an earlier run on the same rows")
    parser.add_argument("--log-p", type=Path, help="where to write those of this one")
    parser.add_argument("--between", type=Path, help="a file that is made after pass A; pass B begins when it is gone")
    given = parser.parse_args()
    found, log_p = score_channels(
        given.data, given.split, given.channel_a, given.channel_b, given.timeout, given.load_seconds, given.seed,
        given.reference, given.between,
    )  # fmt: skip
    if given.log_p is not None and log_p is not None:
        np.save(given.log_p, log_p.clip(-1e3, 0.0).astype(np.float16), allow_pickle=False)
    scratch = given.result.with_suffix(".new")
    scratch.write_text(json.dumps(found))
    scratch.rename(given.result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
