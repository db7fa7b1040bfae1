"""Train and score a target once, without a sandbox: for people who work on a train.py themselves.

python -m nanogpt_target --target DIR [--budget steps:100] [--seed 1] [--set MATRIX_LR=0.03]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt_target.corpus import DataError
from nanogpt_target.prepare import Prepared, prepare, release, stage_before
from nanogpt_target.presets import assign
from nanogpt_target.scorer import LOG_P, REFERENCE
from nanogpt_target.trusted import copy_frozen, run_scorer


def make_code(target: Path, code: Path, values: Sequence[str] = ()) -> None:
    """Make a code directory: train.py and the package. ``values`` are assignments NAME=literal to the block."""
    code.mkdir(parents=True)
    source = (target / "train.py").read_text()
    for assignment in values:
        name, _, value = assignment.partition("=")
        try:
            source = assign(source, name, value)
        except ValueError as error:
            raise SystemExit(f"--set {assignment}, {target}: {error}") from None
    (code / "train.py").write_text(source)
    copy_frozen(code)


def train(
    code: Path, prepared: Prepared, work: Path, budget: str, seed: int, env: Mapping[str, str], show: bool = False
) -> dict[str, Any]:
    """Run train.py: wait for the event ``ready``, then release the data. The checkpoint is in ``work/out``.

    Returns:
        ``exit`` (code), ``events``, and ``startup`` and ``training`` in seconds by this process's clock.
    """
    data, out = work / "data", work / "out"
    data.mkdir(parents=True)
    out.mkdir()
    stage_before(prepared, data)
    own = {
        "OVERNIGHT_DATA": str(data),
        "OVERNIGHT_OUT": str(out),
        "OVERNIGHT_BUDGET": budget,
        "OVERNIGHT_SEED": str(seed),
    }
    events: list[dict[str, Any]] = []
    began = ready = time.monotonic()
    argv = [sys.executable, "train.py"]
    with subprocess.Popen(argv, cwd=code, env={**os.environ, **env, **own}, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        for line in job.stdout:
            if show:
                sys.stderr.write(line)
            if line.startswith('{"event"'):
                events.append(json.loads(line))
                if events[-1]["event"] == "ready":
                    ready = time.monotonic()
                    release(prepared, data)
    ended = time.monotonic()
    return {"exit": job.returncode, "events": events, "startup": ready - began, "training": ended - ready}


@dataclass(frozen=True)
class _Model:
    """A model process without a sandbox."""

    process: subprocess.Popen[bytes]

    def ended(self) -> bool:
        time.sleep(0.02)
        return self.process.poll() is not None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class _Host:
    """This machine, without a sandbox, as the host of a scorer."""

    code: Path
    checkpoint: Path
    folder: Path
    shared: Path
    env: Mapping[str, str]
    seconds: float
    session: str = ""
    startup_seconds: float = 120.0
    load_seconds: float = float("inf")

    def wait(self) -> None:
        """Report nothing."""

    def start(self, argv: Sequence[str], channel: Path, writable: Sequence[str]) -> _Model:
        own = {"OVERNIGHT_CHECKPOINT": str(self.checkpoint), "OVERNIGHT_CHANNEL": str(channel)}
        words = [word.format(python=sys.executable) for word in argv]
        return _Model(subprocess.Popen(words, cwd=self.code, env={**os.environ, **self.env, **own}))


def score(
    code: Path,
    checkpoint: Path,
    prepared: Prepared,
    split: str,
    env: Mapping[str, str],
    timeout: float,
    seed: int | None = None,
    *,
    log_p: Path | None = None,
    reference: Path | None = None,
) -> dict[str, Any]:
    """Score the checkpoint that ``train`` left; ``timeout``: bound on both passes, in seconds.

    For tests and benchmarks: ``seed`` of the cuts; ``log_p``, a file for the log-probabilities of pass A;
    ``reference``, such a file of an earlier run.

    Raises:
        RuntimeError: the scorer itself failed.
    """
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir=memory) as shared:
        host = _Host(code, checkpoint.resolve(), Path(folder), Path(shared), env, timeout)
        if reference:
            shutil.copyfile(reference, host.folder / REFERENCE)
        found = run_scorer(prepared, split, host, seed)
        if log_p and found["status"] == "ok":
            shutil.copyfile(host.folder / LOG_P, log_p)
    if found["status"] == "broken":
        raise RuntimeError(f"the scorer failed: {found['reason']}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nanogpt_target", description="Train and score once.")
    parser.add_argument("--target", type=Path, default=Path(), help="folder with train.py and target.toml")
    parser.add_argument("--budget", help="seconds:4, steps:100 or tokens:100000 (default: as in target.toml)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a value of the block")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/overnight/data"))
    parser.add_argument("--out", type=Path, help="keep the checkpoint and the curves in this new folder")
    given = parser.parse_args()
    toml = tomllib.loads((given.target / "target.toml").read_text())
    kind = next(k for k in ("seconds", "steps", "tokens") if k in toml["budget"])
    budget = given.budget or f"{kind}:{toml['budget'][kind]}"
    env = {"OVERNIGHT_DEVICE": given.device, "OVERNIGHT_THREADS": str(given.threads)}
    try:
        prepared = prepare(toml["data"], given.cache.expanduser(), lambda text: print(text, file=sys.stderr))
    except DataError as error:
        print(f"nanogpt_target: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        code, work = Path(folder) / "code", Path(folder) / "work"
        make_code(given.target, code, given.set)
        run = train(code, prepared, work, budget, given.seed, env, show=True)
        if given.out:
            shutil.copytree(work / "out", given.out)
        if run["exit"] != 0:
            return 1
        began = time.monotonic()
        found = score(code, work / "out", prepared, given.split, env, toml["budget"].get("score_seconds", 300))
    seconds = {"startup": run["startup"], "training": run["training"], "scoring": time.monotonic() - began}
    print(json.dumps({**found, "seconds": {name: round(value, 2) for name, value in seconds.items()}}))
    return 0 if found["status"] == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
