"""What a model is shown of the failure of its edit before training."""

from __future__ import annotations

import re

from agent.llm.prompts import block, fence, fill, one_line
from agent.patch.apply import apply_reply
from agent.proposers.code.history import training
from agent.proposers.protocol import Context
from agent.types import Proposal, Record

LOG_LIMIT = 3000  # characters
FRAMES, AROUND = 3, 3  # of the edited file; lines shown on either side of each
_TRACEBACK = "Traceback (most recent call last):"


def failure_remark(context: Context, failed: Record) -> str:
    """The request to repair the edit of ``failed``: reason, memory, traceback and the source lines around it."""
    run = failed.runs[-1]
    log = clean_traceback(run.log_tail, context.path)
    edited = apply_reply(context.source, failed.proposal.diff, context.path)
    lines = lines_around(log, edited, context.path)
    machine = f"\n{training(run, None)} The machine: {context.hardware}." if run.status == "oom" else ""
    return fill(
        "crash",
        path=context.path,
        reason=block(one_line(f"{run.status}: {run.reason}", 500) + machine, "text"),
        log=f"The end of its output:\n\n{fence(log, LOG_LIMIT)}" if log else "",
        lines=f"Lines of your edited file, by number:\n\n{block(lines, 'text')}" if lines else "",
    )


def as_reply(proposal: Proposal) -> str:
    """The reply that a proposal stands for, in the requested form."""
    head = f"Category: {proposal.category}\nSubject: {proposal.subject}\nRationale: {proposal.rationale}"
    return f"{head}\n\n{block(proposal.diff, 'diff')}"


def clean_traceback(log: str, path: str) -> str:
    """The last traceback of a log, or the whole log without one; without events and without folders of the sandbox."""
    log = "\n".join(line for line in log.splitlines() if not line.startswith('{"event"'))
    start = log.rfind(_TRACEBACK)
    return re.sub(rf'File "[^"\n]*/{re.escape(path)}"', f'File "{path}"', log[max(start, 0) :]).strip()


def lines_around(log: str, source: str, path: str) -> str:
    """The lines of the edited file that the last frames of a traceback name, marked, with their neighbours."""
    named = [int(number) for number in re.findall(rf'File "{re.escape(path)}", line (\d{{1,7}})', log)]
    marked = set(named[-FRAMES:])
    lines, parts, before = source.splitlines(), [], 0
    for number, line in enumerate(lines, start=1):
        if any(abs(number - mark) <= AROUND for mark in marked):
            parts += ["..."] if before and number > before + 1 else []
            parts.append(f"{'>' if number in marked else ' '}{number:>5}  {line}")
            before = number
    return "\n".join(parts)
