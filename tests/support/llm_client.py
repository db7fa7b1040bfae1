"""A client of the scripted model server, for its tests."""

from __future__ import annotations

import random
from typing import Any

import pytest
from budgets import REQUEST_SECONDS
from openai_server import Answer, OpenAIServer
from ports import dead_port

from agent.llm.api_keys import KEY_VARIABLES
from agent.llm.client import ChatModel
from agent.llm.retries import Retries

ASK = [{"role": "user", "content": "What shall we try?"}]
KEY = "sk-secret-0123456789"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEY_VARIABLES, "OPENAI_BASE_URL", "OPENAI_LOG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Clock:
    """Time that passes only while the client sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def client(server: OpenAIServer | str, clock: Clock | None = None, **options: Any) -> ChatModel:
    clock = clock or Clock()
    url = server if isinstance(server, str) else server.base_url
    options = {"model": "tiny", "timeout": REQUEST_SECONDS} | options
    most = options.pop("max_attempts", Retries.max_attempts)
    return ChatModel(url, retries=Retries(most, clock.sleep, lambda: clock.now, random.Random(1)), **options)


def dead_address() -> str:
    return f"http://127.0.0.1:{dead_port()}/v1"


def refused(status: int, body: str) -> Answer:
    return Answer(status=status, raw=body)
