"""Checks repository, sandbox, device and data of a session before anything is written."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

from agent.errors import EnvironmentProblem, UsageError
from agent.llm.sleeping_server import SleepingServer
from agent.repo.git import scrub_environment
from agent.repo.repo import Repo
from agent.settings import EDIT_CODE, Settings
from agent.target import Target, load_target, parse_budget
from agent.trial.experiment import COMPILED, Experiment, interpreter_of
from agent.trial.mounts import check_mounts
from agent.trial.trusted_target import Data, prepare
from agent.trust import is_trusted
from agent.workers.gpu_sharing import SharedExperiment
from agent.workers.local import LocalWorkers, Workers
from sandbox import NAMES, make_sandbox, missing
from sandbox.gpu import devices, has_apple_gpu
from sandbox.processor import processors
from sandbox.types import Device, Sandbox, SandboxUnavailable

REACH = {"rocm": ("docker", "process"), "mps": ("process",)}  # sandboxes whose jobs reach a GPU; others: all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workplace:
    """Everything that a run needs, checked; nothing has been written yet."""

    settings: Settings
    target: Target
    repo: Repo
    sandbox: Sandbox
    device: Device
    prepared: Data | None = None
    sleeper: SleepingServer | None = None  # the model server that sleeps during runs

    @property
    def data_hash(self) -> str:
        """Hash of the prepared data; "" for a target that prepares its own."""
        return self.prepared.hash if self.prepared else ""

    def caution(self, say: Callable[[str], None]) -> None:
        """Print what the user must know before anything starts."""
        if lacking := lacks(self.sandbox):
            say(f"sandbox {self.sandbox.name} does not guarantee: {lacking}")

    def experiments(self, owner: str, stop_now: Callable[[], bool], workers: int) -> list[Experiment]:
        """Experiments that measure at the same time, each on its own GPU. Errors: see ``find_workers``.

        What earlier processes of this owner left in the sandbox is removed.
        """
        devices = self._devices(workers)
        if self.sleeper is not None:
            if workers > 1:
                raise UsageError(
                    f"--workers {workers}: the model server would wake up while another trial runs. Give the server "
                    f"its own GPU and add --llm-sleep off, or leave --workers out."
                )
            self.sleeper.stop = stop_now
        self.sandbox.sweep(owner)
        return [  # a Repo is not thread-safe
            SharedExperiment(
                Repo(self.target.folder).tree,
                self.target,
                self.sandbox,
                device,
                owner,
                self.prepared,
                stop_now,
                Path(owner) / COMPILED.name,
                sleeper=self.sleeper,
            )
            for device in devices
        ]

    def check_beside(self, workers: int) -> None:
        """Raise ``UsageError`` if runs at the same time on this machine would influence each other's values."""
        if workers < 1:
            raise UsageError(f"--workers {workers}: must be at least 1.")
        if workers > 1 and self.device.kind == "cpu" and self.target.budget.kind == "seconds":
            raise UsageError(
                f"--workers {workers}: runs at the same time share the processor, and the budget is "
                f"{self.target.budget}. Use a budget that counts work (--budget 200steps), or leave --workers out."
            )

    def _devices(self, workers: int) -> list[Device]:
        self.check_beside(workers)
        if workers == 1 or self.device.kind == "cpu":
            return [self.device] * workers
        others = [found for found in devices() if found.kind == self.device.kind and found.uuid != self.device.uuid]
        if len(others) + 1 < workers:
            raise UsageError(f"--workers {workers}: each needs its own GPU; this machine has {len(others) + 1}.")
        more = (dataclasses.replace(found, threads=self.device.threads) for found in others[: workers - 1])
        return [self.device, *more]


def workplace(settings: Settings, say: Callable[[str], None]) -> Workplace:
    """``checked_place`` with its data, whose preparation may take minutes. Errors: see there."""
    place = checked_place(settings)
    return dataclasses.replace(place, prepared=prepare(place.target, settings.cache, say))


def checked_place(settings: Settings) -> Workplace:
    """Check the target, the repository, the device and the sandbox, in this order.

    Raises:
        UsageError, EnvironmentProblem: a check failed.
    """
    folder = Path(settings.target)
    target, chosen = load_target(folder)
    check_mounts(target)
    if settings.budget:
        target = dataclasses.replace(target, budget=parse_budget(settings.budget, target.budget))
    target = with_python(target, settings.python)
    scrub_environment()
    repo = Repo(folder)
    if repo.has(head := repo.head(), target.path):  # a replay may measure another branch only
        check_utf8(repo.read(head, target.path), target.path)
    device = find_device(settings)
    # an untrusted target may choose a method without edits of code, to get a weaker sandbox
    unasked = chosen.get("proposer") == settings.proposer and not is_trusted(folder)
    needs_all = unasked or settings.proposer in EDIT_CODE
    sandbox = find_sandbox(settings, needs_all, own_python=bool(target.python))
    if sandbox.name not in (able := REACH.get(device.kind, NAMES)):
        raise EnvironmentProblem(
            f"--device {device.kind}: jobs in the sandbox {sandbox.name} cannot use this GPU. Use --sandbox "
            f"{' or '.join(able)}, or --device cpu."
        )
    return Workplace(settings=settings, target=target, repo=repo, sandbox=sandbox, device=device)


def find_workers(place: Workplace, owner: str, stop_now: Callable[[], bool]) -> Workers:
    """Workers on the Ray cluster of ``--ray-address``, or on this machine.

    Args:
        owner: path of the run directory; it marks the temporary files and processes of the runs.
        stop_now: whether the user wants the running trials to end now.

    Raises:
        UsageError: more workers than devices.
        EnvironmentProblem: the cluster does not answer.
    """
    settings = place.settings
    if not settings.ray_address:
        return LocalWorkers(lambda stop: place.experiments(owner, stop, settings.workers), stop_now)
    if place.sleeper is not None:
        raise UsageError(
            "--ray-address: the model server would sleep while trials run on other machines. Add --llm-sleep off."
        )
    if settings.ray_address == "local":  # Ray on this machine does not reserve cores
        place.check_beside(settings.workers)
    from agent.workers.ray import RayWorkers

    return RayWorkers(settings.ray_address, settings.workers, place, owner, stop_now)


def with_python(target: Target, named: str) -> Target:
    """The target with the interpreter that ``--python`` names.

    Raises:
        UsageError: this or the interpreter of target.toml does not start.
    """
    if named:
        target = dataclasses.replace(target, python=os.path.abspath(Path(named).expanduser()))  # noqa: PTH100
    try:
        interpreter_of(target)
    except EnvironmentProblem as error:
        where = "--python" if named else f"{target.folder / 'target.toml'}, [target], python"
        raise UsageError(f"{where}: {error}") from None
    return target


def check_utf8(source: str, path: str) -> None:
    """Raise ``UsageError`` for a source with bytes that are not UTF-8 (surrogate escapes in ``source``)."""
    if foreign := re.search(r"[\udc80-\udcff]", source):
        cookie = re.search(r"coding[:=]\s*([-\w.]+)", "\n".join(source.split("\n")[:2]))
        declared, encoding = (f" (the file declares {cookie[1]})", cookie[1]) if cookie else ("", "ENCODING")
        raise UsageError(
            f"{path}:{source.count(chr(10), 0, foreign.start()) + 1}: byte 0x{ord(foreign[0]) - 0xDC00:02x} is not "
            f"UTF-8{declared}. Convert it and commit: iconv -f {encoding} -t utf-8 {path}"
            + (", and remove its coding line." if cookie else ".")
        )
    if "\0" in source:
        raise UsageError(f"{path} holds null bytes: it is binary or UTF-16. Convert it to UTF-8 and commit.")
    if "\r" in source and "\n" not in source:
        raise UsageError(f"{path} ends its lines with carriage returns alone. Convert them to line feeds and commit.")


def find_sandbox(settings: Settings, needs_all: bool, own_python: bool = False) -> Sandbox:
    """The sandbox that the settings name.

    Args:
        settings: of the session.
        needs_all: whether to require all guarantees unless the sandbox is named explicitly.
        own_python: whether trials use an interpreter of the host, which Docker does not show.
    """
    named = "bwrap" if own_python and settings.sandbox == "auto" else settings.sandbox
    if own_python and named == "docker":
        raise UsageError(
            "--python, or python in target.toml: Docker runs the interpreter of its image. Use --sandbox bwrap, or "
            "remove the setting and install the packages in the image (--image)."
        )
    try:
        sandbox = make_sandbox(named, image=settings.image)
        sandbox.check()
    except SandboxUnavailable as error:
        if settings.sandbox != "auto" or needs_all:
            raise EnvironmentProblem(str(error)) from None
        sandbox = make_sandbox("process")  # enough for methods that change numbers only
        sandbox.check()
    if (lacking := lacks(sandbox)) and needs_all and settings.sandbox != sandbox.name:
        raise EnvironmentProblem(
            f"the sandbox {sandbox.name} does not guarantee: {lacking}. Unreviewed code needs that: use --sandbox "
            f"docker or bwrap, or accept the risk with --sandbox {sandbox.name}."
        )
    return sandbox


def lacks(sandbox: Sandbox) -> str:
    """The guarantees that a sandbox does not give; "" if it gives all."""
    return "; ".join(guarantee.value for guarantee in missing(sandbox))


def find_device(settings: Settings) -> Device:
    """One GPU, or the CPU. ``auto``: the first GPU of NVIDIA or AMD, else the CPU.

    Raises:
        UsageError: a device that Ray cannot give.
        EnvironmentProblem: this machine does not have the device.
    """
    threads, wanted = settings.threads or processors(), settings.device
    if wanted == "cpu":
        return Device("cpu", threads=threads)
    if settings.ray_address and wanted != "auto":  # this machine may have no GPU
        if wanted != "cuda":
            raise UsageError(f"--device {wanted}: with --ray-address Ray picks the GPUs. Use --device cuda.")
        return Device("cuda", threads=settings.threads)
    if wanted == "mps":
        if not has_apple_gpu():
            raise EnvironmentProblem("--device mps: this is no Mac with Apple silicon. Use --device cpu.")
        return Device("mps", threads=threads, model="Apple GPU")
    found = [device for device in devices() if device.kind == "cuda" or not settings.ray_address]
    fitting = [device for device in found if wanted in ("auto", device.kind, device.uuid)]
    if fitting:
        return dataclasses.replace(fitting[0], threads=threads)
    if wanted == "auto":
        return Device("cpu", threads=threads)
    if tool := {"cuda": "nvidia-smi", "rocm": "amd-smi"}.get(wanted):
        raise EnvironmentProblem(f"--device {wanted}: {tool} lists no GPU. Use --device cpu, or repair the driver.")
    known = ", ".join(device.uuid for device in found)
    raise EnvironmentProblem(f"--device {wanted}: no such GPU. Found: {known or 'none'}.")
