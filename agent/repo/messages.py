"""Commit messages: the night's story for people who have nothing but ``git log``."""

from __future__ import annotations

import re
import textwrap

from agent.ledger.state import State
from agent.text import plain
from agent.types import Record


def candidate_message(record: Record) -> str:
    """An attempt: what was tried and why. No results: they are not known when it is committed."""
    return _join(
        subject_line(record), _body(record), [("Trial", str(record.number)), ("Proposer", record.proposal.proposer)]
    )


def accepted_message(record: Record, state: State) -> str:
    """A kept edit: what, why, and what it brought, as trailers that ``git log --format=%(trailers)`` understands."""
    verdict, session = record.verdict, state.session
    assert verdict is not None
    metric = session.metric
    reported = " (self-reported)" if session.self_reported else ""
    trailers = [
        ("Trial", str(record.number)),
        (trailer_name(metric), f"{_number(verdict.value)}{reported}"),
        ("Best-Before", _number(verdict.best_before)),
        ("Gain", _number(verdict.gain)),
        ("Gain-Se", _number(verdict.gain_se)),
        ("Runs", str(verdict.n)),
        ("Proposer", record.proposal.proposer),
        ("Source", record.proposal.source),
        ("Model", record.proposal.model),
        ("Budget", session.budget),
        ("Session", session.tag),
    ]
    return _join(subject_line(record), _body(record), [(k, v) for k, v in trailers if v])


def subject_line(record: Record) -> str:
    """One line of at most 72 characters, without control characters."""
    text = plain(record.proposal.subject).replace("\n", " ").strip() or f"Trial {record.number}"
    return text if len(text) <= 72 else text[:71].rstrip() + "…"


def trailer_name(metric: str) -> str:
    """``val_bpb`` → ``Val-Bpb``."""
    return "-".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", metric) if part) or "Value"


def _body(record: Record) -> str:
    paragraphs = [p.strip() for p in plain(record.proposal.rationale)[:4000].split("\n\n") if p.strip()]
    filled = [textwrap.fill(" ".join(p.split()), 76) for p in paragraphs]
    # a model must not be able to write trailers of its own
    return "\n\n".join(re.sub(r"^([A-Za-z-]+):", r"\1 –", p, flags=re.M) for p in filled)


def _join(subject: str, body: str, trailers: list[tuple[str, str]]) -> str:
    lines = "\n".join(f"{name}: {' '.join(plain(value).split())}" for name, value in trailers)
    return "\n\n".join(part for part in (subject, body, lines) if part) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
