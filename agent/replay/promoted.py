"""The edits that held in a finished promotion, for ``overnight branch --only-held``."""

from __future__ import annotations

from pathlib import Path

from agent import text
from agent.errors import UsageError
from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.replay.outcomes import Finding, result_in
from agent.replay.plan import Setting
from agent.replay.steps import TOGETHER, WHOLE
from agent.rundir.directory import RunDirectory


def held_in(runs: Path, name: str, tag: str) -> tuple[dict[int, str], str]:
    """Read the edits that are a gain at every setting of the promotion ``runs/name`` of run ``tag``.

    Returns:
        For each trial a sentence with its gains, for the message of its commit; and what was measured of all at once.

    Raises:
        UsageError: there is none, it is of another run or not complete, or no edit held.
    """
    directory = RunDirectory(runs, name, "--only-held")
    result = result_in(fold(read(directory.ledger), str(directory.ledger)))
    if result is None or result.plan.kind != "promote":
        raise UsageError(
            f"--only-held: {directory.path} is no promotion. Make one: overnight promote {tag} --set NAME=VALUE."
        )
    if result.plan.what != tag:
        raise UsageError(f"--only-held: {directory.path} is a promotion of {result.plan.what}, not of {tag}.")
    if not result.complete:
        raise UsageError(
            f"--only-held: {directory.path} is not complete. Repeat its `overnight promote`: it continues."
        )
    if not result.held:
        raise UsageError(f"--only-held: no edit of {tag} held at every setting of {name}.")
    rows = [(s.setting, f) for s, found in zip(result.plan.stages, result.found, strict=True) for f in found]
    notes = {trial: " ".join(_gain(s, f) for s, f in rows if f.edit.trial == trial) for trial in result.held}
    wholes = [[_gain(s, f) for s, f in rows if f.edit.number == number] for number in (TOGETHER, WHOLE)]
    whole = " ".join(wholes[0] or wholes[1])
    return notes, f"measured together: {whole}" if whole else "one edit holds; it was measured alone."


def _gain(setting: Setting, finding: Finding) -> str:
    gain = text.gain(finding.gain, finding.se)
    return f"At {setting} the gain is {gain} ({finding.outcome}, {text.count(finding.n, 'pair')})."
