"""Problems of the model server that sleeps during runs. They never count against an idea."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent import text
from agent.ledger.events import ServerProblem

ACTIONS = {
    "restarted": "it is restarted",
    "split": "it runs without sleep mode from now on",
    "waiting": "the session waits for it",
    "noted": "the session goes on",
}


@dataclass(frozen=True)
class ServerHealth:
    """The problems of the model server in a session."""

    restarts: int
    split: bool  # whether it runs without sleep mode since a problem
    problems: tuple[ServerProblem, ...]

    @property
    def words(self) -> str:
        """``restarted 2 times; last problem: ...``."""
        done = f"restarted {text.count(self.restarts, 'time')}; " if self.restarts else ""
        return f"{done}{'problem' if len(self.problems) == 1 else 'last problem'}: {words_of(self.problems[-1])}"


def server_health(problems: Sequence[ServerProblem]) -> ServerHealth | None:
    if not problems:
        return None
    actions = [problem.action for problem in problems]
    return ServerHealth(actions.count("restarted"), "split" in actions, tuple(problems))


def words_of(event: ServerProblem) -> str:
    """The problem and what followed, on one line."""
    return text.line(f"{event.problem}; {ACTIONS.get(event.action, event.action)}", 400)
