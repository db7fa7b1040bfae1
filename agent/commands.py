"""What each command does: read its arguments, call the part that does the work, print."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import IO, TYPE_CHECKING, Any, cast

from agent.config import load_target, make_settings
from agent.errors import EnvironmentProblem, UsageError
from agent.ledger import State
from agent.rundir import RunDirectory, find_runs, folder_of_runs, new_tag

if TYPE_CHECKING:
    from rich.console import Console

    from agent.replay import Plan
    from agent.repo import Repo


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def demo(trials: int, sandbox: str, seed: int, runs: str, cache: str) -> int:
    """A real session on the built-in corpus. Everything it makes lies in its run directory and the cache."""
    from agent import launch
    from agent.session import AT_ONCE
    from agent.views.text import count
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
    from agent.views.log import log_table

    console().print(log_table(state))
    print(f"The branch: git -C {quote(str(target))} log autoresearch/{tag}")
    print(f"The report: {report}")
    say(f"done in {time.monotonic() - began:.0f} s")
    return 130 if state.ended == AT_ONCE else 0


def init(directory: Path, preset: str | None, project: Path | None) -> int:
    if project is not None:
        from agent.adopt import adopt

        if preset:
            raise UsageError("--preset is a size of the nanoGPT target; with --from the project decides.")
        return adopt(directory, project)
    from nanogpt_target.presets import choose_preset

    preset = preset or choose_preset()
    make_target(directory, preset)
    print(f"{directory}: the nanoGPT target, preset {preset}, in a fresh git repository.")
    print(f"Next: overnight run --target {quote(str(directory))}")
    return 0


def make_target(directory: Path, preset: str) -> None:
    """A git repository with one commit: the target."""
    from nanogpt_target.presets import write_target

    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file. Name a new folder.")
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty. Name a new folder.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_target(preset, directory)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {directory}: {error.strerror}.") from error
    identity = ["-c", "user.name=Overnight", "-c", "user.email=overnight@localhost", "-c", "commit.gpgSign=false"]
    for words in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        [*identity, "commit", "-q", "-m", f"Start from preset {preset}"],
    ):
        done = subprocess.run(
            ["git", "-C", str(directory), "-c", "core.hooksPath=/dev/null", *words], capture_output=True, text=True
        )
        if done.returncode:
            raise EnvironmentProblem(f"git {words[0]} failed in {directory}: {done.stderr.strip()}")


def prepare(target: str, data: str | None, verify: bool, runs: str, cache: str) -> int:
    from nanogpt_target import prepare as preparation

    spec = dict(load_target(Path(target))[0].data)
    if data:
        spec["source"] = data
    try:
        prepared = preparation.prepare(spec, Path(cache).expanduser() / "data", progress=say, verify=verify)
    except preparation.DataError as error:
        raise UsageError(str(error)) from None
    print(prepared.directory)
    for split, count in prepared.tokens.items():
        say(f"{split}: {count:,} tokens")
    return 0


def run(config: Path | None = None, **flags: Any) -> int:
    from agent import launch
    from agent.detach import detach, detached

    target_run = load_target(Path(flags.get("target", ".")))[1]
    settings = make_settings(flags, config, target_run)
    if settings.detach and not detached():
        return detach(settings.tag, settings.runs)
    directory = launch.start(settings, live_view(), say)
    return _end(directory)


def resume(tag: str, runs: str, **changes: Any) -> int:
    from agent import launch

    directory = existing(runs, tag)
    if changes.pop("detach", False):
        from agent.detach import detach

        return detach(directory.tag, runs)
    launch.resume(Path(runs), directory.tag, changes, live_view(), say)
    status = _end(directory)
    state, _ = load(directory)
    done = len(state.finished)
    if state.resumed_at == len(state.records) == done >= int(state.session.get("trials") or done + 1):
        say(f"nothing was left to do. More of it: overnight resume {directory.tag} --trials {done + 1}")
    return status


def stop(tag: str, now: bool, runs: str, cache: str) -> int:
    directory = existing(runs, tag)
    if not directory.running():
        raise UsageError(f"run {tag} is not going on; there is nothing to stop.")
    directory.ask_to_stop(now)
    say(f"run {tag} ends {'at once' if now else 'after its running trial'}")
    return 0


def list_(json: bool, runs: str, cache: str) -> int:
    from agent.overview import overview
    from agent.views.runs import runs_table

    rows = overview(folder_of_runs(runs), say)
    return show(json, lambda: rows, lambda: runs_table(rows))


def last_sign(directory: RunDirectory, state: State) -> float:
    """When the session last wrote anything, in seconds since the epoch."""
    from agent.heartbeat import read_heartbeat

    return max(state.last_time, read_heartbeat(directory.progress)[0])


def status_(tag: str | None, json: bool, runs: str, cache: str) -> int:
    from agent.views.status import status_json, status_panel

    directory = existing(runs, tag)
    state, settings = load(directory)
    now, running = time.time(), directory.running()
    seen = (now, running, last_sign(directory, state))
    return show(json, lambda: status_json(state, settings, *seen), lambda: status_panel(state, settings, *seen))


def log_(tag: str | None, all: bool, status: str, source: str, text: str, json: bool, runs: str, cache: str) -> int:
    from agent.views.log import log_json, log_table

    state, _ = load(existing(runs, tag))
    filters = {"status": status, "source": source, "words": text}
    return show(json, lambda: log_json(state, **filters), lambda: log_table(state, all=all, **filters))


def show_(tag: str | None, number: int, json: bool, runs: str, cache: str) -> int:
    from agent.views.show import show_json, show_view

    directory = existing(runs, tag)
    state, _ = load(directory)
    record = state.of_trial(number)
    if record is None:
        there_are = f"it has 1 to {len(state.records)}" if state.records else "nothing has been tried yet"
        raise UsageError(f"run {directory.tag} has no trial {number}: {there_are}.")
    return show(
        json, lambda: show_json(record, state, directory.path), lambda: show_view(record, state, directory.path)
    )


def report_(tag: str | None, runs: str, cache: str) -> int:
    print(write_report(existing(runs, tag)))
    return 0


def replay(
    what: str,
    seeds: int | None,
    exact: bool,
    ablate: bool,
    check: bool,
    name: str,
    results: Path | None,
    workers: int,
    json: bool,
    runs: str,
    **settings: Any,
) -> int:
    from rich.console import Console

    from agent import replaying
    from agent.views.replay import ReplayView, replay_json, replay_view, write_replay

    def view(plan: Plan) -> ReplayView:
        return ReplayView(Console(stderr=True, highlight=False), plan.metric, plan.rounds * len(plan.steps))

    request = replaying.Request(what, seeds, exact, ablate, name, results, workers, settings)
    result, differs, directory = replaying.perform(request, Path(runs), view, say)
    show(json, lambda: replay_json(result, differs), lambda: replay_view(result, differs), paged=False)
    page = directory.path / "replay.html"
    try:
        write_replay(result, page, differs)
        say(f"the page of this replay: {page}")
    except EnvironmentProblem as error:  # the table was printed already
        say(f"no page: {error}")
    if not result.complete:
        say("interrupted; the same command goes on where it stopped.")
        return 130
    return 1 if check and not result.reproduced else 0


def branch(tag: str, squash: bool, pick: list[int] | None, onto: str, name: str, runs: str, target: str | None) -> int:
    from agent.branching import make_branch
    from agent.views.text import count

    directory = existing(runs, tag)
    state, settings = load(directory)
    repo = repo_of(settings, target)
    made = make_branch(state, repo, directory.tag, name=name, squash=squash, pick=pick or (), onto=onto)
    print(made.name)
    made_of = f"{count(made.edits, 'edit')} in {count(made.commits, 'commit')}"
    say(f"{made_of}: git -C {quote(str(repo.top))} log {made.base[:10]}..{made.name}")
    return 0


def diff(tag: str, a: str, b: str, json: bool, runs: str, target: str | None) -> int:
    from agent.differing import compare_view, diff_json

    state, settings = load(existing(runs, tag))
    repo = repo_of(settings, target)
    return show(json, lambda: diff_json(state, repo, a, b), lambda: compare_view(state, repo, a, b))


def export(tag: str | None, format: str, output: Path | None, runs: str) -> int:
    from agent.exporting import export as text_of
    from agent.views.text import count

    state, _ = load(existing(runs, tag))
    text = text_of(state, format)
    if output is None:
        sys.stdout.write(text)
        return 0
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {output}: {error.strerror}.") from error
    say(f"{output}: {count(len(state.finished), 'attempt')} as {format}")
    return 0


def judge(file: Path, noise_sd: float, policy: str, json: bool) -> int:
    from agent.judge import policy_from
    from agent.published import judge_published, published_table, read_tsv

    if not 0 <= noise_sd < math.inf:
        raise UsageError(f"--noise-sd {noise_sd}: must be a finite number, and cannot be negative.")
    rows = judge_published(read_tsv(file), noise_sd, policy_from(policy))
    return show(json, lambda: rows, lambda: published_table(rows))


def write_report(directory: RunDirectory) -> Path:
    from agent.report import write_report as write

    return write(directory.path)


def existing(runs: str, tag: str | None) -> RunDirectory:
    """The run with this tag; the newest one without."""
    import difflib

    known = find_runs(folder_of_runs(runs))
    if tag is None:
        if not known:
            raise UsageError(f"there are no runs in {runs}. `overnight demo` makes one.")
        tag = known[-1]
    if tag not in known:
        close = difflib.get_close_matches(tag, known, n=3, cutoff=0.3) or known[-3:]
        raise UsageError(f"no run {tag!r} in {runs}." + (f" Nearest: {', '.join(close)}." if close else ""))
    return RunDirectory(Path(runs), tag)


def load(directory: RunDirectory) -> tuple[State, dict[str, Any]]:
    """The state of a run, and its settings by now. Of a damaged ledger, what can be read; the damage is said."""
    from agent.salvage import read_state

    state, damage = read_state(directory.ledger)
    for problem in damage:
        say(problem)
    return state, directory.read_settings(state)


def repo_of(settings: Mapping[str, Any], target: str | None) -> Repo:
    """The repository of a run's target, or of the folder that the user names instead."""
    from agent.repo import Repo, scrub_environment

    scrub_environment()
    folder = Path(target or str(settings["run"]["target"]))
    if not folder.is_dir():
        raise UsageError(f"the target of this run, {folder}, is not there any more. Name its folder with --target.")
    return Repo(folder)


def _end(directory: RunDirectory) -> int:
    from agent.overview import row
    from agent.session import AT_ONCE

    row(directory, say)  # `overnight list` finds it ready
    state, settings = load(directory)
    say(f"run {directory.tag}: {state.ended}; {len(state.kept)} of {len(state.finished)} edits kept.")
    branch = f"git -C {quote(str(settings['run']['target']))} log autoresearch/{directory.tag}"
    say(f"overnight log {directory.tag} · overnight report {directory.tag} · {branch}")
    return 130 if state.ended == AT_ONCE else 0


def show(as_json: bool, data: Any, renderable: Any, paged: bool = True) -> int:
    """Print what was asked for. Without ``paged`` nobody has to be there to leave a pager."""
    if as_json:
        print(_dumps(data()))
    elif paged:
        from agent.views.pager import page

        page(console(), renderable())
    else:
        console().print(renderable())
    return 0


def _dumps(data: Any) -> str:
    """A list with one element a line, anything else indented: ``indent`` is slow, and lists are what gets long."""
    if isinstance(data, list):
        return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in data) + "\n]"
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def console(widest: int = 200) -> Console:
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    # a file or a pipe has no width: lines there are as long as their content, up to what a wide terminal shows
    return Console(highlight=False, width=widest, file=cast(IO[str], _Unpadded(sys.stdout)))


class _Unpadded:
    """Passes text on without the spaces that fill a line to the edge of a terminal."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, words: str) -> int:
        return self._file.write(re.sub(r"[ ]+(?=\n)", "", words))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def live_view() -> Any:
    from rich.console import Console

    from agent.detach import detached
    from agent.views.live import LiveView, SilentView

    if detached():  # session.log says it all
        return SilentView()
    return LiveView(Console(stderr=True, highlight=False))
