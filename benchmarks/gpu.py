"""Proves the GPU path in one command: python -m benchmarks.gpu --out DIR [--minutes 12] [--parts LIST] [--dry-run]

Parts, in order of value. Each runs in its own process with a time limit, and none needs another one to succeed,
except that all use the data of the first:

    prepare   versions, GPU, preparation of the preset's data
    train     preset gpu for 30 s: loss, steps, tokens/s, start-up and compilation, MFU, peak memory; then scoring of
              the checkpoint: seconds and cost per million tokens; GPU memory before and after
    steps     step time with real batches over that with one fixed batch, and MFU of a step
    answers   the checkpoint scored twice under other seeds: how much one model's log-probabilities vary in bf16
    tests     tests/gpu
    session   three recipes of the idea bank in the best sandbox of the machine, 10 s a run; the memory used afterwards
    noise     the baseline, the same code again and three edits under equal seeds: noise between seeds and of pairs.
              The runs have a budget in steps, so that several can share the GPU: 200 steps of 32,768 tokens
    doctor    ``overnight doctor --sandbox``: what it finds, and the tests of the sandbox's isolation

After each part DIR/gpu.json and DIR/gpu.md (tables for docs/measurements/gpu.md) are written, so that a run that is
cut off keeps what it has. ``--dry-run`` does the same on a CPU with preset demo and budgets of a few steps.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts import DRY, GPU, PARTS, ROOT, Bench, Values, write

SLOWER = 10  # a dry run on a busy machine; it must not fail for want of time


def run_part(name: str, out: Path, dry: bool, seconds: float) -> Values:
    """Run a part in its own process; its values, or ``error``."""
    place, log = out / f"{name}.json", out / f"{name}.log"
    place.unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), "--part", name, *(["--dry-run"] if dry else [])]
    began = time.monotonic()
    with (
        log.open("w") as file,
        subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        try:
            status = process.wait(seconds)
            error = f"exit status {status}" if status else ""
        except subprocess.TimeoutExpired:
            error = f"cut off after {seconds:.0f} s"
            os.killpg(process.pid, 9)
    found: Values = json.loads(place.read_text()) if place.exists() else {}
    if error:
        found["error"] = f"{error}; {log.read_text(errors='replace').strip()[-600:]}"
    return {**found, "part seconds": round(time.monotonic() - began, 1)}


def tables(found: Mapping[str, Values]) -> str:
    """Markdown of the results."""
    lines = []
    for name, values in found.items():
        lines += [f"### {name}", "", "| figure | value |", "|---|---|"]
        lines += [f"| {key} | {_shown(value)} |" for key, value in values.items()] + [""]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "–" if value is None else str(value).replace("\n", " ").replace("|", "/")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts to run, in this order (default: %(default)s)")
    parser.add_argument("--part", choices=PARTS, help="run one part here; for the processes of this script")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    out, size = given.out.resolve(), DRY if given.dry_run else GPU
    if given.part:
        write(out / f"{given.part}.json", PARTS[given.part][0](Bench(out, size)))
        return 0
    parts = given.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    end, results = time.monotonic() + 60 * given.minutes * (SLOWER if given.dry_run else 1), {}
    for name in parts:
        seconds = PARTS[name][1]
        seconds *= SLOWER if given.dry_run else 1
        left = end - time.monotonic()
        if left < 5:
            results[name] = {"error": "no time left"}
        else:
            print(f"{name} …", flush=True)
            results[name] = run_part(name, out, given.dry_run, min(seconds, left))
            print(f"{name}: {results[name].get('error', 'ok')} ({results[name]['part seconds']} s)", flush=True)
        write(out / "gpu.json", results)
        (out / "gpu.md").write_text(tables(results))
    shutil.rmtree(out / "work", ignore_errors=True)
    return 1 if any("error" in values for values in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
