"""The parts of benchmarks/gpu.py: what is run on the GPU, and the figures that it returns."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.scoring import SHARE_GPU
from benchmarks.trainer import PEAKS, fixed_batch, flops_per_token, load_trainer, stepper, timed

ROOT = Path(__file__).resolve().parents[1]
AGAIN = "none: the same code again"
EDITS = {  # nothing, one changed constant, one changed formula, one new set of parameters
    AGAIN: ("", ""),
    "MATRIX_LR 0.04 → 0.06": ("MATRIX_LR = 0.04", "MATRIX_LR = 0.06"),
    "gelu for squared relu": ("self.down(F.relu(self.up(x)).square())", "self.down(F.gelu(self.up(x)))"),
    "DEPTH one more": ("DEPTH = ", "DEPTH = 1 + "),
}
ANSWERS = "log-p.npy"  # of the first scoring of a checkpoint
Values = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is run."""

    preset: str
    device: str
    train: str  # budgets
    noise: str
    session: str
    seeds: int
    trials: int
    rounds: int  # of step times
    edits: int  # of EDITS
    accept: tuple[str, ...]  # options of the session
    doctor: tuple[str, ...]  # options of the doctor
    small: tuple[str, ...] = ()  # assignments for the runs of ``noise``
    at_once: int = 1  # of these runs
    validation: int | None = None  # tokens; None: those of the preset


GPU = Size(
    "gpu", "cuda", "seconds:30", "steps:200", "10s", seeds=3, trials=3, rounds=40, edits=4,
    accept=("--policy", "greedy", "--calibrate", "1"), doctor=("--sandbox",),
    small=("TOTAL_BATCH_SIZE=2**15", "DEVICE_BATCH_SIZE=16"), at_once=6,
)  # fmt: skip
DRY = Size(
    "demo", "cpu", "steps:3", "steps:2", "2steps", seeds=1, trials=1, rounds=2, edits=0,
    accept=("--policy", "greedy", "--calibrate", "1", "--smoke", "off"), doctor=(), validation=4096,
)  # fmt: skip


class Bench:
    """The target, its data and its runs, below one folder."""

    def __init__(self, out: Path, size: Size):
        self.out, self.size = out, size
        self.target, self.cache, self.runs = out / "work" / "target", out / "work" / "cache", out / "work" / "runs"
        self.env = {"OVERNIGHT_DEVICE": size.device, "OVERNIGHT_THREADS": str(len(os.sched_getaffinity(0)))}

    @property
    def data(self) -> Any:
        """The prepared data."""
        from nanogpt_target.prepare import prepare

        return prepare(self.toml["data"], self.cache)

    @property
    def toml(self) -> Values:
        """The target.toml."""
        return tomllib.loads((self.target / "target.toml").read_text())

    def run(
        self, name: str, budget: str, seed: int, edit: tuple[str, str] = ("", ""), values: Sequence[str] = ()
    ) -> tuple[Values, Path]:
        """Train once; the summary with ``startup``, and the folder with the code and ``out``."""
        from nanogpt_target import __main__ as once

        folder = self.runs / name
        shutil.rmtree(folder, ignore_errors=True)
        once.make_code(self.target, folder / "code", values)
        source = (folder / "code" / "train.py").read_text()
        if edit[0] not in source:
            raise RuntimeError(f"train.py has no {edit[0]!r}")
        (folder / "code" / "train.py").write_text(source.replace(*edit, 1))
        found = once.train(folder / "code", self.data, folder / "work", budget, seed, self.env)
        if found["exit"] != 0:
            raise RuntimeError(f"{name}: training ended with exit code {found['exit']}")
        out = folder / "work" / "out"
        summary: Values = json.loads((out / "summary.json").read_text())
        losses = [json.loads(line)["loss"] for line in (out / "curve.jsonl").read_text().splitlines()]
        return {**summary, "startup": found["startup"], "first_loss": losses[0], "last_loss": losses[-1]}, folder

    def score(self, folder: Path, seed: int, log_p: Path | None = None) -> Values:
        from nanogpt_target import __main__ as once

        began = time.monotonic()
        code, out = folder / "code", folder / "work" / "out"
        found = once.score(code, out, self.data, "validation", self.env, 600, seed=seed, log_p=log_p)
        if found["status"] != "ok":
            raise RuntimeError(f"scoring: {found['status']}: {found['reason']}")
        return {"value": found["value"], "wall": time.monotonic() - began, **found["seconds"]}

    def memory(self) -> float | None:
        """GPU memory in use by all processes, in GB; None without nvidia-smi."""
        if self.size.device == "cpu":
            return None
        words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0]) / 1024


# --- parts ----------------------------------------------------------------------------------------------------------


def part_prepare(bench: Bench) -> Values:
    import torch

    from nanogpt_target.presets import write_target

    write_target(bench.size.preset, bench.target)
    if bench.size.validation:
        place, tokens = bench.target / "target.toml", bench.size.validation
        lines = place.read_text().splitlines()
        lines = [f"{line.split(' = ')[0]} = {tokens}" if "_tokens = " in line else line for line in lines]
        place.write_text("\n".join(lines) + "\n")
    began = time.monotonic()
    data = bench.data
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "prepare seconds": time.monotonic() - began,
        "tokens by split": dict(data.tokens),
    }
    if bench.size.device == "cuda":
        words = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        found["driver"] = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    return found


def part_train(bench: Bench) -> Values:
    before = bench.memory()
    run, folder = bench.run("train", bench.size.train, 1)
    scored = bench.score(folder, 1, folder / ANSWERS)
    write(folder / "scored.json", scored)
    tokens, peak, seconds = bench.data.tokens["validation"], _peak(), bench.toml["budget"].get("seconds")
    mfu = run["tokens_per_second"] * _flops(bench) / peak if peak else None
    return {
        "steps": run["steps"],
        "loss, first and last": [run["first_loss"], run["last_loss"]],
        "loss fell": run["last_loss"] < run["first_loss"],
        "tokens/s": run["tokens_per_second"],
        "MFU": mfu,
        "seconds trained": run["train_seconds"],
        "start-up and compilation, s": run["startup"],
        "peak memory, GB": run["memory_gb"],
        "val_bpb": scored["value"],
        "scoring, s": scored["wall"],
        "scoring without start-up, s": scored["scoring"],
        "of which the model's answers, s": scored["answers"],
        "scoring, share of the preset's budget": scored["scoring"] / seconds if seconds else None,
        "goal of that share": SHARE_GPU,
        "validation tokens": tokens,
        "scoring, s per million tokens": scored["wall"] / tokens * 1e6,
        "GPU memory before and after, GB": [before, bench.memory()],
    }


def part_steps(bench: Bench) -> Values:
    import torch

    from nanogpt_target.batches import Batches
    from nanogpt_target.prepare import release

    device, data = bench.size.device, bench.data
    train = load_trainer(bench.size.preset, bench.out / "work" / "steps")
    shards = bench.out / "work" / "shards"
    shutil.rmtree(shards, ignore_errors=True)
    shards.mkdir(parents=True)
    release(data, shards)
    torch.set_float32_matmul_precision("high")
    meta = (data.vocab_size, data.sequence_length)
    step = stepper(train, device, meta, device == "cuda", train.DEVICE_BATCH_SIZE)
    batches, fixed = Batches(shards, 1, torch.device(device)), fixed_batch(meta, device)

    def taken_with(batch: Callable[[int], Any]) -> float:
        def whole() -> None:
            step(batch)
            if device == "cuda":
                torch.cuda.synchronize()

        return timed(whole)[0]

    first = taken_with(batches.next)
    pairs = [(taken_with(batches.next), taken_with(fixed)) for _ in range(bench.size.rounds)]
    batches.close()
    real, still = (fmean(pair[side] for pair in pairs) for side in (0, 1))
    tokens, peak = step.tokens, _peak()  # type: ignore[attr-defined]
    return {
        "first step, s": first,
        "step with real data, ms": 1000 * real,
        "step with fixed data, ms": 1000 * still,
        "real / fixed": real / still,
        "tokens/s": tokens / real,
        "MFU": tokens / real * flops_per_token(step.model) / peak if peak else None,  # type: ignore[attr-defined]
    }


def part_answers(bench: Bench) -> Values:
    import numpy as np

    from nanogpt_target.look_ahead import CAP, LOSS_TOLERANCE

    folder = bench.runs / "train"
    if not (folder / "work" / "out" / "model.safetensors").exists():
        _, folder = bench.run("train", bench.size.train, 1)
    if (folder / ANSWERS).exists():
        first = json.loads((folder / "scored.json").read_text())
    else:
        first = bench.score(folder, 1, folder / ANSWERS)
    again = bench.score(folder, 2, folder / "again.npy")
    values = [first["value"], again["value"]]
    one, two = (np.load(folder / name) for name in (ANSWERS, "again.npy"))
    apart = np.abs(one - two)
    return {
        "log-probabilities compared": int(apart.size),
        "rms of the difference, nats": float(np.sqrt(np.mean(np.square(apart)))),
        "largest difference, nats": float(apart.max()),
        "bound of one difference, nats": CAP,
        "difference of val_bpb": abs(values[0] - values[1]),
        "bound of val_bpb": LOSS_TOLERANCE,
    }


def part_tests(bench: Bench) -> Values:
    words = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-rsf", "-W", "ignore", "tests/gpu"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr, flush=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode not in (0, 5):  # 5: no test was collected, where there is no GPU
        raise RuntimeError(" | ".join(line for line in lines if line.startswith(("FAILED", "E  "))))
    return {"tests/gpu": lines[-1]}


def part_noise(bench: Bench) -> Values:
    """Seeds that all programs have finished are written, so that a cut-off part keeps them."""
    size = bench.size
    edits = {"baseline": ("", ""), **dict(list(EDITS.items())[: size.edits])}
    values: dict[tuple[str, int], float] = {}
    found: Values = {}

    def measure(name: str, seed: int) -> tuple[str, int, float]:
        _, folder = bench.run(f"noise-{list(edits).index(name)}-{seed}", size.noise, seed, edits[name], size.small)
        value = bench.score(folder, 1)["value"]
        shutil.rmtree(folder)
        return name, seed, value

    with ThreadPoolExecutor(size.at_once) as pool:
        jobs = [pool.submit(measure, name, seed) for seed in range(1, size.seeds + 1) for name in edits]
        for job in as_completed(jobs):
            name, seed, value = job.result()
            values[name, seed] = value
            print(name, seed, value, flush=True)
            whole = [one for one in range(1, size.seeds + 1) if all((each, one) in values for each in edits)]
            by_name = {each: [values[each, one] for one in whole] for each in edits}
            found = {"seeds": len(whole), "val_bpb": by_name, **spreads(by_name)}
            write(bench.out / "noise.json", found)
    return found


def spreads(values: Mapping[str, list[float]]) -> Values:
    """Standard deviations between seeds, and of the differences under equal seeds."""
    base = values["baseline"]
    if len(base) < 2:
        return {}
    pairs = {name: [a - b for a, b in zip(base, values[name], strict=True)] for name in values if name in EDITS}
    return {
        "sd between seeds": stdev(base),
        "gain under equal seeds": {name: fmean(found) for name, found in pairs.items()},
        "sd of a pair": {name: stdev(found) for name, found in pairs.items()},
    }


def part_session(bench: Bench) -> Values:
    from sandbox import make_sandbox
    from sandbox.types import SandboxUnavailable

    size, runs = bench.size, bench.out / "work" / "sessions"
    shutil.rmtree(runs, ignore_errors=True)
    target = bench.out / "work" / "repository"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(bench.target, target)
    git = ["git", "-C", str(target), "-c", "user.name=User", "-c", "user.email=user@localhost"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Begin"]):
        subprocess.run([*git, *words], check=True)
    try:
        sandbox = make_sandbox("auto").name
    except SandboxUnavailable:
        sandbox = "process"
    before, began = bench.memory(), time.monotonic()
    words = [
        "run", "--target", str(target), "--proposer", "ideas", "--sandbox", sandbox, "--device", size.device,
        "--budget", size.session, "--trials", str(size.trials), *size.accept, "--tag", "gpu", "--runs", str(runs),
        "--cache", str(bench.cache), "--hours", "0.08",
    ]  # fmt: skip
    done = _overnight(*words)
    took = time.monotonic() - began
    (bench.out / "ledger.jsonl").write_bytes((runs / "gpu" / "ledger.jsonl").read_bytes())
    if done.returncode != 0:
        logs = "".join(each.read_text() for each in sorted((runs / "gpu").rglob("train.log")))
        (bench.out / "session-trials.log").write_text(logs)
        raise RuntimeError(f"the session ended with exit status {done.returncode}: {done.stderr[-2000:]}")
    status = json.loads(_overnight("status", "gpu", "--json", "--runs", str(runs)).stdout)
    return {
        "sandbox": sandbox,
        "seconds": took,
        "trials": status.get("trials"),
        "kept": status.get("kept"),
        "failed": status.get("failures"),
        "GPU memory before and after, GB": [before, bench.memory()],
    }


def part_doctor(bench: Bench) -> Values:
    done = _overnight("doctor", *bench.size.doctor, "--json", "--runs", str(bench.out), "--cache", str(bench.cache))
    if not done.stdout:
        raise RuntimeError(done.stderr[-2000:])
    findings = json.loads(done.stdout)["findings"]
    return {each["name"]: f"{'ok' if each['ok'] else 'no'}: {each['found']}" for each in findings}


def _overnight(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "agent.cli", *words], cwd=ROOT, capture_output=True, text=True)


def _peak() -> float | None:
    """Peak bf16 FLOP/s of this GPU; None if it is not known."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((flops for part, flops in PEAKS.items() if part in name), None)


def _flops(bench: Bench) -> float:
    """FLOPs per token of the preset's model."""
    train = load_trainer(bench.size.preset, bench.out / "work" / "flops")
    data = bench.data
    return flops_per_token(train.GPT(train.Config(data.vocab_size, data.sequence_length)))


def write(place: Path, found: Values) -> None:
    place.write_text(json.dumps(found, indent=1))


PARTS: Mapping[str, tuple[Callable[[Bench], Values], float]] = {  # with the seconds that each may take
    "prepare": (part_prepare, 120),
    "train": (part_train, 180),
    "steps": (part_steps, 100),
    "answers": (part_answers, 90),
    "tests": (part_tests, 120),
    "session": (part_session, 300),
    "noise": (part_noise, 300),
    "doctor": (part_doctor, 60),
}
