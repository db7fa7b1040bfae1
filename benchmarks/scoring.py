"""The cost of scoring as a share of the training budget, measured on the CPU and computed for a GPU.

    python -m benchmarks.scoring [--preset cpu] [--threads N] [--rounds 3]

Each round trains the preset for its time budget and scores the checkpoint. Process starts and model loading are listed
apart. The share by the clock includes other load on the machine. The share by the processor is processor time / (budget
× threads): the share by the clock on an idle machine with busy cores.
For the GPU nothing runs: bytes follow from shapes; times follow from the measured speed of this machine's memory and
softmax, and from assumed speeds of the bus and of GPU memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt_target import __main__ as once
from nanogpt_target.channel import ScorerSide, make_files
from nanogpt_target.look_ahead import CUTS, SUSPECTS
from nanogpt_target.prepare import prepare
from nanogpt_target.presets import PACKAGE, PRESETS, write_target
from nanogpt_target.scorer import REPEATED_ROWS, batch_rows, log_probabilities

BUS = 12e9  # bytes/s from a GPU into memory that is not pinned, assumed (PCIe 4.0 x16 has 32e9 at most)
GPU_MEMORY = 2e12  # bytes/s of a data centre GPU, assumed
ROW_BYTES = 64 << 20  # of logits, one row of the GPU preset
GOAL_TOKENS = 20e6  # of both passes
SHARE_CPU, SHARE_GPU = 0.25, 0.05  # goals: scoring as a share of the training budget


def one_round(target: Path, cache: Path, threads: int, seconds: float, earlier: Path) -> dict[str, float]:
    """Seconds of both phases, and tokens per second of training.

    ``earlier`` is the file of the reference log-probabilities; written if it does not exist.
    """
    env = {"OVERNIGHT_DEVICE": "cpu", "OVERNIGHT_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        code, work = Path(folder) / "code", Path(folder) / "work"
        once.make_code(target, code)
        prepared = prepare(tomllib.loads((target / "target.toml").read_text())["data"], cache)
        run = once.train(code, prepared, work, f"seconds:{seconds:g}", 1, env)
        if run["exit"] != 0:
            raise SystemExit(f"training ended with exit code {run['exit']}")
        summary = json.loads((work / "out" / "summary.json").read_text())
        started = processor_of_start(code, work / "out", env)
        before = processor_of_children()
        known = {"reference": earlier} if earlier.exists() else {"log_p": earlier}
        found = once.score(code, work / "out", prepared, "validation", env, 600, seed=1, **known)
        processor = processor_of_children() - before - started
    if found["status"] != "ok":
        raise SystemExit(f"scoring ended with {found['status']}: {found['reason']}")
    return {
        "training": summary["train_seconds"],
        "tokens_per_second": summary["tokens_per_second"],
        "startup": found["seconds"]["startup"],
        "scoring": found["seconds"]["scoring"],
        "processor": processor,
    }


def processor_of_children() -> float:
    """Processor seconds of all ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def processor_of_start(code: Path, checkpoint: Path, env: Mapping[str, str]) -> float:
    """Processor seconds of two model processes and a scorer without any request."""
    before = processor_of_children()
    subprocess.run([sys.executable, "-m", "nanogpt_target.scorer", "--help"], check=True, stdout=subprocess.DEVNULL)
    for _ in "ab":
        with tempfile.TemporaryDirectory() as channel:
            make_files(Path(channel), 1, 1, 1)
            ScorerSide(Path(channel), 1, 1, 1).close()  # the model loads and ends
            own = {"OVERNIGHT_CHECKPOINT": str(checkpoint), "OVERNIGHT_CHANNEL": channel}
            server = [sys.executable, "-m", "nanogpt_target.model_server"]
            subprocess.run(server, cwd=code, env={**os.environ, **env, **own}, check=True)
    return processor_of_children() - before


def volume(spec: dict[str, Any]) -> dict[str, float]:
    """Rows of both passes, with their tokens and the bytes of their logits."""
    length, vocab = spec["sequence_length"], spec["vocab_size"]
    rows = spec["validation_tokens"] // length
    batch = batch_rows(rows, length, vocab)
    asked = rows + CUTS + SUSPECTS + min(rows, max(batch, REPEATED_ROWS))
    return {"rows": asked, "tokens": asked * length, "bytes": asked * length * vocab * 4.0}


def speed_of_softmax(vocab: int) -> float:
    """Logits per second of the scorer's softmax on all processors."""
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
    """Bytes per second of a copy that is larger than the cache, as a row of logits on a GPU is."""
    source, copy = np.ones(ROW_BYTES, np.uint8), np.zeros(ROW_BYTES, np.uint8)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(copy, source)
        times.append(time.perf_counter() - began)
    return ROW_BYTES / min(times)


def shared_memory(tokens: float, vocab: int, softmax: float, copies: float) -> dict[str, float]:
    """Bytes of logits, and seconds of each step of the path through host memory."""
    size = tokens * vocab * 4
    return {
        "bytes": size,
        "bus": size / BUS,  # out of the GPU
        "copies": 2 * size / copies,  # into shared memory, and out of it
        "softmax": size / 4 / softmax,
    }


def computed() -> None:
    """Print the costs of the GPU preset through shared memory and through a path within the GPU."""
    toml = tomllib.loads((PACKAGE / "presets" / "gpu.toml").read_text())
    vocab, budget = toml["data"]["vocab_size"], toml["budget"]["seconds"]
    softmax, copies = speed_of_softmax(vocab), speed_of_copies()
    print(
        f"\nGPU, computed and not measured: logits of {vocab:,} floats a token; bus {BUS / 1e9:.0f} GB/s (assumed), "
        f"copies {copies / 1e9:.1f} GB/s on one and softmax {softmax / 1e6:.0f} million logits/s on "
        f"{len(os.sched_getaffinity(0))} processors (here)"
    )
    for name, tokens in (("preset gpu", volume(toml["data"])["tokens"]), ("goal", GOAL_TOKENS)):
        steps = shared_memory(tokens, vocab, softmax, copies)
        total = steps["bus"] + steps["copies"] + steps["softmax"]
        inside = 3 * steps["bytes"] / GPU_MEMORY  # written once and read twice; forward passes are in neither
        print(
            f"  {name}, {tokens:,.0f} tokens, {steps['bytes'] / 1e9:,.0f} GB: by shared memory "
            f"bus {steps['bus']:.0f} s, copies {steps['copies']:.0f} s, softmax {steps['softmax']:.0f} s, "
            f"together {total:.0f} s = {total / budget:.0%} of {budget} s; "
            f"by CUDA IPC (not built) at {GPU_MEMORY / 1e12:.0f} TB/s {inside:.1f} s = {inside / budget:.1%} "
            f"(goal {SHARE_GPU:.0%})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring")
    parser.add_argument("--preset", choices=[name for name in PRESETS if name != "gpu"], default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="training budget of a round")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/overnight/data"))
    given = parser.parse_args()
    clock, processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_target(given.preset, Path(folder))
        cache, earlier = given.cache.expanduser(), Path(folder) / "log_p.npy"
        one_round(Path(folder), cache, given.threads, given.seconds, earlier)  # the first run has no reference
        for k in range(given.rounds):
            found = one_round(Path(folder), cache, given.threads, given.seconds, earlier)
            clock.append(found["scoring"] / given.seconds)
            processor.append(found["processor"] / given.seconds / given.threads)
            print(
                f"{given.preset}, round {k + 1}, load {os.getloadavg()[0]:.1f}: trained {found['training']:.1f} s at "
                f"{found['tokens_per_second']:,.0f} tokens/s; scored {found['scoring']:.1f} s by the clock, "
                f"{found['processor']:.1f} s by the processor, after {found['startup']:.1f} s of start-up; "
                f"{clock[-1]:.0%} and {processor[-1]:.0%} of the budget of {given.threads} thread(s)",
                flush=True,
            )
    if clock:
        print(
            f"median {statistics.median(clock):.0%} by the clock, {statistics.median(processor):.0%} by the processor "
            f"(goal: under {SHARE_CPU:.0%})"
        )
    computed()


if __name__ == "__main__":
    main()
