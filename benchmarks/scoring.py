"""What scoring costs against what training costs, and what it would cost on a GPU.

    python -m benchmarks.scoring [--preset cpu] [--threads N] [--rounds 3]

Each round trains the preset for its budget of seconds and scores what comes out, one right after the other, so that
other work on the machine slows down both. The start of processes and the loading of the model are apart on both sides.
For the GPU preset nothing is run: bytes follow from shapes; times from them and from the speed of this machine's memory
and softmax, and from a speed assumed for the bus.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt_target import by_hand
from nanogpt_target.prepare import prepare
from nanogpt_target.presets import PACKAGE, PRESETS, write_target
from nanogpt_target.scorer import BATCH_BYTES, CUTS, REPEATED_ROWS, log_probabilities

BUS = 12e9  # bytes/s from a GPU into memory that is not pinned, assumed
GPU_MEMORY = 2e12  # bytes/s of a data centre GPU, assumed
ROW_BYTES = 64 << 20  # of logits, one row of the GPU preset
SHARE_CPU, SHARE_GPU = 0.25, 0.05  # goals: scoring as a share of the training budget


def one_round(target: Path, cache: Path, threads: int, seconds: float) -> dict[str, float]:
    """Seconds of both phases, and tokens per second of training."""
    env = {"OVERNIGHT_DEVICE": "cpu", "OVERNIGHT_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        code, work = Path(folder) / "code", Path(folder) / "work"
        by_hand.make_code(target, code)
        prepared = prepare(tomllib.loads((target / "target.toml").read_text())["data"], cache)
        run = by_hand.train(code, prepared, work, f"seconds:{seconds:g}", 1, env)
        if run["exit"] != 0:
            raise SystemExit(f"training ended with exit code {run['exit']}")
        summary = json.loads((work / "out" / "summary.json").read_text())
        found = by_hand.score(code, work / "out", prepared, "validation", env, 600, seed=1)
    if found["status"] != "ok":
        raise SystemExit(f"scoring ended with {found['status']}: {found['reason']}")
    return {
        "training": summary["train_seconds"],
        "tokens_per_second": summary["tokens_per_second"],
        "startup": found["seconds"]["startup"],
        "scoring": found["seconds"]["scoring"],
    }


def volume(spec: dict[str, Any]) -> dict[str, float]:
    """Rows that both passes ask, their tokens, and the bytes of their logits."""
    length, vocab = spec["sequence_length"], spec["vocab_size"]
    rows = spec["validation_tokens"] // length
    batch = max(1, min(rows, CUTS, BATCH_BYTES // (length * vocab * 4)))
    asked = rows + CUTS + min(rows, max(batch, REPEATED_ROWS))
    return {"rows": asked, "tokens": asked * length, "bytes": asked * length * vocab * 4.0}


def speed_of_softmax(vocab: int) -> float:
    """Logits per second through one thread of the scorer."""
    logits = np.random.default_rng(0).normal(size=(4096, vocab)).astype(np.float32)
    targets = np.zeros(len(logits), np.int64)
    times = []
    for _ in range(3):
        part = logits.copy()
        began = time.perf_counter()
        log_probabilities(part, targets)
        times.append(time.perf_counter() - began)
    return float(logits.size / min(times))


def speed_of_copies() -> float:
    """Bytes per second of one copy, larger than a cache, as a row of logits is there."""
    source, copy = np.ones(ROW_BYTES, np.uint8), np.zeros(ROW_BYTES, np.uint8)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(copy, source)
        times.append(time.perf_counter() - began)
    return ROW_BYTES / min(times)


def computed() -> None:
    """The GPU preset by today's path through shared memory, and what a path within the GPU would move."""
    toml = tomllib.loads((PACKAGE / "presets" / "gpu.toml").read_text())
    vocab, budget = toml["data"]["vocab_size"], toml["budget"]["seconds"]
    found, softmax, copies = volume(toml["data"]), speed_of_softmax(vocab), speed_of_copies()
    bus, moved, summed = found["bytes"] / BUS, 2 * found["bytes"] / copies, found["bytes"] / 4 / softmax
    print(f"\ngpu, computed and not measured: {found['tokens']:,} tokens, {found['bytes'] / 1e9:.0f} GB of logits")
    print(f"  bus {bus:.0f} s at {BUS / 1e9:.0f} GB/s (assumed); two copies {moved:.0f} s at {copies / 1e9:.1f} GB/s")
    print(f"  softmax {summed:.0f} s at {softmax / 1e6:.0f} million logits/s; on one thread each, here")
    total = bus + moved + summed
    print(f"  one after the other {total:.0f} s: {total / budget:.0%} of {budget} s; both passes at once: half of it")
    wide = 20e6 * vocab * 4
    print(
        f"  20 million tokens: {wide / 1e9:.0f} GB. Within a GPU, written once and read twice at "
        f"{GPU_MEMORY / 1e12:.0f} TB/s: {3 * wide / GPU_MEMORY:.1f} s, "
        f"{3 * wide / GPU_MEMORY / budget:.1%} (goal {SHARE_GPU:.0%}; not built). "
        f"By shared memory: {total * wide / found['bytes']:.0f} s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring")
    parser.add_argument("--preset", choices=[name for name in PRESETS if name != "gpu"], default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="training budget of a round")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/overnight/data"))
    given = parser.parse_args()
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        write_target(given.preset, Path(folder))
        for k in range(given.rounds):
            found = one_round(Path(folder), given.cache.expanduser(), given.threads, given.seconds)
            shares.append(found["scoring"] / given.seconds)
            print(
                f"{given.preset}, round {k + 1}: trained {found['training']:.1f} s at "
                f"{found['tokens_per_second']:,.0f} tokens/s; scored {found['scoring']:.1f} s "
                f"after {found['startup']:.1f} s of start-up; "
                f"{shares[-1]:.0%} of the budget",
                flush=True,
            )
    if shares:
        print(f"median {statistics.median(shares):.0%} (goal: under {SHARE_CPU:.0%})")
    computed()


if __name__ == "__main__":
    main()
