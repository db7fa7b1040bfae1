"""The scripted model, and the scripted server as a program."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import ROOT
from scripted import ScriptedModel

from agent.errors import ModelUnavailable
from agent.llm.chat import Chat, Reply
from agent.llm.client import ChatModel

ASK = [{"role": "user", "content": "What shall we try?"}]


def test_lines_come_in_order_until_exhausted() -> None:
    model: Chat = ScriptedModel(["one", Reply("two", model="other"), ValueError("three"), lambda m: m[0]["content"]])
    assert model.complete(ASK).text == "one"
    assert model.complete(ASK).model == "other"
    with pytest.raises(ValueError, match="three"):
        model.complete(ASK)
    assert model.complete(ASK).text == "What shall we try?"
    with pytest.raises(ModelUnavailable, match="request 5"):
        model.complete(ASK)


def test_import_loads_no_heavy_package() -> None:
    code = (
        "import sys, agent.llm, agent.proposers.code; print({'openai', 'torch', 'httpx', 'httpx2'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "set()"


def test_scripted_server_runs_as_program(tmp_path: Path) -> None:
    replies, port = tmp_path / "replies", tmp_path / "port"
    replies.mkdir()
    (replies / "01.json").write_text('{"status": 503, "retry_after": "0"}')
    (replies / "02.md").write_text("hello")
    command = [sys.executable, ROOT / "tests/support/openai_server.py", "--port-file", port, "--replies", replies]
    server = subprocess.Popen([*command, "--structured", "schema"])
    try:
        deadline = time.monotonic() + 120
        while not port.exists():
            assert time.monotonic() < deadline
            assert server.poll() is None
            time.sleep(0.02)
        model = ChatModel(f"http://127.0.0.1:{port.read_text().strip()}")
        assert model.describe().structured == {"schema"}
        reply = model.complete(ASK)
        assert (reply.text, reply.attempts) == ("hello", 2)
    finally:
        server.terminate()
        server.wait(120)
