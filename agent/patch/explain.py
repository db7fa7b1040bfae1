"""Messages about rejected edits. They quote the nearest lines of the file, for the repair round of the model."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Sequence

from agent.patch.disambiguate import NotPlaced
from agent.patch.locate import Source
from agent.patch.parse import FileDiff, Hunk
from agent.text import visible

_AROUND = 3  # lines before the nearest line that are quoted


def explain_no_diff(reply: str, answer: str, path: str) -> str:
    """What a reply without a diff holds instead; ``answer`` is the reply without its reasoning."""
    if not reply.strip():
        return "the reply is empty"
    if not answer.strip():
        return "the reply holds nothing outside its reasoning"
    if re.search(r"^(?:```|~~~)", answer, re.MULTILINE):
        return f"the reply holds a code block and no unified diff of {path}; send only the lines that change, as a diff"
    return f"the reply holds no unified diff of {path}"


def explain_not_placed(problem: NotPlaced, diff: FileDiff, lines: Sequence[str], number: int | None) -> str:
    """Why a hunk has no place. ``number``: of the diff, from 0; None if it is the only one."""
    hunk = diff.hunks[problem.hunk]
    which = f"hunk {problem.hunk + 1}" + (f" of diff {number + 1}" if number is not None else "")
    out = [f"{which} cannot be placed: {problem}"]
    if problem.at:
        for start in problem.at[:3]:
            out += [f"  it fits at line {start + 1}:", *_quote(lines, start, min(len(hunk.old), 4))]
        return "\n".join([*out, "  quote more of the lines around the change, so that only one place is left"])
    nearest = _nearest(hunk, lines)
    if nearest is None:
        first = next((line.text for line in hunk.old if line.text.strip()), "")
        return "\n".join([*out, f"  nothing like it is in the file: {visible(first)}"] if first else out)
    start, missing = nearest
    if missing is not None:
        out.append(f"  not in the file there: {visible(missing)}")
    start = max(0, start - 1)
    quoted = _quote(lines, start, min(len(hunk.old) + 2, 14))
    return "\n".join([*out, f"  the nearest lines of the file, from line {start + 1}:", *quoted])


def _quote(lines: Sequence[str], start: int, count: int) -> list[str]:
    return [f"{at + 1:5d}: {visible(lines[at])}" for at in range(start, min(start + count, len(lines)))]


def _nearest(hunk: Hunk, lines: Sequence[str]) -> tuple[int, str | None] | None:
    """Where most old lines of the hunk are, rare lines weighing more, and the first old line that is not there."""
    where = Source(lines).index(loose=True)[1]
    old = [line.text.strip() for line in hunk.old]
    votes: defaultdict[int, float] = defaultdict(float)
    for offset, text in enumerate(old):
        hits = where.get(text, []) if text else []
        for at in hits[:200]:
            for near, weight in ((0, 1.0), (-1, 0.5), (1, 0.5)):
                votes[at - offset + near] += weight / len(hits)
    if not votes:
        longest = max(old, key=len, default="")[:300]
        close = difflib.get_close_matches(longest, [key[:300] for key in list(where)[:3000] if key], n=1, cutoff=0.5)
        found = next((hits[0] for key, hits in where.items() if close and key[:300] == close[0]), None)
        return (max(0, found - _AROUND), longest) if found is not None else None
    start = max(votes, key=lambda start: (votes[start], -start))
    real = {line.strip() for line in lines[max(0, start) : start + len(old) + 1]}
    return max(0, start), next((text for text in old if text and text not in real), None)
