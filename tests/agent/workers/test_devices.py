"""Devices: the CPU, the GPUs of this machine, and those of a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sandboxes import working
from targets import make_bowl

from agent.errors import EnvironmentProblem, UsageError
from agent.settings import Settings, make_settings
from agent.workers import runtime
from agent.workers.runtime import checked_place, find_device
from sandbox import gpu
from sandbox.types import Device

AMD = Device("rocm", "c2ff74a0", model="MI300X", number="1")


def test_find_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device(make_settings({"device": "cpu", "threads": 3}, None)).threads == 3
    here = [Device("cuda", "GPU-a", model="H200"), Device("cuda", "GPU-b", model="A100"), AMD]
    monkeypatch.setattr(runtime, "devices", lambda: here)
    assert find_device(Settings(device="auto")).uuid == "GPU-a"
    assert find_device(Settings(device="GPU-b")).uuid == "GPU-b"
    assert find_device(Settings(device="rocm", threads=2)) == replace(AMD, threads=2)
    with pytest.raises(EnvironmentProblem, match="GPU-c"):
        find_device(Settings(device="GPU-c"))
    here[:] = [AMD]
    assert find_device(Settings(device="auto")).kind == "rocm"
    assert find_device(Settings(device="auto", ray_address="head:6379")).kind == "cpu", "Ray reserves no AMD GPU"
    with pytest.raises(EnvironmentProblem, match="nvidia-smi"):
        find_device(Settings(device="cuda"))
    here.clear()
    assert find_device(Settings(device="auto")).kind == "cpu"
    with pytest.raises(EnvironmentProblem, match="amd-smi"):
        find_device(Settings(device="rocm"))
    far = find_device(Settings(device="cuda", ray_address="head:6379"))
    assert (far.kind, far.uuid) == ("cuda", ""), "Ray picks the GPUs on its nodes"
    with pytest.raises(UsageError, match="Ray"):
        find_device(Settings(device="GPU-b", ray_address="head:6379"))


@pytest.mark.parametrize("device", [AMD, Device("mps")])
def test_sandbox_that_hides_the_gpu_is_refused(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    working("bwrap")
    monkeypatch.setattr(runtime, "find_device", lambda _settings: device)
    settings = Settings(target=str(make_bowl(tmp_path / "bowl")), proposer="random", device=device.kind)
    with pytest.raises(EnvironmentProblem, match=f"--device {device.kind}: .* Use --sandbox .*process"):
        checked_place(replace(settings, sandbox="bwrap"))
    assert checked_place(replace(settings, sandbox="process")).device == device


def test_gpu_of_a_mac_is_found_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentProblem, match="Apple silicon"):
        find_device(Settings(device="mps"))
    monkeypatch.setattr(gpu.sys, "platform", "darwin")
    monkeypatch.setattr(gpu.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(runtime, "devices", list)
    assert find_device(Settings(device="mps")).torch == "mps"
    assert find_device(Settings(device="auto")).kind == "cpu", "untried, so on request only"
