"""One GPU for a model server and for trials.

The server sleeps while a trial runs. A server without a sleep mode keeps its memory; trials get the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from agent.errors import EnvironmentProblem
from agent.llm.client import is_loopback, normal_base_url
from agent.llm.server_plan import KEPT_BACK
from agent.llm.sleeping_server import SleepingServer
from agent.settings import NEED_MODEL, Settings
from agent.target import Target
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.types import Measurement, Progress
from sandbox import gpu
from sandbox.types import Device

UNSHARED = 0.1  # a GPU with a smaller share of its memory in use has no model server on it


def shares_gpu(settings: Settings, device: Device) -> bool:
    """Whether the model server may use the GPU that trains: every server on this machine counts as using it."""
    return settings.proposer in NEED_MODEL and device.torch == "cuda" and is_loopback(settings.llm_base_url)


def find_sleeper(settings: Settings, device: Device) -> SleepingServer | None:
    """The model server if it sleeps while trials run, else None.

    ``--llm-sleep`` decides. ``on``: always; ``off``: never; ``auto``: if the server has a sleep mode and may use
    the GPU that trains.

    Raises:
        EnvironmentProblem: ``on``, and the server has no sleep mode.
    """
    required = settings.llm_sleep == "on" and settings.proposer in NEED_MODEL
    if not required and (settings.llm_sleep != "auto" or not shares_gpu(settings, device)):
        return None
    url, cache = normal_base_url(settings.llm_base_url), Path(settings.cache)
    sleeper = SleepingServer(url, cache, device, settings.on_sleep_failure == "split")
    try:
        can = sleeper.sleeping() is not None
    except OSError:
        return sleeper  # the first request to the model reports the problem with the server
    if not can and required:
        raise EnvironmentProblem(
            f"--llm-sleep on: the model server at {sleeper.root} has no sleep mode. Start it with "
            f"`overnight llm serve`, or with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1."
        )
    return sleeper if can else None


def memory_for_trials(
    target: Target, settings: Settings, device: Device, sleeper: SleepingServer | None, say: Callable[[str], None]
) -> Target:
    """The target, with ``vram_gb`` set to what a server without sleep leaves free. The server must be up."""
    memory = gpu.memory(device) if sleeper is None and shares_gpu(settings, device) else None
    if memory is None or memory.used_gb <= UNSHARED * memory.total_gb:
        return target
    limited = beside_server(target, memory)
    if limited is not target:
        say(
            f"{memory.used_gb:.1f} of the GPU's {memory.total_gb:.1f} GB are in use, and the model server does not "
            f"sleep: a trial may use {limited.vram_gb:g} GB"
        )
    return limited


def beside_server(target: Target, memory: gpu.Memory) -> Target:
    """The target, with at most the free memory of the GPU as ``vram_gb``."""
    room = int(memory.free_gb * (1 - KEPT_BACK) * 10) / 10
    enough = target.vram_gb is not None and target.vram_gb <= room
    return target if enough else dataclasses.replace(target, vram_gb=room)


@dataclasses.dataclass(eq=False)
class SharedExperiment(Experiment):
    """Runs on a GPU without other users: the model server sleeps, and no other process holds memory."""

    sleeper: SleepingServer | None = None
    _beside: bool = False  # whether vram_gb was lowered to fit beside the awake server

    def measure(self, order: Order, directory: Path, progress: Progress) -> Measurement:
        """As ``Experiment.measure``; EnvironmentProblem or SandboxBroken also if the GPU is not free."""
        if self.sleeper is not None:
            self.sleeper.asleep()
            if self.sleeper.off and not self._beside and (memory := gpu.memory(self.device)) is not None:
                self.target, self._beside = beside_server(self.target, memory), True
        gpu.check_free(self.device, self.target.vram_gb)
        run = super().measure(order, directory, progress)
        if self.sleeper is not None and order.scored is None:
            self.sleeper.check_slept()
            self.sleeper.most_gb = max(self.sleeper.most_gb, run.peak_memory_gb or 0.0)
        return run
