"""Train and score a target once: the phases of a trial as plain processes, with nothing between them and the machine.

    python -m nanogpt_target --target DIR [--budget steps:100] [--seed 1] [--set MATRIX_LR=0.03]

A session does the same in sandboxes, and judges what comes out. This is for people who work on a train.py themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanogpt_target.corpus import DataError
from nanogpt_target.prepare import Prepared, prepare, release, stage_before

PACKAGE = Path(__file__).parent


def make_code(target: Path, code: Path, values: Sequence[str] = ()) -> None:
    """A code directory as a trial has it: train.py beside the frozen package. ``values``: NAME=literal of the block."""
    code.mkdir(parents=True)
    source = (target / "train.py").read_text()
    for assignment in values:
        name, _, value = assignment.partition("=")
        source, count = re.subn(rf"(?m)^{re.escape(name)} = [^#\n]*?(?=  #|$)", f"{name} = {value}", source)
        if count != 1:
            raise SystemExit(f"--set {assignment}: {name} stands {count} times in {target / 'train.py'}")
    (code / "train.py").write_text(source)
    ignored = shutil.ignore_patterns("__pycache__", "presets", "train.py", "*.toml")
    shutil.copytree(PACKAGE, code / "nanogpt_target", ignore=ignored)


def train(
    code: Path, prepared: Prepared, work: Path, budget: str, seed: int, env: Mapping[str, str], show: bool = False
) -> dict[str, Any]:
    """Run train.py as the host does: wait for ``ready``, release the data. Leaves the checkpoint in ``work/out``.

    Returns: exit code, the events, and seconds of start-up and training by this process's clock.
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
    """The scorer and its two model processes. ``log_p``, ``reference``: files as the scorer's options name them."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        result = Path(folder) / "result.json"
        argv = [sys.executable, "-m", "nanogpt_target.scorer", "--data", str(prepared.directory), "--split", split]
        argv += ["--result", str(result), "--timeout", f"{timeout:g}"]
        for name, given in (("--seed", seed), ("--log-p", log_p), ("--reference", reference)):
            argv += [name, str(given)] if given is not None else []
        models = []
        try:
            for side in "ab":
                channel = Path(folder) / side
                channel.mkdir()
                argv += [f"--channel-{side}", str(channel)]
                own = {"OVERNIGHT_CHECKPOINT": str(checkpoint), "OVERNIGHT_CHANNEL": str(channel)}
                server = [sys.executable, "-m", "nanogpt_target.model_server"]
                models.append(subprocess.Popen(server, cwd=code, env={**os.environ, **env, **own}))
            subprocess.run(argv, cwd=PACKAGE.parent, check=True)
        finally:
            for model in models:
                model.kill()
                model.wait()
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nanogpt_target", description="Train and score once.")
    parser.add_argument("--target", type=Path, default=Path(), help="folder with train.py and target.toml")
    parser.add_argument("--budget", help="seconds:4, steps:100 or tokens:100000 (default: as in target.toml)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a value of the block")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
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
        print(f"by_hand: {error}", file=sys.stderr)
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
