"""Models for the tests of search methods."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agent.llm.chat import Message, ModelInfo, Reply, estimate_tokens
from agent.patch.apply import unified_diff
from agent.proposers.search.prompt_tables import row
from agent.space.space import SearchSpace


class Helper:
    """A model that answers every prompt with new uniform points, determined by the request."""

    def __init__(self, space: SearchSpace, structured: Sequence[str] = ()) -> None:
        self.space = space
        self.prompts: list[str] = []
        self._info = ModelInfo("helper", 32768, "test", "", frozenset(structured))

    def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        grammar: str | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        max_tokens: int | None = None,
        n: int = 1,
    ) -> Reply:
        self.prompts.append(messages[-1]["content"])
        talk = "\n".join(message["content"] for message in messages)
        digest = hashlib.blake2b(f"{seed}{talk}".encode(), digest_size=8).digest()
        random = np.random.default_rng(int.from_bytes(digest, "big"))
        choices = tuple(self._answer(messages[0]["content"], talk, random) for _ in range(n))
        return Reply(choices[0], model="helper", choices=choices)

    def _answer(self, prompt: str, talk: str, random: np.random.Generator) -> str:
        if count := re.search(r"of the (\d+) configurations that were not measured", prompt):
            return json.dumps({"predictions": random.random(int(count[1])).round(3).tolist()})
        for _ in range(300):
            params = self.space.from_unit(random.random(self.space.dimensions))
            if row(self.space, params) not in talk:
                break
        block = re.search(r"```python\n(.*?)\n```", prompt, re.DOTALL)
        if block is None or "JSON object" in prompt:
            return json.dumps(params)
        before = block[1] + "\n"
        diff = unified_diff(before, self.space.render(before, params), self.space.path)
        return f"Rationale: why not.\n\n```diff\n{diff}```"

    def describe(self) -> ModelInfo:
        return self._info

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return estimate_tokens(messages)
