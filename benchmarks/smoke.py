"""The price of a smoke test: processor time of a training run with and without one, in pairs.

``python -m benchmarks.smoke PRESET [--pairs 10]``. A separate job for the test is the third kind of run: start-up,
three steps, save, and the two model processes of a score that answer two rows, without their scorer.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from statistics import fmean, stdev

from nanogpt_target import __main__ as once
from nanogpt_target.prepare import Prepared, prepare
from nanogpt_target.presets import write_target

LOAD = (
    "import sys; sys.path.insert(0, '.')\nimport torch, train\n"
    "with torch.inference_mode(): train.load(sys.argv[1], 'cpu')(torch.zeros(2, int(sys.argv[2]), dtype=torch.long))"
)


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def one_run(code: Path, data: Prepared, work: Path, kind: str, seed: int) -> float:
    """Processor seconds of start-up, one step and what ``kind`` adds: plain, smoke, or separate."""
    env = {"OVERNIGHT_DEVICE": "cpu", "OVERNIGHT_THREADS": "1", "OMP_NUM_THREADS": "1"}
    began = processor_seconds()
    folder = work / f"{kind}-{seed}"
    smoke = {"OVERNIGHT_SMOKE": "300"} if kind == "smoke" else {}
    once.train(code, data, folder, "steps:1", seed, {**env, **smoke})
    if kind == "separate":
        once.train(code, data, work / f"test-{seed}", "steps:3", seed, env)
        for _ in range(2):
            words = [sys.executable, "-c", LOAD, str(folder / "out"), str(data.sequence_length)]
            subprocess.run(words, cwd=code, env={**os.environ, **env}, check=True)
    return processor_seconds() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("--pairs", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_target(given.preset, work / "target")
        once.make_code(work / "target", work / "code", ())
        data = prepare(tomllib.loads((work / "target" / "target.toml").read_text())["data"], work / "cache")
        spent: dict[str, list[float]] = {kind: [] for kind in ("plain", "smoke", "separate")}
        for seed in range(given.pairs):
            for kind, found in spent.items():
                found.append(one_run(work / "code", data, work, kind, seed))
    print(f"preset {given.preset}, {given.pairs} runs of each kind, one thread, processor seconds (± standard error)")
    for kind, found in spent.items():
        extra = [a - b for a, b in zip(found, spent["plain"], strict=True)]
        error = stdev(extra) / len(extra) ** 0.5
        print(f"  {kind:<9} {fmean(found):6.2f}   more than plain: {fmean(extra):5.2f} ± {error:.2f}")


if __name__ == "__main__":
    main()
