"""Messages of candidate and accepted commits: subject, rationale, trailers."""

from __future__ import annotations

import re
import textwrap

from agent.ledger.state import State
from agent.text import FIXED_SEED, clean
from agent.types import Record

WIDTH = 76  # characters of a body line
SUBJECT = 72  # characters of a subject
# a body line that git would read as a trailer, as the end of the message or as a patch: a space before it prevents that
_SYNTAX = re.compile(r"^(?=[^\s:=]+[ \t]*[:=]|\(cherry picked|---|diff -)", re.M)


def candidate_message(record: Record) -> str:
    """The message of an attempt. Its results are not known yet."""
    return _join(record, [("Trial", str(record.number)), ("Proposer", record.proposal.proposer)])


def accepted_message(record: Record, state: State) -> str:
    """The message of a kept edit, with its results as trailers for ``git log --format=%(trailers)``."""
    verdict, session = record.verdict, state.session
    assert verdict is not None
    reported = " (self-reported)" if session.self_reported else ""
    trailers = [
        ("Trial", str(record.number)),
        (trailer_name(session.metric), f"{_number(verdict.value)}{reported}"),
        ("Best-Before", _number(verdict.best_before)),
        ("Gain", _number(verdict.gain)),
        ("Gain-Se", _number(verdict.gain_se or None)),
        ("Noise", FIXED_SEED if verdict.gain_se == 0 else ""),
        ("Runs", str(verdict.n)),
        ("Pairs", "" if verdict.probability is None or session.policy == "stacked" else str(verdict.pairs)),
        ("Probability", "" if verdict.probability is None else f"{verdict.probability:.3f}"),
        ("Proposer", record.proposal.proposer),
        ("Source", record.proposal.source),
        ("Model", record.proposal.model),
        ("Budget", session.budget),
        ("Session", session.tag),
    ]
    return _join(record, [(name, value) for name, value in trailers if value])


def subject_line(record: Record) -> str:
    """One line of at most ``SUBJECT`` characters, without control characters."""
    text = clean(record.proposal.subject).replace("\n", " ").strip()
    text = text.lstrip("- ") if text.startswith("---") else text  # git reads "---" as the end of the message
    text = text or f"Trial {record.number}"
    return text if len(text) <= SUBJECT else text[: SUBJECT - 1].rstrip() + "…"


def trailer_name(metric: str) -> str:
    """``val_bpb`` → ``Val-Bpb``."""
    return "-".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", metric) if part) or "Value"


def wrapped(text: str) -> list[str]:
    """The paragraphs of a text, cleaned and filled to ``WIDTH``."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in clean(text).split("\n\n"))
    fill = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False).fill  # keeps addresses whole
    return [fill(paragraph) for paragraph in paragraphs if paragraph]


def _join(record: Record, trailers: list[tuple[str, str]]) -> str:
    rationale = wrapped(clean(record.proposal.rationale)[:4000])
    body = [_SYNTAX.sub(" ", part) for part in rationale]
    lines = "\n".join(f"{name}: {' '.join(clean(value).split())}" for name, value in trailers)
    return "\n\n".join([subject_line(record), *body, lines]) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
