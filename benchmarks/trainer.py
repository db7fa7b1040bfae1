"""Speed and quality of the presets' trainer: python -m benchmarks.trainer PART [--rounds 3]

    grid      tokens per second of the preset cpu: float32 and bf16, eager and compiled, 1 and 2 threads, 4, 8 and
              16 rows per pass; also for whole trials, which include compilation
    loading   step time with real batches / step time with one fixed batch; on a GPU, of the preset gpu
    baseline  val_bpb compared with benchmarks/plain_trainer.py at three learning rates; each trainer makes as many
              steps as fit the preset's time budget in processor time, so that other load favours neither
    startup   seconds of each part of the start of a trial
    compiling processor seconds up to the first step: eager, compiled, and compiled with the cache of the baseline
    gpu       model FLOP utilisation of the preset gpu; needs a GPU

Each cell of the grid runs in its own process. The variants alternate in each round, so that other load affects all of
them; ratios are taken within a round, and their median is printed.

MFU is the model's FLOPs per token × tokens per second / peak bf16 FLOP/s. FLOPs per token are 6 (N - E) + 12 W Σ S: N
parameters, E of them in the embedding table (looked up, not multiplied), W the width, and S, summed over the layers,
the mean number of positions that a query attends to: (T + 1) / 2 without a window. Recomputation, the optimiser
and masked positions do not count.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

PLAIN = Path(__file__).with_name("plain_trainer.py")
THREADS, ROWS, COMPILED, BF16 = (1, 2), (4, 8, 16), (False, True), (False, True)  # the grid
RATES = ("3e-4", "1e-3", "3e-3")
STEPS = 20  # per measurement
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16 FLOP/s from the data sheets (SXM)


def load_trainer(preset: str, folder: Path) -> Any:
    """The preset's train.py as a module."""
    from nanogpt_target.presets import write_target

    write_target(preset, folder)
    spec = importlib.util.spec_from_file_location(f"train_{preset}", folder / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def flops_per_token(model: Any) -> float:
    """FLOPs of a forward and backward pass, by the formula above."""
    config = model.config
    parameters = sum(p.numel() for p in model.parameters()) - model.embedding.weight.numel()
    length = config.sequence_length
    seen = 0.0
    for layer in range(config.depth):
        window = config.short_window if config.is_short(layer) else length
        seen += sum(min(k + 1, window) for k in range(length)) / length
    return float(6 * parameters + 12 * config.width * seen)


def stepper(
    train: Any, device: str, meta: tuple[int, int], compiled: bool, rows: int, bf16: bool | None = None
) -> Callable[[Any], None]:
    """One optimiser step over batches from ``batch(rows)``, as in ``main`` of train.py.

    ``bf16``: precision of matrix products; default: the choice of train.py on this machine.
    """
    import torch

    model = train.GPT(train.Config(*meta)).to(device)
    if device == "cuda":
        model.attend_blockwise(torch.device(device))
    adamw, muon = train.make_optimisers(model)
    loss_of = torch.compile(model, dynamic=False) if compiled else model
    chosen = train.mixed_precision(torch.device(device))
    precision = chosen if bf16 is None else torch.autocast(device, torch.bfloat16, enabled=bf16)
    accumulation = max(1, train.TOTAL_BATCH_SIZE // (rows * meta[1]))

    def step(batch: Callable[[int], tuple[Any, Any]]) -> None:
        for _ in range(accumulation):
            with precision:
                loss = loss_of(*batch(rows)) / accumulation
            loss.backward()
        train.set_schedule(adamw, muon, 0.3, 10)
        adamw.step()
        muon.step()
        model.zero_grad(set_to_none=True)

    step.tokens = accumulation * rows * meta[1]  # type: ignore[attr-defined]
    step.model = model  # type: ignore[attr-defined]
    return step


def fixed_batch(meta: tuple[int, int], device: str) -> Callable[[int], tuple[Any, Any]]:
    """A function that returns the same random batch each time."""
    import torch

    made: dict[int, Any] = {}

    def batch(rows: int) -> tuple[Any, Any]:
        if rows not in made:
            made[rows] = torch.randint(meta[0], (rows, meta[1] + 1), device=device)
        return made[rows][:, :-1].contiguous(), made[rows][:, 1:].contiguous()

    return batch


def timed(work: Callable[[], None], count: int = 1) -> tuple[float, float]:
    """Mean seconds of a call over ``count`` calls: wall clock, and processor time of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        work()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


CELL = """
import json, sys; from pathlib import Path; from benchmarks.trainer import cell
cell(Path(sys.argv[1]), *json.loads(sys.argv[2]))
"""
Cell = tuple[bool, bool, int, int]  # bf16 products, compiled, threads, rows per pass


def cell(folder: Path, bf16: bool, compiled: bool, threads: int, rows: int) -> None:
    """Print as JSON: seconds of the first step, clock and processor seconds of a later step, tokens per step."""
    import torch

    torch.set_num_threads(threads)
    train, meta = load_trainer("cpu", folder), sizes("cpu")
    step, batch = stepper(train, "cpu", meta, compiled, rows, bf16), fixed_batch(meta, "cpu")
    first = timed(lambda: step(batch))[0]
    step(batch)
    print(json.dumps([first, *timed(lambda: step(batch), STEPS), step.tokens]))  # type: ignore[attr-defined]


def grid(rounds: int, folder: Path) -> None:
    import torch

    from nanogpt_target.harness import fast_bf16

    has_bf16 = fast_bf16(torch.device("cpu"))
    cells: list[Cell] = list(itertools.product(BF16 if has_bf16 else (False,), COMPILED, THREADS, ROWS))
    found: dict[Cell, list[list[float]]] = {}
    first: dict[Cell, float] = {}
    failed: dict[Cell, str] = {}
    for k, one in itertools.product(range(rounds), cells):
        if one in failed:
            continue
        argv = [sys.executable, "-c", CELL, str(folder / "cpu" / f"{k}-{'-'.join(map(str, one))}"), json.dumps(one)]
        kept = folder / "-".join(map(str, one))  # empty the first time, as in the sandbox of a trial
        run = subprocess.run(
            argv, env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(kept)}, capture_output=True, text=True
        )
        if run.returncode != 0:  # such as a missing C++ compiler: a result, not an error
            message = run.stderr.strip() or f"ended with {run.returncode}"  # a killed process prints nothing
            failed[one] = message.splitlines()[-1][:120]
            found.pop(one, None)  # ratios need every round
            continue
        start, *measured = json.loads(run.stdout)
        first.setdefault(one, start)
        found.setdefault(one, []).append(measured)
    preset = definition("cpu")
    seconds, rows = preset["budget"]["seconds"], preset["preset"]["DEVICE_BATCH_SIZE"]
    if lacking := [failed[own] for threads in THREADS if (own := (has_bf16, False, threads, rows)) in failed]:
        raise SystemExit(f"benchmarks.trainer grid: the preset's own step does not run here: {lacking[0]}")
    print(f"processor with bf16: {'yes' if has_bf16 else 'no'}; ratios are to the preset's step with as many threads\n")
    columns = ("products", "step", "threads", "rows a pass", "tokens/s", "ratio", "by the processor", "first step, s",
               "whole trial")  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for one, taken in found.items():
        base = (has_bf16, False, one[2], rows)
        pairs = list(zip(taken, found[base], strict=True))
        clock, processor = (median(own[j] / own[2] / (mine[j] / mine[2]) for mine, own in pairs) for j in (0, 1))
        whole = clock * (seconds + first[base]) / (seconds + first[one])
        words = ["bf16" if one[0] else "float32", "compiled" if one[1] else "eager", str(one[2]), str(one[3])]
        words += [f"{median(mine[2] / mine[0] for mine in taken):,.0f}", f"{clock:.2f}", f"{processor:.2f}"]
        print(f"| {' | '.join(words)} | {first[one]:.1f} | {whole:.2f} |")
    for one, why in failed.items():
        print(f"\nDoes not run here: {one}: {why}")


def loading(rounds: int, folder: Path, cache: Path) -> None:
    import torch

    from nanogpt_target.batches import Batches
    from nanogpt_target.prepare import prepare, release

    preset, device = ("gpu", "cuda") if torch.cuda.is_available() else ("cpu", "cpu")
    train = load_trainer(preset, folder / preset)
    prepared = prepare(tomllib.loads((folder / preset / "target.toml").read_text())["data"], cache)
    (folder / "data").mkdir()
    release(prepared, folder / "data")
    torch.set_num_threads(1)
    meta = (prepared.vocab_size, prepared.sequence_length)
    step = stepper(train, device, meta, device == "cuda", train.DEVICE_BATCH_SIZE)
    batches, fixed = Batches(folder / "data", 1, torch.device(device)), fixed_batch(meta, device)

    def taken_with(batch: Callable[[int], Any]) -> tuple[float, float]:
        def whole() -> None:
            step(batch)
            if device == "cuda":
                torch.cuda.synchronize()

        return timed(whole)

    taken_with(batches.next)
    taken = [(*taken_with(batches.next), *taken_with(fixed)) for _ in range(rounds * 20)]  # alternating
    batches.close()
    wall, cpu = (median(t[k] / t[k + 2] for t in taken) for k in (0, 1))
    print(
        f"preset {preset}, step time, real batches over a fixed one: {wall:.3f} by the clock, {cpu:.3f} by processor "
        f"time with the reading thread (median of {len(taken)} pairs, one thread)"
    )


def baseline(rounds: int, folder: Path, cache: Path) -> None:
    from nanogpt_target import __main__ as once
    from nanogpt_target.prepare import prepare
    from nanogpt_target.presets import write_target

    target = folder / "cpu"
    write_target("cpu", target)
    toml = tomllib.loads((target / "target.toml").read_text())
    prepared = prepare(toml["data"], cache)
    seconds = toml["budget"]["seconds"]
    codes = {"preset": folder / "preset", "plain": folder / "plain"}
    for code in codes.values():
        once.make_code(target, code)
    shutil.copyfile(PLAIN, codes["plain"] / "train.py")
    env = {"OVERNIGHT_DEVICE": "cpu", "OVERNIGHT_THREADS": "1", "OMP_NUM_THREADS": "1"}

    def train(name: str, rate: str, steps: int, seed: int) -> tuple[Path, float]:
        """The folder of a run, and its processor seconds."""
        work = folder / f"{name}{rate}-{seed}-{steps}"
        before = children()
        run = once.train(codes[name], prepared, work, f"steps:{steps}", seed, {**env, "PLAIN_LR": rate or "0"})
        if run["exit"] != 0:
            raise SystemExit(f"{name} {rate}: training ended with exit code {run['exit']}")
        return work, children() - before

    steps = {}
    for name in codes:  # cost of a step without the start: the difference of a long and a short run
        costs = [
            (train(name, RATES[1], 60, k)[1] - train(name, RATES[1], 20, k)[1]) / 40 for k in range(10, 10 + rounds)
        ]
        steps[name] = round(seconds / median(costs))
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(1, rounds + 1):
        for name, rate in [("preset", ""), *(("plain", rate) for rate in RATES)]:
            work, _ = train(name, rate, steps[name], seed)
            scored = once.score(codes[name], work / "out", prepared, "validation", env, 900, seed=seed)
            found.setdefault((name, rate), []).append(scored["value"])
            print(f"seed {seed}, {name} {rate}: {scored['value']:.4f}", file=sys.stderr, flush=True)
    print(f"val_bpb after {seconds} s of the processor, one thread, seeds 1 to {rounds}\n")
    print("| trainer | learning rate | steps of 2048 tokens | val_bpb by seed | mean |\n|---|---|---|---|---|")
    for (name, rate), values in found.items():
        shown = ", ".join(f"{value:.3f}" for value in values)
        print(f"| {name} | {rate or 'of the block'} | {steps[name]} | {shown} | {sum(values) / len(values):.3f} |")


def children() -> float:
    """Processor seconds of all ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


STARTUP = """
import time; t = [("", time.perf_counter())]
def mark(name): t.append((name, time.perf_counter()))
import torch; mark("import torch")
import numpy, safetensors.torch; mark("import numpy and safetensors")
from nanogpt_target import harness; mark("import the harness")
import sys; from pathlib import Path; from benchmarks.trainer import load_trainer, sizes, stepper, fixed_batch
train = load_trainer("cpu", Path(sys.argv[1])); mark("read train.py")
torch.set_num_threads(1)
step = stepper(train, "cpu", sizes("cpu"), False, train.DEVICE_BATCH_SIZE); mark("make model and optimisers")
step(fixed_batch(sizes("cpu"), "cpu")); mark("first step")
from nanogpt_target.batches import Batches
b = Batches(Path(sys.argv[2]), 1, torch.device("cpu")); b.next(8); mark("map the data, first batch"); b.close()
import json; print(json.dumps({name: b - a for (_, a), (name, b) in zip(t, t[1:])}))
"""


def startup(rounds: int, folder: Path, cache: Path) -> None:
    from nanogpt_target.prepare import prepare, release
    from nanogpt_target.presets import write_target

    write_target("cpu", folder / "cpu")
    (folder / "data").mkdir()
    release(prepare(tomllib.loads((folder / "cpu" / "target.toml").read_text())["data"], cache), folder / "data")
    parts: dict[str, list[float]] = {}
    for k in range(rounds + 1):
        argv = [sys.executable, "-c", STARTUP, str(folder / f"start{k}"), str(folder / "data")]
        began = time.perf_counter()
        out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        seconds_of = json.loads(out)
        seconds_of["start and end of Python"] = time.perf_counter() - began - sum(seconds_of.values())
        if k:  # the first round fills the disk cache
            for name, seconds in seconds_of.items():
                parts.setdefault(name, []).append(seconds)
    total = sum(median(found) for found in parts.values())
    print("| part of the start-up, preset cpu | median, s | share |\n|---|---|---|")
    for name, found in parts.items():
        print(f"| {name} | {median(found):.2f} | {median(found) / total:.0%} |")


FIRST_STEP = """
import sys; from pathlib import Path
import torch
from benchmarks.trainer import fixed_batch, load_trainer, sizes, stepper
train = load_trainer("cpu", Path(sys.argv[1])); torch.set_num_threads(1)
compiled, cache = sys.argv[2] == "compiled", Path(sys.argv[3])
step = stepper(train, "cpu", sizes("cpu"), compiled, train.DEVICE_BATCH_SIZE)
if cache.exists():
    torch.compiler.load_cache_artifacts(cache.read_bytes())
step(fixed_batch(sizes("cpu"), "cpu"))
if compiled and not cache.exists():
    cache.write_bytes(torch.compiler.save_cache_artifacts()[0])
"""


def compiling(rounds: int, folder: Path) -> None:
    taken: dict[str, list[float]] = {}
    for k in range(rounds):
        for name, how in (("eager", "eager"), ("compiled", "compiled"), ("compiled again", "compiled")):
            own = Path(tempfile.mkdtemp(dir=folder))  # empty, as the folders of a trial
            argv = [sys.executable, "-c", FIRST_STEP, str(own / "target"), how, str(folder / f"cache{k}")]
            env = {**os.environ, "TMPDIR": str(own)}
            before = children()
            subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
            taken.setdefault(name, []).append(children() - before)
    print("| preset cpu, one thread | a process up to its first step, s of the processor, the compiler's included |")
    print("|---|---|")
    for name, found in taken.items():
        print(f"| {name} | {', '.join(f'{seconds:.1f}' for seconds in found)} |")


def gpu(rounds: int, folder: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.trainer gpu: no GPU here.")
    name = torch.cuda.get_device_name()
    peak = next((flops for part, flops in PEAKS.items() if part in name), None)
    if peak is None:
        raise SystemExit(f"benchmarks.trainer gpu: no bf16 peak is known for {name}. Add it to PEAKS.")
    torch.set_float32_matmul_precision("high")
    train, meta = load_trainer("gpu", folder / "gpu"), sizes("gpu")
    began = time.perf_counter()
    step, batch = stepper(train, "cuda", meta, True, train.DEVICE_BATCH_SIZE), fixed_batch(meta, "cuda")
    step(batch)
    torch.cuda.synchronize()
    print(f"{name}: model, compilation and first step {time.perf_counter() - began:.0f} s")
    need = flops_per_token(step.model)  # type: ignore[attr-defined]

    def synchronised() -> None:
        step(batch)
        torch.cuda.synchronize()

    for k in range(rounds):
        seconds = timed(synchronised, 10)[0]
        rate = step.tokens / seconds  # type: ignore[attr-defined]
        print(f"round {k + 1}: {seconds * 1000:.0f} ms a step, {rate:,.0f} tokens/s, MFU {rate * need / peak:.1%}")
    print(f"peak memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def definition(preset: str) -> dict[str, Any]:
    from nanogpt_target.presets import PACKAGE

    return tomllib.loads((PACKAGE / "presets" / f"{preset}.toml").read_text())


def sizes(preset: str) -> tuple[int, int]:
    """Vocabulary and sequence length of a preset."""
    data = definition(preset)["data"]
    return int(data["vocab_size"]), int(data["sequence_length"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("grid", "loading", "baseline", "startup", "compiling", "gpu"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/overnight/data"))
    given = parser.parse_args()
    cache = given.cache.expanduser()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.part in ("grid", "compiling", "gpu"):
            {"grid": grid, "compiling": compiling, "gpu": gpu}[given.part](given.rounds, folder)
        else:
            {"loading": loading, "baseline": baseline, "startup": startup}[given.part](given.rounds, folder, cache)


if __name__ == "__main__":
    main()
