"""Where commits of a target run: repository, sandbox, device and data, checked before anything is made."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import EnvironmentProblem, UsageError
from agent.llm.sleep_mode import Sleeper
from agent.repo.repo import Repo, scrub_environment
from agent.settings import Settings
from agent.target import Target, load_target, parse_budget
from agent.trial.compile_cache import FILE, Compiled
from agent.trial.experiment import Experiment
from agent.trial.mounts import check_mounts
from agent.trial.workspace import sweep
from agent.workers.gpu_sharing import SharedExperiment
from sandbox import make_sandbox, missing, protects
from sandbox.gpu import gpus
from sandbox.types import Device, Sandbox, SandboxUnavailable

if TYPE_CHECKING:
    from nanogpt_target.prepare import Prepared


@dataclasses.dataclass(frozen=True)
class Workplace:
    """Where commits of a target are run, checked and ready; nothing has been written yet."""

    settings: Settings
    target: Target
    repo: Repo
    sandbox: Sandbox
    device: Device
    prepared: Prepared | None

    @property
    def sleeper(self) -> Sleeper | None:
        """The model server that sleeps while a commit runs; None where no model has a part in it."""
        return None

    def experiments(self, owner: str, stop_now: Callable[[], bool], workers: int) -> list[Experiment]:
        """As many that can measure at the same time, each with a GPU of its own.

        ``owner`` is the path of the run directory. What an earlier process left there in the sandbox is swept away.

        Raises:
            UsageError: they would measure each other.
        """
        devices = self._devices(workers)
        if self.sleeper is not None and workers > 1:
            raise UsageError(
                f"--workers {workers}: the model server would wake up for one trial beside another. Put it on a GPU of "
                f"its own and add --llm-sleep off, or leave --workers out."
            )
        self.sandbox.sweep(owner)
        sweep(owner)
        return [  # a Repo for each: they work in threads of their own, and it talks to one git process
            SharedExperiment(
                Repo(self.target.folder),
                self.target,
                self.sandbox,
                device,
                owner,
                self.prepared,
                stop_now,
                Compiled(Path(owner) / FILE.name),
                sleeper=self.sleeper,
            )
            for device in devices
        ]

    def check_beside(self, workers: int) -> None:
        """Raises UsageError where runs on this machine beside each other would measure each other."""
        if workers > 1 and self.device.kind == "cpu" and self.target.budget.kind == "seconds":
            raise UsageError(
                f"--workers {workers}: runs beside each other take each other's processor, and the budget is "
                f"{self.target.budget}. Give one that counts work (--budget 200steps), or leave --workers out."
            )

    def _devices(self, workers: int) -> list[Device]:
        if workers < 1:
            raise UsageError(f"--workers {workers}: must be at least 1.")
        self.check_beside(workers)
        if workers == 1 or self.device.kind == "cpu":
            return [self.device] * workers
        others = {uuid: model for uuid, model in gpus().items() if uuid != self.device.uuid}
        if len(others) + 1 < workers:
            raise UsageError(f"--workers {workers}: each needs a GPU of its own, and there are {len(others) + 1}.")
        named = list(others.items())[: workers - 1]
        more = (dataclasses.replace(self.device, uuid=uuid, model=model) for uuid, model in named)
        return [self.device, *more]


def workplace(settings: Settings, say: Callable[[str], None]) -> Workplace:
    """Check the target, the repository, the sandbox and the data, in this order.

    Raises:
        UsageError, EnvironmentProblem: what is wrong, where, and what to do.
    """
    folder = Path(settings.target)
    target, _ = load_target(folder)
    check_mounts(target)
    if settings.budget:
        target = dataclasses.replace(target, budget=parse_budget(settings.budget, target.budget))
    scrub_environment()
    repo = Repo(folder)
    device = find_device(settings)
    sandbox = find_sandbox(settings, say)
    return Workplace(settings, target, repo, sandbox, device, prepare_data(settings, target, say))


def find_sandbox(settings: Settings, say: Callable[[str], None]) -> Sandbox:
    """The sandbox that was named; code that a model wrote is refused where nothing protects the machine from it."""
    try:
        sandbox = make_sandbox(settings.sandbox, image=settings.image)
        sandbox.check()
    except SandboxUnavailable as error:
        if settings.sandbox != "auto" or settings.proposer == "code":
            raise EnvironmentProblem(str(error)) from None
        sandbox = make_sandbox("process")  # methods that change nothing but numbers may do without
        sandbox.check()
    if not protects(sandbox):
        lacking = "; ".join(g.value for g in missing(sandbox))
        if settings.proposer == "code" and settings.sandbox != sandbox.name:
            raise EnvironmentProblem(
                f"the sandbox {sandbox.name} does not promise: {lacking}. Edits to code need more: use --sandbox "
                f"docker or bwrap, or name --sandbox {sandbox.name} if this machine may be harmed."
            )
        say(f"sandbox {sandbox.name} does not promise: {lacking}")
    return sandbox


def find_device(settings: Settings) -> Device:
    """One GPU by its UUID, or the CPU."""
    threads = settings.threads or len(os.sched_getaffinity(0))
    if settings.device == "cpu":
        return Device("cpu", threads=threads)
    if settings.ray_address and settings.device != "auto":  # this machine need not have any
        if settings.device != "cuda":
            raise UsageError(f"--device {settings.device}: with --ray-address Ray picks the GPUs. Use --device cuda.")
        return Device("cuda", threads=settings.threads)
    found = gpus()
    if settings.device in ("auto", "cuda"):
        if found:
            uuid, model = next(iter(found.items()))
            return Device("cuda", uuid, threads, model)
        if settings.device == "cuda":
            raise EnvironmentProblem("--device cuda: nvidia-smi lists no GPU. Use --device cpu, or mend the driver.")
        return Device("cpu", threads=threads)
    if settings.device not in found:
        raise EnvironmentProblem(f"--device {settings.device}: no such GPU. There are: {', '.join(found) or 'none'}.")
    return Device("cuda", settings.device, threads, found[settings.device])


def prepare_data(settings: Settings, target: Target, say: Callable[[str], None]) -> Prepared | None:
    if target.score != "trusted":
        return None
    from nanogpt_target.prepare import DataError, prepare

    try:
        return prepare(target.data, Path(settings.cache).expanduser() / "data", progress=say)
    except DataError as error:
        raise UsageError(f"{target.folder / 'target.toml'}, [data]: {error}") from None
    except OSError as error:
        raise EnvironmentProblem(f"cannot prepare the data in {settings.cache}: {error.strerror or error}.") from None
