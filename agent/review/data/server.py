"""Problems of the model server that sleeps during runs. They never count against an idea."""

from __future__ import annotations

from collections.abc import Sequence

from agent import text
from agent.ledger.events import ServerProblem

ACTIONS = {
    "restarted": "it is restarted",
    "split": "it runs without sleep mode from now on",
    "waiting": "the session waits for it",
    "noted": "the session goes on",
}


def words_of_all(problems: Sequence[ServerProblem]) -> str:
    """``restarted 2 times; last problem: ...``, for at least one problem."""
    restarts = sum(problem.action == "restarted" for problem in problems)
    done = f"restarted {text.count(restarts, 'time')}; " if restarts else ""
    return f"{done}{'problem' if len(problems) == 1 else 'last problem'}: {words_of(problems[-1])}"


def words_of(event: ServerProblem) -> str:
    """The problem and what followed, on one line."""
    return text.line(f"{event.problem}; {ACTIONS.get(event.action, event.action)}", 400)
