"""``overnight demo``, ``run``, ``resume`` and ``stop``."""

from __future__ import annotations

import time
from pathlib import Path
from shlex import quote
from typing import Any

from agent.cli.init import make_target
from agent.cli.output import console, live_view, say
from agent.cli.review import write_report
from agent.cli.runs import existing, load
from agent.errors import UsageError
from agent.rundir.directory import RunDirectory, new_tag
from agent.settings import make_settings
from agent.target import load_target


def demo(trials: int, sandbox: str, seed: int, runs: str, cache: str) -> int:
    """A real session on the built-in corpus. Everything it makes lies in its run directory and the cache."""
    from agent.session import setup as launch
    from agent.session.stopping import AT_ONCE
    from agent.text import count
    from sandbox import make_sandbox
    from sandbox.types import SandboxUnavailable

    began = time.monotonic()
    if trials < 1:
        raise UsageError(f"--trials {trials}: must be at least 1.")
    if sandbox == "auto":
        try:
            make_sandbox("bwrap").check()
            sandbox = "bwrap"
        except SandboxUnavailable:
            sandbox = "process"
    root = Path(runs)
    make_settings({"seed": seed}, None)  # says what is wrong before anything is made
    tag = new_tag(root, "demo-", "targets")
    target = root / "targets" / tag
    make_target(target, "demo")
    (root / "targets" / ".gitignore").write_text("*\n")
    settings = make_settings(
        {"tag": tag, "target": str(target), "proposer": "cma-es", "sandbox": sandbox, "device": "cpu",
         "policy": "margin", "calibrate": 4, "trials": trials, "seed": seed, "runs": runs, "cache": cache},
        None,
        load_target(target)[1],
    )  # fmt: skip
    tried = count(trials, "trial")
    say(f"A short night: {tried} of a tiny language model, proposed by CMA-ES, in the sandbox {sandbox}.")
    directory = launch.start(settings, live_view(), say)
    state, _ = load(directory)
    if 0 not in state.told:
        return _end(directory)
    report = write_report(directory)
    from agent.review.data.night import night_of
    from agent.review.terminal.log import log_table

    console().print(log_table(night_of(state, {})))
    print(f"The branch: git -C {quote(str(target))} log autoresearch/{tag}")
    print(f"The report: {report}")
    say(f"done in {time.monotonic() - began:.0f} s")
    return 130 if state.ended == AT_ONCE else 0


def run(config: Path | None = None, **flags: Any) -> int:
    from agent.rundir.detach import detach, detached
    from agent.session import setup as launch

    target_run = load_target(Path(flags.get("target", ".")))[1]
    settings = make_settings(flags, config, target_run)
    if settings.detach and not detached():
        return detach(settings.tag, settings.runs)
    directory = launch.start(settings, live_view(), say)
    return _end(directory)


def resume(tag: str, runs: str, **changes: Any) -> int:
    from agent.session import setup as launch

    directory = existing(runs, tag)
    if changes.pop("detach", False):
        from agent.rundir.detach import detach

        return detach(directory.tag, runs)
    launch.resume(Path(runs), directory.tag, changes, live_view(), say)
    status = _end(directory)
    state, _ = load(directory)
    done = len(state.finished)
    if state.resumed_at == len(state.records) == done >= (state.session.trials or done + 1):
        say(f"nothing was left to do. More of it: overnight resume {directory.tag} --trials {done + 1}")
    return status


def stop(tag: str, now: bool, runs: str, cache: str) -> int:
    directory = existing(runs, tag)
    if not directory.running():
        raise UsageError(f"run {tag} is not going on; there is nothing to stop.")
    directory.ask_to_stop(now)
    say(f"run {tag} ends {'at once' if now else 'after its running trial'}")
    return 0


def _end(directory: RunDirectory) -> int:
    from agent.review.data.run_index import row
    from agent.session.stopping import AT_ONCE

    row(directory, say)  # `overnight list` finds it ready
    state, settings = load(directory)
    say(f"run {directory.tag}: {state.ended}; {len(state.kept)} of {len(state.finished)} edits kept.")
    branch = f"git -C {quote(str(settings['run']['target']))} log autoresearch/{directory.tag}"
    say(f"overnight log {directory.tag} · overnight report {directory.tag} · {branch}")
    return 130 if state.ended == AT_ONCE else 0
