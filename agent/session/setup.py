"""Starts and resumes sessions: checks, run directory, ledger, then the session."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import UNSET

from agent.errors import EnvironmentProblem, UsageError
from agent.judge.paired_runs import PairedRuns
from agent.ledger.events import Resumed, ServerProblem, SessionStarted
from agent.ledger.journal import Ledger
from agent.ledger.state import State
from agent.observers.heartbeat import Heartbeat
from agent.observers.protocol import Observer, Observers
from agent.observers.session_log import SessionLog
from agent.observers.trackers.beside import Trackers
from agent.patch.normal_form import program_of
from agent.proposers.block import BlockProposer
from agent.repo.repo import Repo
from agent.repo.run_refs import RunRefs
from agent.repo.worktree import differing
from agent.rundir.directory import NOTES, RunDirectory, environment, new_tag
from agent.rundir.stop import Stopper
from agent.session.baseline import Baseline
from agent.session.commits import Commits
from agent.session.context import describe
from agent.session.in_flight import Ideas, Runs
from agent.session.loop import Session
from agent.session.memory import gather, load, save
from agent.session.parts import Parts, assemble
from agent.session.recorder import Recorder
from agent.session.repair import Repairs
from agent.session.stacked import StackedSession
from agent.session.stacked_edits import StackedEdits
from agent.session.stopping import EndOfNight
from agent.session.trial_judge import TrialJudge
from agent.settings import Settings, check_own_run, make_settings, smoke_seconds
from agent.text import without_password
from agent.trial.seeds import session_seed
from agent.trust import trust_run
from agent.workers.local import Workers
from agent.workers.runtime import find_workers

CHANGEABLE = ("proposer", "sandbox", "policy", "seed", "trials", "workers", "device")  # by a resume


def start(settings: Settings, view: Observer, say: Callable[[str], None]) -> RunDirectory:
    """Check everything, create a session and work on it until it ends.

    Raises:
        UsageError: the tag is taken, the target has uncommitted changes, or a setting is wrong.
        EnvironmentProblem: something outside is missing or breaks.
    """
    parts, directory, notes = new_session(settings, say)
    memory = gather(settings.memory, Path(settings.runs), parts.target, parts.data_hash, parts.repo, say)
    stopper = Stopper(directory)
    with closing(find_workers(parts, str(directory.path.resolve()), stopper.now)) as workers:
        directory.create(record_of(parts), notes)
        save(memory, directory)
        approve(directory)
        with directory.lock(), Ledger(directory.ledger) as ledger:
            ledger.append(session_event(parts, directory))
            run(parts, workers, stopper, ledger, view)
    return directory


def new_session(settings: Settings, say: Callable[[str], None]) -> tuple[Parts, RunDirectory, str]:
    """Everything that a session needs, checked: its parts, its directory, which does not exist yet, and its notes.

    Errors: see ``start``.
    """
    root = Path(settings.runs)
    settings = dataclasses.replace(settings, tag=settings.tag or new_tag(root))
    directory = RunDirectory(root, settings.tag)
    directory.check_new()
    for place in (*map(str, lasting(settings).values()), str(root.resolve())):
        if re.search(r"[\udc80-\udcff]", place):
            raise UsageError(f"{place}: the path is not UTF-8. Rename the folder; run.toml and git need UTF-8 paths.")
    notes = notes_of(settings)
    parts = assemble(settings, say)
    check_repository(parts.repo, directory.tag)
    return parts, directory, notes


def notes_of(settings: Settings) -> str:
    """The notes with which a session starts: the file of ``--notes``, else notes.md of the target, else a placeholder.

    Raises:
        UsageError: ``--notes`` names no text file.
    """
    own = Path(settings.target) / "notes.md"
    if settings.notes:
        own = Path(settings.notes).expanduser()
        if not own.is_file():
            raise UsageError(f"--notes {settings.notes}: no such file.")
    elif own.is_symlink() or not own.is_file():  # a link may lead out of the target, and a model server gets the text
        return NOTES
    return own.read_text(encoding="utf-8", errors="replace")


def approve(directory: RunDirectory, state: State | None = None) -> None:
    """Record that this user started the session. Without a configuration folder, a resume asks for its settings."""
    with suppress(EnvironmentProblem):
        trust_run(directory.path, directory.read_settings(state)["run"])


def check_repository(repo: Repo, tag: str) -> None:
    """Refuse a start whose trials would see other files than the user, or whose refs exist.

    Raises:
        UsageError: names the file or the ref.
    """
    changed, converted = differing(repo)
    if changed:
        raise UsageError(
            f"the target has uncommitted changes ({', '.join(changed[:3])}). The baseline is a commit: "
            f"git commit or git stash them."
        )
    if converted:
        raise UsageError(
            f"{converted[0]} is stored by git in another form (a filter or an encoding in .gitattributes, such as Git "
            f"LFS), and trials would see that form. Keep such files outside of the target and name their folder in "
            f"`mounts`, or remove the attribute and commit."
        )
    if obstacle := RunRefs(repo, tag).obstacle():
        raise UsageError(obstacle)


def resume(
    root: Path, tag: str, changes: Mapping[str, Any], view: Observer, say: Callable[[str], None]
) -> RunDirectory:
    """Continue a session after an interruption, under its own settings and ``changes``. Errors: see ``start``."""
    directory = RunDirectory(root, tag)
    directory.read_settings()  # raises before the lock and the ledger are created
    if "memory" in changes:
        raise UsageError("--memory is fixed at the start of a session: leave it out, or start a new session.")
    with directory.lock(), Ledger(directory.ledger) as ledger:
        before = directory.read_settings(ledger.state)["run"]
        check_own_run(directory.path, before, changes)
        settings = dataclasses.replace(make_settings({**before, **changes}, None), runs=str(root), tag=tag)
        parts = assemble(settings, say)
        if not ledger.events:
            ledger.append(session_event(parts, directory))
        check_same(ledger.state, parts)
        directory.forget_stop()
        stopper = Stopper(directory)
        with closing(find_workers(parts, str(directory.path.resolve()), stopper.now)) as workers:
            now = lasting(settings)
            new = {name: now[name] for name in changes if now[name] != before.get(name)}
            if new:
                say(f"changed settings: {_in_words(before, new)}")
            changed = changes_of(ledger.state, parts, directory, new)
            ledger.append(Resumed(attempt=ledger.state.resumed + 1, changes=changed or UNSET))
            approve(directory, ledger.state)
            run(parts, workers, stopper, ledger, view)
    return directory


def check_same(state: State, parts: Parts) -> None:
    """Reject other data or another budget, whose values could not be compared, and a change to or from ``stacked``.

    Raises:
        UsageError: names what differs.
    """
    policies = (state.session.policy, parts.policy.name)
    if "stacked" in policies and len(set(policies)) > 1 and state.records:
        raise UsageError(
            f"the session has policy {policies[0]}, and a resume cannot change it to {policies[1]}: their runs differ."
        )
    if state.session.data != parts.data_hash:
        raise UsageError(
            "the prepared data differs from that of the session, so values could not be compared. Start a new session."
        )
    budget = str(parts.target.budget)
    if (before := state.session.budget or budget) != budget:
        raise UsageError(
            f"the budget is {budget}, and that of the session {before}: values could not be compared. Restore the "
            "budget, or start a new session."
        )


def _in_words(before: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    shown = ((name, before.get(name), value) for name, value in new.items())
    words = (f"{name} from {'unset' if old in (None, '') else old} to {value}" for name, old, value in shown)
    return without_password("; ".join(words))


def changes_of(state: State, parts: Parts, directory: RunDirectory, new: Mapping[str, Any]) -> dict[str, Any]:
    """The changes that a resume records: fields of the session event, and the ``new`` settings beside earlier ones."""
    old, now = state.session, session_event(parts, directory)
    changed = {name: getattr(now, name) for name in CHANGEABLE if getattr(now, name) != getattr(old, name)}
    if new:
        changed["settings"] = {**state.settings, **new}
    return changed


def run(parts: Parts, workers: Workers, stopper: Stopper, ledger: Ledger, shown: Observer) -> None:
    """Run a session to its end, with all observers."""
    directory = stopper.directory
    trackers = Trackers(parts.tracks, directory.path)
    view = Observers(SessionLog(directory.log), shown, Heartbeat(directory.progress), parts.notifier, trackers)
    session = _session(parts, workers, stopper, Recorder(ledger, view))
    with stopper.listening(), view:
        view.event(ledger.events[-1], ledger.state)  # it was written before there were observers
        session.run()


def _session(parts: Parts, workers: Workers, stopper: Stopper, recorder: Recorder) -> Session:
    directory, settings, target, memory = stopper.directory, parts.settings, parts.target, load(stopper.directory)
    if isinstance(parts.proposer, BlockProposer):
        parts.proposer.start_from(memory, parts.repo.read(recorder.state.baseline, target.path))
    if parts.sleeper is not None:
        parts.sleeper.report = lambda text, action: recorder.write(ServerProblem(problem=text, action=action))
    commits = Commits(parts.repo, RunRefs(parts.repo, directory.tag), target, parts.proposer)
    smoke = smoke_seconds(settings.smoke, target.budget.startup_seconds)
    runs = Runs(workers, directory, recorder, settings.seed, smoke)
    ideas = Ideas(parts.proposer, directory, recorder, settings.on_llm_failure == "wait")
    ending = EndOfNight(settings, stopper, target)
    context = partial(describe, parts=parts, directory=directory, memory=memory)
    repairs = Repairs(ideas, ending, context, target.budget, settings.repairs if settings.proposer == "code" else 0)
    policy = parts.policy
    kind: Callable[..., Session] = Session
    if policy.name == "stacked":
        kind = partial(StackedSession, seed=settings.seed, edits=StackedEdits(commits))
        policy = dataclasses.replace(policy, name="confirm")  # decides where runs do not vary
    return kind(
        recorder=recorder,
        runs=runs,
        ideas=ideas,
        commits=commits,
        baseline=Baseline(runs, ideas, commits, parts.policy, parts.calibration, ending),
        judge=TrialJudge(commits, policy, PairedRuns(partial(session_seed, settings.seed))),
        ending=ending,
        describe=context,
        repair=repairs.ask,
        most_open=workers.size + parts.ahead,
    )


def session_event(parts: Parts, directory: RunDirectory) -> SessionStarted:
    """The first event of the ledger."""
    settings, target = parts.settings, parts.target
    return SessionStarted(
        tag=directory.tag,
        baseline=parts.repo.head(),
        metric=target.metric,
        goal=target.goal,
        proposer=settings.proposer,
        sandbox=parts.sandbox.name,
        policy=parts.policy.name,
        seed=settings.seed,
        budget=str(target.budget),
        trials=settings.trials,
        workers=settings.workers,
        device=parts.device.uuid or parts.device.kind,
        target=target.name,
        path=target.path,
        self_reported=target.score == "stdout",
        data=parts.data_hash,
        program=program_of(parts.repo.read(parts.repo.head(), target.path)),
        memory=load(directory).runs,
    )


def record_of(parts: Parts) -> dict[str, Any]:
    """The content of run.toml: everything that was decided at the start."""
    target = dataclasses.asdict(parts.target)
    data = {"hash": parts.prepared.hash, **dict(parts.prepared.tokens)} if parts.prepared else {}
    return {"run": lasting(parts.settings), "target": target, "data": data, **environment()}


def lasting(settings: Settings) -> dict[str, Any]:
    """Settings with absolute paths, because a resume may start in another folder."""
    paths = {"target": str(Path(settings.target).resolve()), "cache": str(Path(settings.cache).expanduser().resolve())}
    if settings.python:  # with its links: an environment is found by the link that was started
        paths["python"] = os.path.abspath(Path(settings.python).expanduser())  # noqa: PTH100
    named = {"notes": settings.notes, "notify": settings.notify if settings.notify != "env" else ""}
    paths |= {name: str(Path(place).expanduser().resolve()) for name, place in named.items() if place}
    return {**dataclasses.asdict(settings), **paths}
