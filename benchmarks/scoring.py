"""The cost of scoring as a share of the training budget, measured on the CPU and computed for a GPU.

    python -m benchmarks.scoring [--preset cpu] [--threads N] [--rounds 3]

Each round trains the preset for its time budget and scores the checkpoint. Process starts and model loading are listed
apart. The share by the clock includes other load on the machine. The share by the processor is processor time / (budget
× threads): the share by the clock on an idle machine with busy cores.
For the GPU preset, a model with constant logits is scored at its sizes. That measures copies, softmax and messages on
this machine. The time of the bus is computed. ``python -m benchmarks.gpu`` measures the whole on a GPU.
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
import tomllib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nanogpt_target import __main__ as once
from nanogpt_target.channel import ScorerSide, make_files
from nanogpt_target.look_ahead import CUTS, SUSPECTS
from nanogpt_target.prepare import Prepared, prepare
from nanogpt_target.presets import PACKAGE, PRESETS, write_target
from nanogpt_target.scorer import REPEATED_ROWS, batch_rows

BUS = 12e9  # bytes/s out of a GPU, assumed; PCIe 4.0 x16 has at most 32e9
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
    subprocess.run([sys.executable, "-c", "import nanogpt_target.scorer"], check=True)
    for _ in "ab":
        with tempfile.TemporaryDirectory() as channel:
            make_files(Path(channel), 1, 1, 1)
            reader = os.open(
                Path(channel) / "alive", os.O_RDONLY | os.O_NONBLOCK
            )  # a pipe: the model waits for a reader
            ScorerSide(Path(channel), 1, 1, 1).close()  # the model loads and ends
            own = {"OVERNIGHT_CHECKPOINT": str(checkpoint), "OVERNIGHT_CHANNEL": channel}
            server = [sys.executable, "-m", "nanogpt_target.model_server"]
            subprocess.run(server, cwd=code, env={**os.environ, **env, **own}, check=True)
            os.close(reader)
    return processor_of_children() - before


def volume(spec: Mapping[str, int]) -> dict[str, int]:
    """Rows of both passes, with their tokens and the bytes of their logits; ``read``: bytes that the scorer reads."""
    length, vocab = spec["sequence_length"], spec["vocab_size"]
    rows = spec["validation_tokens"] // length
    again, other = min(rows, max(batch_rows(rows, length, vocab), REPEATED_ROWS)), CUTS + SUSPECTS
    whole, row = rows + again + other, length * vocab * 4
    return {"rows": whole, "tokens": whole * length, "bytes": whole * row, "read": (rows + again + other // 2) * row}


CONSTANT = """import torch

def load(checkpoint, device):
    logits = torch.randn(1, {length}, {vocab}, generator=torch.Generator().manual_seed(0))
    return lambda ids: logits.expand(len(ids), -1, -1)
"""


def without_forward(spec: Mapping[str, int]) -> tuple[dict[str, float], float]:
    """Seconds and processor seconds of scoring a model with constant logits, at the sizes of a preset.

    Forward passes and the way out of a GPU are missing; all else is that of a session on a GPU.
    """
    length, vocab, tokens = spec["sequence_length"], spec["vocab_size"], spec["validation_tokens"]
    rows = tokens // length
    with tempfile.TemporaryDirectory() as folder:
        data, code, random = Path(folder) / "data", Path(folder) / "code", np.random.default_rng(0)
        for name, count in (("validation", rows), ("train", 64)):
            data.mkdir(exist_ok=True)
            random.integers(vocab, size=(count, length + 1)).astype(np.uint16).tofile(data / f"{name}.bin")
        np.save(data / "token_bytes.npy", np.full(vocab, 4, np.int32))
        (data / "manifest.json").write_text(json.dumps({"sequence_length": length, "train_shards": ["train.bin"]}))
        write_target("demo", Path(folder) / "target")
        once.make_code(Path(folder) / "target", code)
        (code / "train.py").write_text(CONSTANT.format(length=length, vocab=vocab))
        earlier = Path(folder) / "log_p.npy"
        np.save(earlier, np.full((rows, length), -12.0, np.float16))
        prepared = Prepared(data, "", vocab, length, {"validation": tokens}, ())
        env = {"OVERNIGHT_DEVICE": "cpu"}
        start = processor_of_start(code, data, env)
        before = processor_of_children()
        found = once.score(code, data, prepared, "validation", env, 900, seed=1, reference=earlier)
        processor = processor_of_children() - before - start
    if found["status"] != "ok":
        raise SystemExit(f"scoring ended with {found['status']}: {found['reason']}")
    return found["seconds"], processor


def gpu_preset() -> None:
    """Print the cost of the GPU preset: measured here but for the bus, which is computed, and forward passes."""
    toml = tomllib.loads((PACKAGE / "presets" / "gpu.toml").read_text())
    size, budget = volume(toml["data"]), toml["budget"]["seconds"]
    seconds, processor = without_forward(toml["data"])
    bus = size["bytes"] / BUS
    print(
        f"\npreset gpu, load {os.getloadavg()[0]:.1f}, {size['rows']} rows, {size['tokens']:,} tokens, "
        f"{size['bytes'] / 1e9:.0f} GB of logits, {size['read'] / 1e9:.0f} GB of them read: without forward passes "
        f"{seconds['scoring']:.1f} s by the clock and {processor:.1f} s by the processor, on "
        f"{len(os.sched_getaffinity(0))} processors; the bus at {BUS / 1e9:.0f} GB/s (assumed) {bus:.1f} s; together "
        f"{(seconds['scoring'] + bus) / budget:.1%} of {budget} s (goal: under {SHARE_GPU:.0%}, with forward passes)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring")
    parser.add_argument("--preset", choices=[name for name in PRESETS if name != "gpu"], default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3, help="of the CPU preset; 0: only the GPU preset")
    parser.add_argument("--seconds", type=float, default=15.0, help="training budget of a round")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/overnight/data"))
    given = parser.parse_args()
    clock, processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_target(given.preset, Path(folder))
        cache, earlier = given.cache.expanduser(), Path(folder) / "log_p.npy"
        if given.rounds:  # the first run has no reference
            one_round(Path(folder), cache, given.threads, given.seconds, earlier)
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
    gpu_preset()


if __name__ == "__main__":
    main()
