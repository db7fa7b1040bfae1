"""Models for the tests of search methods."""

from __future__ import annotations

from agent.space import SearchSpace


class Helper:
    def __init__(self, space: SearchSpace) -> None:
        self.space = space
