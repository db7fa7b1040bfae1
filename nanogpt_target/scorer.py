"""The trusted scorer: a separate process that holds the tokens and their bytes, and computes softmax and sum.

    python -m nanogpt_target.scorer TASK-AS-JSON

Pass A scores the full rows. Then its model process ends. Pass B asks a fresh process, which has run no line of train.py
before, for a sample of the rows; in each, a suffix of training text replaces the text from a random cut on. The
log-probability of every target before its cut must agree with pass A, and so must the mean loss of the last targets
before the cuts. A model that uses later tokens, other rows or earlier calls cannot make them agree.

The cuts cover all positions of a row: look-ahead at fixed positions is found if a row has at most CUTS positions.
Look-ahead at a share p of the targets is missed with a probability of at most (1 - p) ** CUTS. Rare look-ahead pays
only with a large gain per target. So with ``reference``, the log-probabilities of an earlier run, SUSPECTS more cuts
go to targets that this run predicts better, with weights proportional to the squared improvement.

Bits per byte = -sum over targets of log2 p(target) / sum of their raw bytes. BOS targets have no bytes and do not
count.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanogpt_target.channel import ModelGone, Rejected, ScorerSide
from nanogpt_target.look_ahead import CUTS, LN2, check_noise, compare, draw, steady

BATCH_BYTES = 8 << 20  # logits in one message: fits the cache of a CPU
PIECE = 1 << 18  # logits in one softmax call: they stay in the cache of a processor
# Files of a task: the result; made after pass A, and pass B starts when the host removes it; log-probabilities of
# pass A; those of an earlier run on the same rows, if there is one.
RESULT, BETWEEN, LOG_P, REFERENCE = "result.json", "between", "log_p.npy", "reference.npy"
SIDES = ("a", "b")  # channels to the two model processes
REPEATED_ROWS = 64  # least number of rows asked twice in pass A: they show the model's own noise

Read = Callable[[int, np.ndarray], None]  # from a position, of B × T, into float32 [N, V]
Ask = Callable[[np.ndarray], Read]  # int64 [B, T]


@dataclass(frozen=True)
class Score:
    """Bits per byte, with the number of targets and bytes."""

    value: float
    tokens: int
    bytes: int
    noise: float  # nats, largest difference between two answers of one model process
    rows_b: int  # rows of pass B
    log_p: np.ndarray  # float64 [N, T], nats: every target in pass A


_processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS
_workers = ThreadPoolExecutor(_processors, thread_name_prefix="softmax")
_scratch = threading.local()


def log_probabilities(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Log-softmax of float32 [N, V] at targets int64 [N], in nats, float64 [N]. No bit depends on the number of rows.

    ``logits`` is overwritten.

    Raises:
        Rejected: a logit is not finite.
    """
    highest = logits.max(axis=1)  # max keeps NaN and inf
    if not (np.isfinite(highest).all() and np.isfinite(logits.min())):
        raise Rejected("logits are not finite")
    chosen = logits[np.arange(len(targets)), targets].astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):  # the difference of finite numbers can exceed float32
        np.subtract(logits, highest[:, None], out=logits)
        np.exp(logits, out=logits)
    total = logits.sum(axis=1, dtype=np.float32).astype(np.float64)
    return np.asarray(chosen - highest.astype(np.float64) - np.log(total))


def run(
    ids: np.ndarray, targets: np.ndarray, ask: Ask, batch: int, vocab: int, ends: np.ndarray | None = None
) -> np.ndarray:
    """Ask for logits in batches; each processor copies pieces of an answer that fit its cache, and takes their softmax.

    Args:
        ids: int64 [N, T].
        targets: int64 [N, T].
        ask: sends int64 [batch, T]; returns what reads the answer.
        batch: rows per request; rows of the first batch fill up the last one.
        vocab: V.
        ends: int64 [N], positions of each row that are read; by default T.

    Returns:
        Log-probability of each target in nats, float64 [N, T]; 0 at positions that are not read.
    """
    found, length, step = np.zeros(ids.shape, np.float64), ids.shape[1], max(1, PIECE // vocab)
    ends = np.full(len(ids), length) if ends is None else ends
    for start in range(0, len(ids), batch):
        read = ask(ids[np.arange(start, start + batch) % len(ids)])

        def take(row: int, first: int, start: int = start, read: Read = read) -> None:
            last = min(first + step, int(ends[row]))
            logits = _buffer(step * vocab)[: (last - first) * vocab].reshape(-1, vocab)
            read((row - start) * length + first, logits)
            found[row, first:last] = log_probabilities(logits, targets[row, first:last])

        rows = range(start, min(start + batch, len(ids)))
        pieces = [(row, first) for row in rows for first in range(0, int(ends[row]), step)]
        for done in wait([_workers.submit(take, *piece) for piece in pieces]).done:
            done.result()
    return found


def _buffer(size: int) -> np.ndarray:
    """Memory of this thread, float32 [size]."""
    if getattr(_scratch, "memory", np.empty(0)).size != size:
        _scratch.memory = np.empty(size, np.float32)
    found: np.ndarray = _scratch.memory
    return found


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
    """Score rows in both passes.

    Args:
        rows: uint16 [N, T + 1].
        token_bytes: raw bytes of each token, int32 [V].
        decoys: rows of training text, uint16 [M, T + 1].
        ask_a: asks the first model process.
        ask_b: asks the second one.
        batch: rows per request.
        random: draws repeated rows and cuts.
        reference: ``log_p`` of an earlier run on the same rows.
        between: called between the passes.

    Raises:
        Rejected: the model broke the contract.
    """
    ids, targets = rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)
    weights, vocab = token_bytes[targets], len(token_bytes)
    order = np.random.default_rng(0).permutation(len(ids))  # no batch holds consecutive text
    a = np.empty(ids.shape, np.float64)
    a[order] = run(ids[order], targets[order], ask_a, batch, vocab)
    again = random.permutation(len(ids))[: max(batch, REPEATED_ROWS)]
    noise = run(ids[again], targets[again], ask_a, batch, vocab) - a[again]
    check_noise(noise, weights)
    steady(noise, weights[again])
    between()
    counted = weights > 0
    gain = None if reference is None or reference.shape != a.shape else np.where(counted, a - reference, 0.0)
    sample = draw(ids, decoys, vocab, random, gain)
    b = run(sample.ids, targets[sample.rows], ask_b, batch, vocab, sample.cuts)  # the rest is compared with nothing
    compare(a[sample.rows], b, sample, weights[sample.rows], noise)
    fair = np.where(sample.fair, weights[sample.rows], 0)
    for rows_of in (slice(batch), slice(None)):  # the first requests to the fresh process, then all
        steady((b - a[sample.rows])[rows_of], fair[rows_of], "rows, asked in a fresh process,")
    size = int(weights.sum())
    value = float(-a[counted].sum()) / LN2 / size
    return Score(value, int(counted.sum()), size, float(np.abs(noise).max()), len(sample.rows), a)


def batch_rows(count: int, length: int, vocab: int) -> int:
    """Rows per request, for a split of ``count`` rows."""
    return max(1, min(count, CUTS, BATCH_BYTES // (length * vocab * 4)))


def read_split(data: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows uint16 [N, T + 1], raw bytes of each token int32 [V], and decoy rows of training text uint16 [M, T + 1]."""
    manifest = json.loads((data / "manifest.json").read_text())
    length = manifest["sequence_length"] + 1
    rows = np.fromfile(data / f"{split}.bin", np.uint16).reshape(-1, length)
    shard = np.memmap(data / manifest["train_shards"][0], np.uint16, "r").reshape(-1, length)
    return rows, np.load(data / "token_bytes.npy"), np.array(shard[-1024:])


@dataclass(frozen=True)
class Task:
    """What the process scores."""

    data: str  # folder of the prepared data
    split: str
    folder: str  # of the files RESULT, BETWEEN, LOG_P and REFERENCE
    shared: str  # with the folders SIDES, one channel each
    timeout: float  # bound on both passes, in seconds
    load_seconds: float  # bound on loading the model
    seed: int | None  # of the cuts, for tests; None: random
    parent: int  # process without which the scorer ends


def score_channels(task: Task) -> dict[str, object]:
    """Score a split through the channels.

    Returns:
        The result as JSON: ``status`` (ok, invalid, crash or timeout), ``value`` or None, ``reason``, and counts.
    """
    began, folder, sides = time.monotonic(), Path(task.folder), list[ScorerSide]()
    deadline = began + task.timeout
    rows, token_bytes, decoys = read_split(Path(task.data), task.split)
    length, vocab = rows.shape[1] - 1, len(token_bytes)
    batch = batch_rows(len(rows), length, vocab)
    random = np.random.default_rng(int.from_bytes(os.urandom(16), "little") if task.seed is None else task.seed)
    known = (folder / REFERENCE).exists()
    earlier = np.load(folder / REFERENCE, allow_pickle=False).astype(np.float64) if known else None

    def open_channel() -> None:
        sides.append(ScorerSide(Path(task.shared) / SIDES[len(sides)], batch, length, vocab, task.load_seconds))

    def ask(ids: np.ndarray) -> Read:
        sides[-1].ask(ids, deadline)
        return sides[-1].read

    def switch() -> None:
        """End pass A; wait until the host has removed the first model process; open the second channel."""
        sides[0].check_load()
        sides[0].close()
        (folder / BETWEEN).touch()
        while (folder / BETWEEN).exists():
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.002)
        open_channel()

    try:
        open_channel()
        found = score(rows, token_bytes, decoys, ask, ask, batch, random, earlier, switch)
        sides[1].check_load()
    except Rejected as error:
        return {"status": "invalid", "value": None, "reason": str(error)}
    except ModelGone as error:
        asked = any(side.asked for side in sides)
        return {"status": "crash", "value": None, "reason": f"scoring: {error}", "asked": asked}
    except TimeoutError as error:
        reason = str(error) or f"scoring took more than {task.timeout:g} s"
        return {"status": "timeout", "value": None, "reason": reason, "asked": True}
    finally:
        for side in sides:
            side.close()
    np.save(folder / LOG_P, found.log_p.clip(-1e3, 0.0).astype(np.float16), allow_pickle=False)
    total, startup = time.monotonic() - began, sum(side.startup for side in sides)
    answers = sum(sum(side.answers) for side in sides)  # the rest of scoring is copies and softmax
    seconds = {"startup": startup, "scoring": total - startup, "answers": answers, "total": total}
    return {
        "status": "ok",
        "reason": "",
        "value": found.value,
        "tokens": found.tokens,
        "bytes": found.bytes,
        "noise": found.noise,
        "rows_b": found.rows_b,
        "loading": round(max(side.loading for side in sides), 3),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def end_with(parent: int) -> None:
    """End this process once ``parent``, the session, has ended: it may be killed without a chance to end the scorer."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    threading.Thread(target=end_with, args=[task.parent], daemon=True).start()
    scratch = Path(task.folder) / "result.new"
    scratch.write_text(json.dumps(score_channels(task)))
    scratch.rename(Path(task.folder) / RESULT)


if __name__ == "__main__":
    main()
