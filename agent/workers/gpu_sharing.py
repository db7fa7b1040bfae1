"""One GPU for a model server and for trials: the server sleeps while a trial runs; one that cannot keeps its memory,
and the trials get the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.errors import EnvironmentProblem
from agent.llm.client import is_loopback, normal_base_url
from agent.llm.sleep_mode import Sleeper
from agent.settings import NEED_MODEL, Settings
from agent.target import Target
from agent.trial.experiment import Experiment
from agent.types import Failure, Measurement, Progress
from sandbox import gpu
from sandbox.types import Device

KEPT_BACK = 0.05  # of the free memory: what the driver and the trial's own CUDA context take
UNSHARED = 0.1  # a GPU of which no more is in use has no model server on it


def shares_gpu(settings: Settings, device: Device) -> bool:
    """Whether the model server may be on the GPU that trains: nobody knows, so on this machine it counts as there."""
    return settings.proposer in NEED_MODEL and device.kind == "cuda" and is_loopback(settings.llm_base_url)


def find_sleeper(settings: Settings, device: Device) -> Sleeper | None:
    """The model server, if it is to sleep while trials run. ``--llm-sleep`` decides:

    ``on``: always. ``off``: never. ``auto``: if it can, and may be on the GPU that trains.

    Raises:
        EnvironmentProblem: ``on``, and the server has no sleep mode.
    """
    if settings.llm_sleep == "off" or settings.proposer not in NEED_MODEL:
        return None
    sleeper = Sleeper(normal_base_url(settings.llm_base_url))
    if settings.llm_sleep == "auto" and not shares_gpu(settings, device):
        return None
    try:
        can = sleeper.sleeping() is not None
    except OSError:
        return sleeper  # the first question to the model says in full what is wrong with the server
    if not can and settings.llm_sleep == "on":
        raise EnvironmentProblem(
            f"--llm-sleep on: the model server at {sleeper.root} has no sleep mode. Start it with "
            f"`overnight llm serve`, or with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1."
        )
    return sleeper if can else None


def memory_for_trials(
    target: Target, settings: Settings, device: Device, sleeper: Sleeper | None, say: Callable[[str], None]
) -> Target:
    """The target with ``vram_gb`` set to what a server that stays awake leaves free; call it when that server is up."""
    if sleeper is not None or not shares_gpu(settings, device):
        return target
    memory = gpu.memory(device)
    if memory is None or memory.used_gb <= UNSHARED * memory.total_gb:
        return target
    room = int(memory.free_gb * (1 - KEPT_BACK) * 10) / 10
    if target.vram_gb is not None and target.vram_gb <= room:
        return target
    say(
        f"{memory.used_gb:.1f} of the GPU's {memory.total_gb:.1f} GB are taken, and the model server does not sleep: "
        f"a trial may use {room:g} GB"
    )
    return dataclasses.replace(target, vram_gb=room)


class SharedExperiment(Experiment):
    """Runs on a GPU that is theirs alone: the model server sleeps, and nobody else holds its memory."""

    def __init__(self, *given: Any, sleeper: Sleeper | None = None, **named: Any) -> None:
        super().__init__(*given, **named)
        self.sleeper = sleeper

    def measure(self, *given: Any, **named: Any) -> Measurement:
        self._clear()
        run = super().measure(*given, **named)
        if self.sleeper is not None:
            self.sleeper.check_slept()
        return run

    def score_test(self, commit: str, directory: Path, progress: Progress) -> tuple[float | None, Failure | None]:
        self._clear()
        return super().score_test(commit, directory, progress)

    def _hardware(self) -> dict[str, str]:
        """Also the memory that a trial may use: a harness that knows the variable keeps to it."""
        limit = self.target.vram_gb
        bound = {} if limit is None or self.device.kind != "cuda" else {"OVERNIGHT_VRAM_GB": f"{limit:g}"}
        return {**super()._hardware(), **bound}

    def _clear(self) -> None:
        """Raises EnvironmentProblem or SandboxBroken: the GPU is not free, and no trial is to blame."""
        if self.sleeper is not None:
            self.sleeper.asleep()
        gpu.check_free(self.device, self.target.vram_gb)
