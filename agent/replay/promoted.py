"""What a finished promotion wrote to promote.json, for ``overnight branch --only-held``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import text
from agent.errors import UsageError

FILE = "promote.json"  # in the folder of a promotion


@dataclass(frozen=True)
class Held:
    """The edits that are a gain at every setting of a promotion."""

    notes: Mapping[int, str]  # trial → sentence with its gains, for the message of its commit
    together: str  # what was measured of all of them at once


def held_in(runs: Path, name: str, tag: str) -> Held:
    """Read the promotion ``runs/name`` of run ``tag``.

    Raises:
        UsageError: there is none, it is of another run or not complete, or no edit held.
    """
    path = runs / name / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        complete, held, settings = data["complete"], data["held"], data["settings"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"--only-held: {path} is not the result of a promotion. Make one: overnight promote {tag} --set NAME=VALUE."
        ) from error
    if data.get("what") != tag:
        raise UsageError(f"--only-held: {path} is a promotion of {data.get('what')}, not of {tag}.")
    if not complete:
        raise UsageError(f"--only-held: {path} is not complete. Repeat its `overnight promote`: it continues.")
    if not held:
        raise UsageError(f"--only-held: no edit of {tag} held at every setting of {name}.")
    notes = {
        trial: " ".join(_gain(s, f) for s in settings for f in s["findings"] if f["trial"] == trial) for trial in held
    }
    whole = [f"{_gain(s, f)}" for s in settings for f in s["findings"] if f["edit"] == "held together"]
    whole = whole or [_gain(s, f) for s in settings for f in s["findings"] if f["edit"] == "whole branch"]
    return Held(notes, "measured together: " + " ".join(whole) if whole else "one edit holds; it was measured alone.")


def _gain(setting: Mapping[str, Any], finding: Mapping[str, Any]) -> str:
    values = ", ".join([*(f"{name}={value}" for name, value in setting["values"].items()), setting["budget"]])
    gain = text.gain(finding["gain"], finding["gain_se"])
    return f"At {values} the gain is {gain} ({finding['outcome']}, {text.count(finding['pairs'], 'pair')})."
