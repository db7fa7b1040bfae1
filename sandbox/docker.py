"""A container per job, made by a Docker engine.

Covers: everything that ``Guarantee`` lists. The job is an ordinary user without capabilities, and cannot gain any; it
may make only the system calls of seccomp.json; it has no network, a read-only root, and memory, processes and
processor time bounded by control groups; what it writes stays in memory, bounded, and goes with the container; of GPUs
it sees the one it was given. Process 1 (init.py) ends with the session's connection, so that nothing outlives a killed
session. Does not cover: errors of the kernel, and of the GPU's driver.

The limit of memory includes what the job has written: /tmp, {out} and shared memory are of the same memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import gpu, layout
from sandbox.container import OUT, ContainerRunning
from sandbox.layout import GB, INSIDE
from sandbox.types import Guarantee, Job, Limits, Mount, Running, SandboxBroken, SandboxUnavailable

if TYPE_CHECKING:
    from docker import APIClient

_HERE = Path(__file__).parent
_INODES = 200_000  # of /tmp and of {out} each: names use memory, too
# What Docker hides by itself, and would show if only ours were named.
_ALWAYS_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
_FIND_MASKED = """
import glob, os, sys, sysconfig
places = {os.path.realpath(p) for p in
          [sysconfig.get_path("stdlib"), *glob.glob("/usr/lib*/python3*"), *glob.glob("/usr/local/lib*/python3*")]}
found = []
for place in sorted(places):
    for name in sys.argv[1:]:
        path = os.path.join(place, name)
        if os.path.isdir(path):
            found.append(path)
        elif os.path.isfile(path):
            folder, file = os.path.split(path)
            found += [path, *glob.glob(os.path.join(folder, "__pycache__", os.path.splitext(file)[0] + ".*.pyc"))]
for path in found:
    print(path)
"""
_TRY = """
import os
print(open(os.environ["PLACE"] + "/token").read())
try:
    import numpy, safetensors, torch
except ImportError as error:
    print(error)
"""


class DockerSandbox:
    """Needs a Docker engine on this machine, and the image of this project."""

    name = "docker"

    def __init__(self, image: str) -> None:
        self.image = image
        self._masks: dict[tuple[str, ...], list[str]] = {}

    @cached_property
    def guarantees(self) -> frozenset[Guarantee]:
        """All, less what this engine's kernel cannot limit; nothing where no engine answers."""
        try:
            facts = self._api.info()
        except Exception:
            return frozenset()
        held = set(Guarantee)
        if not facts.get("MemoryLimit"):
            held.discard(Guarantee.LIMITS_MEMORY)
        if not facts.get("PidsLimit"):
            held.discard(Guarantee.LIMITS_PROCESSES)
        return frozenset(held)

    def check(self) -> None:
        try:
            import docker
        except ImportError:
            raise SandboxUnavailable(
                "the Python package docker is not installed. pip install 'overnight[docker]'"
            ) from None
        try:
            self._api.inspect_image(self.image)
        except docker.errors.ImageNotFound:
            raise SandboxUnavailable(
                f"there is no image {self.image}. In a checkout of this project: docker build -t {self.image} ."
            ) from None
        except Exception as error:
            raise SandboxUnavailable(
                f"no Docker engine answers ({_short(error)}). Start it (systemctl start docker), "
                "and let your user reach it (usermod -aG docker $USER)."
            ) from error
        try:
            self._try()
        except SandboxBroken as error:
            raise SandboxUnavailable(f"a container does not run here ({error}). See docker info.") from error

    def start(self, job: Job) -> Running:
        layout.check_job(job)
        return self._start(job, self._masked(job.masked))

    def sweep(self, owner: str) -> int:
        wanted = {"label": [f"overnight.owner={layout.label(owner)}", f"overnight.host={layout.host()}"]}
        removed = 0
        try:
            for container in self._api.containers(all=True, filters=wanted):
                if not layout.alive(container["Labels"].get("overnight.process", "")):
                    self._api.remove_container(container["Id"], v=True, force=True)
                    removed += 1
            for volume in self._api.volumes(filters={**wanted, "dangling": True})["Volumes"] or ():
                if not layout.alive(volume["Labels"].get("overnight.process", "")):
                    self._api.remove_volume(volume["Name"])
                    removed += 1
        except Exception as error:
            if self.guarantees:
                raise SandboxBroken(f"what a dead session left could not be removed: {_short(error)}") from error
        return removed

    @cached_property
    def _api(self) -> APIClient:
        import docker

        return docker.from_env(timeout=120).api

    def _try(self) -> None:
        """Run a container with a mount of this machine and what a trial imports."""
        with tempfile.TemporaryDirectory(prefix="overnight-") as folder:
            Path(folder).chmod(0o755)
            (Path(folder) / "token").write_text(folder)
            job = Job(("{python}", "-c", _TRY), {"code": Mount(Path(folder))}, "code", {"PLACE": "{code}"})
            lines = self._run(job)
        if not lines or lines[0] != folder:
            raise SandboxBroken("the engine does not see this machine's files: it must run on this machine")
        if lines[1:]:
            raise SandboxBroken(f"{self.image} cannot train: {lines[1]}")

    def _run(self, job: Job) -> list[str]:
        """What a program of ours prints in the image."""
        lines: list[str] = []
        running = self._start(job, [])
        while (more := running.read(timeout=60)) is not None:
            lines += more
        outcome = running.finish()
        if outcome.exit_code != 0:
            raise SandboxBroken(f"{self.image} has no Python that works: {outcome.log_tail.strip()[-300:]}")
        return [line for line in lines if line]

    def _masked(self, names: tuple[str, ...]) -> list[str]:
        """Where the image has these files of the standard library, and their compiled forms."""
        if names and names not in self._masks:
            with tempfile.TemporaryDirectory(prefix="overnight-") as folder:
                Path(folder).chmod(0o755)
                job = Job(("{python}", "-c", _FIND_MASKED, *names), {"code": Mount(Path(folder))}, "code")
                self._masks[names] = self._run(job)
        return self._masks.get(names, [])

    def _start(self, job: Job, masked: list[str]) -> ContainerRunning:
        import docker

        marks = {
            "overnight.owner": layout.label(job.owner),
            "overnight.process": layout.identity(),
            "overnight.host": layout.host(),
        }
        config = self._api.create_container_config(
            self.image,
            command=[json.dumps(_inside(job))],
            entrypoint=["python3", "-I", "-S", "-c", (_HERE / "init.py").read_text()],
            user=_user(),
            working_dir="/",
            hostname="overnight",
            stdin_open=True,
            network_disabled=True,
            labels=marks,
            host_config=self._host_config(job, masked, marks),
        )
        config |= {"StdinOnce": True, "AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
        identifier = ""
        watch = gpu.MemoryWatch(job.device, job.limits.vram_gb)
        try:
            identifier = self._api.create_container_from_config(config, layout.job_name(job.owner))["Id"]
            attached = self._api.attach_socket(identifier, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            getattr(attached, "_sock", attached).settimeout(None)
            self._api.start(identifier)
        except Exception as error:
            if identifier:
                _remove(self._api, identifier)
            if isinstance(error, docker.errors.ImageNotFound):
                raise SandboxBroken(f"the image {self.image} is gone; build it again") from error
            raise SandboxBroken(_explain(error)) from error
        try:
            return ContainerRunning(self._api, identifier, attached, job, watch)
        except BaseException:
            _remove(self._api, identifier)
            raise

    def _host_config(self, job: Job, masked: list[str], marks: Mapping[str, str]) -> dict[str, Any]:
        from docker.types import DeviceRequest, LogConfig, Ulimit

        limits = job.limits
        memory, disk = int(limits.memory_gb * GB), int(limits.disk_gb * GB)
        gpus = [DeviceRequest(device_ids=[job.device.uuid or "0"], capabilities=[["gpu", "compute", "utility"]])]
        config: dict[str, Any] = self._api.create_host_config(
            network_mode="none",
            ipc_mode="private",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true", f"seccomp={(_HERE / 'seccomp.json').read_text()}"],
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=limits.processes + 1,  # process 1 is ours
            nano_cpus=int(min(limits.cpus, os.cpu_count() or 1) * 1e9) if limits.cpus else None,
            cpuset_cpus=_processors(),
            shm_size=max(memory // 2, 1 << 20),
            ulimits=[
                Ulimit(name="core", soft=0, hard=0),
                Ulimit(name="fsize", soft=disk, hard=disk),
            ],
            tmpfs={"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={min(disk, memory)},nr_inodes={_INODES}"},
            mounts=_mounts(job, marks),
            log_config=LogConfig(type="none"),
            auto_remove=True,
            device_requests=gpus if job.device.kind == "cuda" else None,
        )
        return config | {"MaskedPaths": [*_ALWAYS_MASKED, *masked], "CgroupnsMode": self._cgroup_namespace}

    @cached_property
    def _cgroup_namespace(self) -> str:
        """Its own where there is version 2; version 1 has it by the mounts already."""
        return "private" if self._api.info().get("CgroupVersion") == "2" else ""


def _inside(job: Job) -> dict[str, Any]:
    """What init.py is told. It alone knows what ``{python}`` is called."""
    places = {name: f"{INSIDE}/{name}" for name in job.mounts} | {"out": OUT}
    return {
        "argv": layout.command(job, places),
        "env": layout.environment(job, places, "/tmp"),
        "cwd": places[job.workdir],
        "out": OUT,
        "output": int(job.limits.output_mb * layout.MB),
        "wanted": {item.name: item.max_bytes for item in job.collect},
    }


def _mounts(job: Job, marks: Mapping[str, str]) -> list[Any]:
    """The job's mounts, and {out}: memory that is a volume, since the engine reads files only out of volumes."""
    from docker.types import DriverConfig
    from docker.types import Mount as Entry

    options = {
        "type": "tmpfs",
        "device": "tmpfs",
        "o": f"size={_scratch(job.limits)},nr_inodes={_INODES},mode=1777,nosuid,nodev,noexec",
    }
    out = Entry(OUT, None, "volume", no_copy=True, labels=dict(marks), driver_config=DriverConfig("local", options))
    return [
        *(Entry(f"{INSIDE}/{name}", str(m.source.resolve()), "bind", m.readonly) for name, m in job.mounts.items()),
        out,
    ]


def _processors() -> str | None:
    """Those that the session keeps to, where it does not have all: the engine would give a container all of them."""
    own = sorted(os.sched_getaffinity(0))
    return ",".join(map(str, own)) if len(own) < (os.cpu_count() or 1) else None


def _scratch(limits: Limits) -> int:
    return int(min(limits.disk_gb, limits.memory_gb) * GB)


def _user() -> str:
    """The session's own user, so that both can use a mount's files; never root."""
    own = (os.getuid(), os.getgid()) if os.getuid() else (layout.UNPRIVILEGED, layout.UNPRIVILEGED)
    return f"{own[0]}:{own[1]}"


def _remove(api: APIClient, identifier: str) -> None:
    with contextlib.suppress(Exception):  # the engine has removed it, or is gone
        api.remove_container(identifier, v=True, force=True)


def _short(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip().splitlines()[0][:300]


def _explain(error: Exception) -> str:
    text = _short(error)
    if "could not select device driver" in text:
        return f"Docker knows no NVIDIA GPU ({text}): install the NVIDIA container toolkit, then restart Docker"
    return f"the Docker engine could not start a container: {text}"
