"""Reads the header of a reply: category, subject, rationale and idea before the edit."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from contextlib import suppress
from typing import NamedTuple

from agent.errors import PatchRejected
from agent.llm.prompts import one_line
from agent.patch.reasoning import strip_reasoning

SUBJECT_LIMIT = 72  # characters, as usual for git
RATIONALE_LIMIT = 1000

_FIELDS = {  # word before a colon: field
    "category": "category", "kind": "category", "type": "category", "idea": "idea",
    "subject": "subject", "title": "subject", "summary": "subject", "change": "subject",
    "rationale": "rationale", "reason": "rationale", "reasoning": "rationale", "why": "rationale",
    "hypothesis": "rationale", "motivation": "rationale", "explanation": "rationale",
}  # fmt: skip
_FIELD = re.compile(rf"^[\s>*_#\d.-]*(?P<name>{'|'.join(_FIELDS)})\b[*_`\s]*[:：][*_`\s]*(?P<text>.*)$", re.IGNORECASE)
_DIFF = re.compile(r"^\s*(?:`{3}|~{3}|--- |diff --git |@@|\*\*\* |Index: |<{5,9} ?SEARCH)")
_SMALL_TALK = re.compile(
    r"^(?:sure|okay|ok|certainly|of course|here(?:'s| is| are)|let(?:'s| me| us)|i(?:'ll| will))\b", re.IGNORECASE
)
_WORDS = (  # the first word in the text decides
    ("combin", "combination"), ("simpl", "simplification"), ("schedul", "schedule"), ("warmup", "schedule"),
    ("warm-up", "schedule"), ("cooldown", "schedule"), ("optim", "optimiser"), ("learning rate", "optimiser"),
    ("regulari", "regularisation"), ("dropout", "regularisation"), ("weight decay", "regularisation"),
    ("batch", "batch and data"), ("data", "batch and data"), ("effic", "efficiency"), ("speed", "efficiency"),
    ("throughput", "efficiency"), ("architect", "architecture"), ("model", "architecture"),
    ("attention", "architecture"), ("hyperparam", "optimiser"),
)  # fmt: skip


class Header(NamedTuple):
    category: str = ""
    subject: str = ""
    rationale: str = ""
    idea: str = ""  # of the bank, as the model wrote it


def read_header(reply: str) -> Header:
    """The header of a reply; a missing field is "". Never raises."""
    try:
        text = strip_reasoning(reply)
    except PatchRejected:
        return Header()
    with suppress(ValueError, AttributeError, RecursionError):  # no JSON object
        data = json.loads(text)
        return _header(*(str(data.get(name) or "") for name in Header._fields))
    fields: defaultdict[str, list[str]] = defaultdict(list)  # "": lines outside of fields
    current = ""
    for line in text.split("\n"):
        if _DIFF.match(line):
            break
        if match := _FIELD.match(line):
            current = _FIELDS[match["name"].lower()]
            fields[current].append(match["text"])
        elif line.strip():
            fields[current].append(line)
        else:
            current = ""
    prose = [line for line in fields.pop("", ()) if not _SMALL_TALK.match(line.strip(" *_#>"))]
    found = {name: " ".join(lines) for name, lines in fields.items()}
    subject = found.get("subject", found.get("idea", ""))
    if not subject and prose:
        subject = prose.pop(0)
    rationale = found.get("rationale", " ".join(prose))
    return _header(found.get("category", ""), subject, rationale, found.get("idea", ""))


def _header(category: str, subject: str, rationale: str, idea: str) -> Header:
    subject = one_line(subject, 4 * SUBJECT_LIMIT).strip(" *_#>-")
    if len(subject) > 2 and subject[0] == subject[-1] and subject[0] in "\"'`":
        subject = subject[1:-1]
    if len(subject) > SUBJECT_LIMIT:
        subject = subject[: SUBJECT_LIMIT - 1].rsplit(" ", 1)[0] + "…"
    rationale = one_line(rationale, RATIONALE_LIMIT).strip(" *_")
    words = category.lower().replace("normali", "architecture normali")
    known = next((name for word, name in _WORDS if word in words), "other" if words.strip() else "")
    return Header(known, subject, rationale, one_line(idea).strip(" *_`\"'"))
