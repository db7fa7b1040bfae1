"""Devices: the CPU, the GPUs of this machine, and those of a cluster."""

from __future__ import annotations

import pytest

from agent.errors import EnvironmentProblem, UsageError
from agent.settings import Settings, make_settings
from agent.workers import runtime
from agent.workers.runtime import find_device


def test_find_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device(make_settings({"device": "cpu", "threads": 3}, None)).threads == 3
    monkeypatch.setattr(runtime, "gpus", lambda: {"GPU-a": "H200", "GPU-b": "A100"})
    assert find_device(Settings(device="auto")).uuid == "GPU-a"
    assert find_device(Settings(device="GPU-b")).uuid == "GPU-b"
    monkeypatch.setattr(runtime, "gpus", dict)
    with pytest.raises(EnvironmentProblem, match="nvidia-smi"):
        find_device(Settings(device="cuda"))
    far = find_device(Settings(device="cuda", ray_address="head:6379"))
    assert (far.kind, far.uuid) == ("cuda", ""), "Ray picks the GPUs on its nodes"
    with pytest.raises(UsageError, match="Ray"):
        find_device(Settings(device="GPU-b", ray_address="head:6379"))
