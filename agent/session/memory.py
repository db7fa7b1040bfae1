"""Reads the ledgers of earlier sessions of the same target (``--memory``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import msgspec

from agent import text
from agent.errors import UsageError, similar
from agent.files import replace_file
from agent.judge.gain import gain_of_runs
from agent.judge.noise import noise_of
from agent.ledger.recovery import read_state
from agent.ledger.state import State
from agent.proposers.memory import Memory, PastAttempt
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory, find_replays, find_runs
from agent.target import Target
from agent.types import Record, on_validation, to_json, values_of

FILE = "memory.json"
NEVER_RAN = ("patch_rejected", "duplicate", "no_effect", "model_failed", "lost")


def gather(setting: str, root: Path, target: Target, data: str, repo: Repo, say: Callable[[str], None]) -> Memory:
    """The memory that ``--memory`` names: ``auto``, ``off``, or tags.

    Args:
        setting: of the session.
        root: folder of the run directories.
        target: of the new session.
        data: hash of its prepared data; "" if there is none.
        repo: its repository.
        say: receives one line about the sessions that were found.

    Raises:
        UsageError: a named session does not exist, or has another metric or another target.
    """
    if setting == "off":
        return Memory()
    known = find_runs(root)
    tags = known if setting == "auto" else [tag for tag in setting.replace(",", " ").split() if tag]
    states: dict[str, State] = {}
    for tag in tags:
        if tag not in known:
            hint = f"{similar(tag, known)} Write auto, off, or tags of sessions."
            raise UsageError(f"--memory {tag}: no such session in {root}.{hint}")
        state, _ = read_state(RunDirectory(root, tag).ledger)
        if problem := _differs(state, target, data, repo):
            if setting != "auto":
                raise UsageError(f"--memory {tag}: {problem}. Leave that session out.")
        else:
            states[tag] = state
    attempts = [a for tag, state in states.items() for a in _attempts(tag, state, str(target.budget), root)]
    if not attempts:
        return Memory()
    found, earlier = text.count(len(attempts), "attempt"), text.count(len(states), "earlier session")
    say(f"memory: {found} of {earlier} ({', '.join(states)}).")
    baselines = {tag: fmean(values) for tag, state in states.items() if (values := values_of(state.baseline_runs))}
    return Memory(tuple(states), tuple(attempts), baselines, points=setting != "auto")


def save(memory: Memory, directory: RunDirectory) -> None:
    """Write the memory into the run directory, so that a resume has the same one."""
    if memory.runs:
        replace_file(directory.path / FILE, json.dumps(to_json(memory), indent=1))


def load(directory: RunDirectory) -> Memory:
    """The memory of a session; empty for a session without one."""
    try:
        return msgspec.convert(json.loads((directory.path / FILE).read_bytes()), Memory)
    except FileNotFoundError:
        return Memory()
    except ValueError as error:
        raise UsageError(f"{directory.path / FILE}: {error}. Delete the file to go on without memory.") from None


def _differs(state: State, target: Target, data: str, repo: Repo) -> str:
    """Why a session cannot be compared with one of ``target``; "" if it can."""
    session = state.session
    if not session.baseline:
        return "its ledger has no session"
    if (session.metric, session.goal) != (target.metric, target.goal):
        return f"its metric is {session.metric} ({session.goal}), and this target has {target.metric} ({target.goal})"
    same_data = bool(data) and session.data == data
    same_repository = session.data == data and repo.holds(session.baseline)
    if session.path != target.path or not (same_data or same_repository):
        return "it worked on another target: neither its data nor its repository is the same"
    return ""


def _attempts(tag: str, state: State, budget: str, root: Path) -> list[PastAttempt]:
    replays = _replays(tag, root)
    forms = {state.baseline: state.session.program}
    forms |= {r.accepted: _form(r) for r in state.kept if r.accepted}
    found = []
    for record in state.finished:
        if record.status in NEVER_RAN:
            continue
        verdict, proposal = record.verdict, record.proposal
        replayed = replays.get(record.accepted or "") or replays.get(record.candidate or "") or (None, None)
        values = values_of(record.runs)
        found.append(
            PastAttempt(
                run=tag,
                trial=record.number,
                subject=proposal.subject,
                category=proposal.category,
                source=proposal.source,
                decision=record.decision,
                status=record.status,
                reason=next((run.reason for run in on_validation(record.runs) if run.status != "ok"), ""),
                base=forms.get(record.parent, ""),
                form=_form(record),
                params=dict(proposal.params) if proposal.params is not None else None,
                value=fmean(values) if values else None,
                gain=verdict.gain if verdict else None,
                gain_se=verdict.gain_se if verdict else None,
                replayed=replayed[0],
                replayed_se=replayed[1],
                same_budget=state.session.budget == budget,
            )
        )
    return found


def _form(record: Record) -> str:
    """The form of the program of an attempt; "" if a rebase may have changed it."""
    return "" if record.revision else record.proposal.form


def _replays(tag: str, root: Path) -> dict[str, tuple[float, float | None]]:
    """Replayed gains over the commit before, with their standard errors, by accepted commit; the latest replay wins."""
    gains: dict[str, tuple[float, float | None]] = {}
    for name in find_replays(root):
        state, _ = read_state(root / name / "ledger.jsonl")
        session = state.session
        if session.kind != "replay" or session.what != tag or not isinstance(session.commits, tuple):
            continue
        noise = noise_of(state)
        runs = {commit: on_validation(state.runs.get(commit, ())) for commit in session.commits}
        for before, after in zip(session.commits, session.commits[1:], strict=False):
            gain = gain_of_runs(runs[before], runs[after], session.goal, noise)
            if gain is not None:
                gains[after] = gain.value, gain.se
    return gains
