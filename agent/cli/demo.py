"""``overnight demo``."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from shlex import quote
from typing import Any

from agent.cli.doctor import sandbox_finding
from agent.cli.init import make_target
from agent.cli.output import draw, say
from agent.cli.run import run
from agent.cli.runs import load
from agent.errors import UsageError
from agent.review.data.night import night_of
from agent.review.report.report import write_report
from agent.review.terminal.log import log_table
from agent.rundir.directory import RunDirectory, new_tag
from agent.settings import make_settings
from agent.text import count

ON_PLATEAU = 4  # trials of CMA-ES after eight edits of code without a keep


def demo(trials: int, sandbox: str, seed: int, runs: str, cache: str) -> int:
    began = time.monotonic()
    if trials < 1:
        raise UsageError(f"--trials {trials}: must be at least 1.")
    make_settings({"seed": seed}, None)  # checks the seed before anything is written
    if sandbox == "auto":
        sandbox = "bwrap" if sandbox_finding("bwrap").ok else "process"
    tag = new_tag(Path(runs), "demo-", "targets")
    target = Path(runs) / "targets" / tag
    make_target(target, "demo")
    (target.parent / ".gitignore").write_text("*\n")
    # without isolation only numbers of the hyperparameter block change
    edits_code = sandbox != "process"
    proposer: dict[str, Any] = {"proposer": "ideas", "on_plateau": ON_PLATEAU} if edits_code else {"proposer": "cma-es"}
    source = "edits of code from the idea bank, and CMA-ES on plateaus" if edits_code else "proposed by CMA-ES"
    say(f"{count(trials, 'trial')} of a tiny language model: {source}; sandbox {sandbox}.")
    status = run(
        config=None, dry_run=False, tag=tag, target=str(target), **proposer, sandbox=sandbox, device="cpu",
        calibrate=4, trials=trials, seed=seed, runs=runs, cache=cache, memory="off",
    )  # fmt: skip
    directory = RunDirectory(Path(runs), tag)
    state, _ = load(directory)
    if 0 in state.observed:
        report = write_report(directory.path)
        draw(log_table(night_of(state, {})))
        print(f"The branch: git -C {quote(str(target))} log autoresearch/{tag}")
        print(f"The report: {report}")
    if hint := activation():
        print(hint)
    say(f"done in {time.monotonic() - began:.0f} s")
    return status


def activation() -> str:
    """How to put ``overnight`` on PATH; "" if it is there. `make demo` runs it from an environment of the checkout."""
    script = Path(sys.prefix) / "bin" / "activate"
    if shutil.which("overnight") or not script.exists():
        return ""
    inside = script.is_relative_to(Path.cwd())
    return f"The command overnight: . {quote(os.path.relpath(script) if inside else str(script))}"
