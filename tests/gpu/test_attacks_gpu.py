"""Row 28 of the attacks, on a machine with a GPU: the GPU memory of an ended job is free again."""

from __future__ import annotations

from pathlib import Path

import pytest
from sandboxes import working

from sandbox import gpu
from sandbox.selfcheck.bench import Bench, describe
from sandbox.types import Device, Limits

pytestmark = pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="this machine has no GPU")
HOLD = """
import os, time, torch
held = torch.empty(4 << 30, dtype=torch.uint8, device="cuda")
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
os._exit(0)
"""


@pytest.mark.parametrize("name", ["bwrap", "docker"])
def test_28_gpu_memory_is_free_after_job(name: str) -> None:
    place = working(name)
    device = Device("cuda")
    before = gpu.held_gb(device)
    with Bench(place) as bench:
        outcome = bench.run(HOLD, device=device, limits=Limits(memory_gb=16.0)).outcome
    after = gpu.held_gb(device)
    assert outcome.exit_code == 0, describe(outcome)
    assert not outcome.problems
    assert before is not None
    assert after is not None
    assert after < before + gpu.SLACK_GB
