"""One container per job on a Docker engine.

Covers: every ``Guarantee``. The job is an ordinary user without capabilities and cannot gain any. It has the system
calls of seccomp.json, no network and a read-only root. Control groups limit memory, processes and CPU time. Files that
the job writes stay in file systems in memory of fixed size, which end with the container. It sees only its own GPU.
Process 1 (init.py) ends with the session's connection, so no container outlives a killed session.

Does not cover: errors of the kernel and of the GPU's driver. The memory limit includes files in /tmp, {out} and shared
memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import gpu, layout, stdlib
from sandbox.container import OUT, ContainerRunning
from sandbox.layout import GB, INODES, INSIDE
from sandbox.local import sweep_folders
from sandbox.packages import install_command
from sandbox.types import Guarantee, Job, Mount, Running, SandboxBroken, SandboxUnavailable

if TYPE_CHECKING:
    from docker import APIClient

_HERE = Path(__file__).parent
# Docker's own masked paths: a list of ours replaces them.
_ALWAYS_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
_PROBE = """
import sys
print(open(sys.argv[1] + "/token").read())
try:
    import numpy, safetensors, torch
except ImportError as error:
    print(error)
"""


class DockerSandbox:
    """Needs a Docker engine on this machine and the project's image."""

    name = "docker"

    def __init__(self, image: str) -> None:
        self.image = image
        self._masks: dict[tuple[str, ...], tuple[list[str], tuple[str, Path] | None]] = {}

    @cached_property
    def guarantees(self) -> frozenset[Guarantee]:
        """All guarantees except limits that the engine's kernel lacks; none if no engine answers."""
        try:
            facts = self._api.info()
        except Exception:
            return frozenset()
        limits = {Guarantee.LIMITS_MEMORY: "MemoryLimit", Guarantee.LIMITS_PROCESSES: "PidsLimit"}
        return frozenset(g for g in Guarantee if g not in limits or facts.get(limits[g]))

    def check(self) -> None:
        try:
            import docker
        except ImportError:
            raise SandboxUnavailable(
                f"the Python package docker is not installed. {install_command('overnight[docker]')}"
            ) from None
        try:
            self._api.inspect_image(self.image)
        except docker.errors.ImageNotFound:
            raise SandboxUnavailable(
                f"there is no image {self.image}. In a checkout of this project run: docker build -t {self.image} ."
            ) from None
        except Exception as error:
            raise SandboxUnavailable(
                f"no Docker engine answers ({_short(error)}). Start it (systemctl start docker), "
                "and give your user access (usermod -aG docker $USER)."
            ) from error
        try:
            self._probe()
        except SandboxBroken as error:
            raise SandboxUnavailable(f"containers do not run here ({error}). See docker info.") from error

    def start(self, job: Job) -> Running:
        layout.check_job(job)
        return self._start(job, *self._hidden(job.masked))

    def sweep(self, owner: str) -> int:
        wanted = {"label": [f"{name}={value}" for name, value in _marks(owner).items()]}
        removed = 0
        try:
            for container in filter(_orphaned, self._api.containers(all=True, filters=wanted)):
                self._api.remove_container(container["Id"], v=True, force=True)
                removed += 1
            for volume in filter(_orphaned, self._api.volumes(filters={**wanted, "dangling": True})["Volumes"] or ()):
                self._api.remove_volume(volume["Name"])
                removed += 1
        except Exception as error:
            if self.guarantees:
                raise SandboxBroken(f"cannot remove containers of a dead session: {_short(error)}") from error
        return removed + sweep_folders(owner)

    @cached_property
    def _api(self) -> APIClient:
        import docker

        return docker.from_env(timeout=120).api

    def _probe(self) -> None:
        """Run a container that reads a mount and imports what a trial imports."""
        with tempfile.TemporaryDirectory(prefix="overnight-") as folder:
            (Path(folder) / "token").write_text(folder)
            lines = self._run(_PROBE, "{code}", folder=Path(folder))
        if not lines or lines[0] != folder:
            raise SandboxBroken("the engine does not see this machine's files: it must run on this machine")
        if lines[1:]:
            raise SandboxBroken(f"{self.image} cannot train: {lines[1]}")

    def _hidden(self, names: tuple[str, ...]) -> tuple[list[str], tuple[str, Path] | None]:
        """Paths of these files in the image; place and content of a standard library without sources, if wanted."""
        if not names:
            return [], None
        if names not in self._masks:
            place, packages, *paths = self._run((_HERE / "masks.py").read_text(), *names)
            apart = not packages.startswith(f"{place}/")  # otherwise the copy would hide the packages
            library = (place, self._stdlib(names)) if stdlib.SOURCES in names and apart else None
            self._masks[names] = paths, library
        return self._masks[names]

    def _stdlib(self, names: tuple[str, ...]) -> Path:
        """The image's standard library without sources and these names."""
        copy, image = (_HERE / "stdlib.py").read_text(), self._api.inspect_image(self.image)["Id"]
        return layout.cached(f"{image} {names}", lambda to: self._run(copy, "{code}", *names, folder=to, writable=True))

    def _run(self, program: str, *arguments: str, folder: Path | None = None, writable: bool = False) -> list[str]:
        """The lines that a trusted Python program prints in the image. ``folder``: its {code}."""
        with tempfile.TemporaryDirectory(prefix="overnight-") as empty:
            mount = Mount(folder or Path(empty), readonly=not writable)
            mount.source.chmod(0o755 if mount.readonly else 0o777)
            running = self._start(Job(("{python}", "-c", program, *arguments), {"code": mount}, "code"), [], None)
            lines: list[str] = []
            while (more := running.read(timeout=60)) is not None:
                lines += more
            outcome = running.finish()
        if outcome.exit_code != 0:
            raise SandboxBroken(f"Python does not work in {self.image}: {outcome.log_tail.strip()[-300:]}")
        return [line for line in lines if line]

    def _start(self, job: Job, masked: list[str], library: tuple[str, Path] | None) -> ContainerRunning:
        import docker

        marks = {**_marks(job.owner), "overnight.process": layout.identity()}
        config = self._api.create_container_config(
            self.image,
            command=[json.dumps(_inside(job))],
            entrypoint=["python3", "-I", "-S", "-c", (_HERE / "init.py").read_text()],
            user=self._user(),
            working_dir="/",
            hostname="overnight",
            stdin_open=True,
            network_disabled=True,
            labels=marks,
            host_config=self._host_config(job, masked, library, marks),
        )
        config |= {"StdinOnce": True, "AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
        identifier = ""
        watch = gpu.MemoryWatch(job.device, job.limits.vram_gb)
        try:
            identifier = self._api.create_container_from_config(config, layout.job_name(job.owner))["Id"]
            attached = self._api.attach_socket(identifier, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            getattr(attached, "_sock", attached).settimeout(None)
            self._api.start(identifier)
            return ContainerRunning(self._api, identifier, attached, job, watch)
        except BaseException as error:
            if identifier:
                with contextlib.suppress(Exception):  # already removed, or the engine stopped
                    self._api.remove_container(identifier, v=True, force=True)
            if isinstance(error, docker.errors.ImageNotFound):
                raise SandboxBroken(f"the image {self.image} was removed; build it again") from error
            if isinstance(error, SandboxBroken) or not isinstance(error, Exception):
                raise
            raise SandboxBroken(_explain(error)) from error

    def _host_config(
        self, job: Job, masked: list[str], library: tuple[str, Path] | None, marks: Mapping[str, str]
    ) -> dict[str, Any]:
        from docker.types import DeviceRequest, LogConfig, Ulimit

        limits, largest = job.limits, layout.largest_file(job.limits)
        memory, disk = int(limits.memory_gb * GB), int(limits.disk_gb * GB)
        counters = layout.COUNTERS if job.hides_counters else ()
        gpus = [DeviceRequest(device_ids=[job.device.uuid or "0"], capabilities=[["gpu", "compute", "utility"]])]
        config: dict[str, Any] = self._api.create_host_config(
            network_mode="none",
            ipc_mode="private",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true", f"seccomp={(_HERE / 'seccomp.json').read_text()}"],
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=limits.processes + 1,  # and process 1
            nano_cpus=int(min(limits.cpus, os.cpu_count() or 1) * 1e9) if limits.cpus else None,
            cpuset_cpus=_processors(),
            shm_size=max(memory // 2, 1 << 20),
            ulimits=[Ulimit(name="core", soft=0, hard=0), Ulimit(name="fsize", soft=largest, hard=largest)],
            tmpfs={"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={min(disk, memory)},nr_inodes={INODES}"},
            mounts=_mounts(job, library, marks),
            log_config=LogConfig(type="none"),
            auto_remove=True,
            device_requests=gpus if job.device.kind == "cuda" else None,
            **(_amd_devices() if job.device.kind == "rocm" else {}),
        )
        return config | {"MaskedPaths": [*_ALWAYS_MASKED, *masked, *counters], "CgroupnsMode": self._cgroup_namespace}

    def _user(self) -> str:
        """The session's own user, who can use the mounts' files; instead of root, a user per job."""
        if os.getuid():
            return f"{os.getuid()}:{os.getgid()}"
        remapped = any("userns" in o or "rootless" in o for o in self._api.info().get("SecurityOptions") or ())
        user = layout.UNPRIVILEGED if remapped else layout.job_user()
        return f"{user}:{user}"

    @cached_property
    def _cgroup_namespace(self) -> str:
        """Version 2 needs a private namespace; in version 1 the mounts hide other groups."""
        return "private" if self._api.info().get("CgroupVersion") == "2" else ""


def _marks(owner: str) -> dict[str, str]:
    return {"overnight.owner": layout.label(owner), "overnight.host": socket.gethostname()}


def _inside(job: Job) -> dict[str, Any]:
    """The configuration of init.py, which fills in ``{python}`` itself."""
    places = {name: f"{INSIDE}/{name}" for name in job.mounts} | {"out": OUT}
    return {
        "argv": layout.command(job, places),
        "env": layout.environment(job, places, "/tmp"),
        "cwd": places[job.workdir],
        "out": OUT,
        "output": int(job.limits.output_mb * layout.MB),
        "wanted": {item.name: item.max_bytes for item in job.collect},
    }


def _mounts(job: Job, library: tuple[str, Path] | None, marks: Mapping[str, str]) -> list[Any]:
    """The job's mounts and {out}, a volume in memory: the engine copies files only out of volumes."""
    from docker.types import DriverConfig
    from docker.types import Mount as Entry

    options = {
        "type": "tmpfs",
        "device": "tmpfs",
        "o": f"size={layout.scratch_bytes(job)},nr_inodes={INODES},mode=1777,nosuid,nodev,noexec",
    }
    out = Entry(OUT, None, "volume", no_copy=True, labels=dict(marks), driver_config=DriverConfig("local", options))
    binds = []
    for name, mount in job.mounts.items():
        place, source = f"{INSIDE}/{name}", mount.source.resolve()
        binds.append(Entry(place, str(source), "bind", mount.readonly))
        binds += [Entry(f"{place}/{file}", f"{source}/{file}", "bind", read_only=False) for file in mount.writable]
    own = [Entry(library[0], str(library[1]), "bind", read_only=True)] if library else []
    return [*own, *binds, out]


def _processors() -> str | None:
    """The session's CPUs, if it is restricted to some: the engine would give a container all of them."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return ",".join(map(str, own)) if 0 < len(own) < (os.cpu_count() or 1) else None


def _amd_devices(dev: Path = Path("/dev")) -> dict[str, Any]:
    """The device files of AMD GPUs, and the groups that may open them; HIP_VISIBLE_DEVICES picks one."""
    nodes = [node for node in (dev / "kfd", *sorted((dev / "dri").glob("renderD*"))) if node.exists()]
    return {
        "devices": [f"{node}:{node}:rw" for node in nodes],
        "group_add": sorted({node.stat().st_gid for node in nodes}),
    }


def _orphaned(thing: Mapping[str, Any]) -> bool:
    """Whether the process that made this container or volume has ended."""
    return not layout.alive(thing["Labels"].get("overnight.process", ""))


def _short(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip().splitlines()[0][:300]


def _explain(error: Exception) -> str:
    text = _short(error)
    if "could not select device driver" in text:
        return f"Docker has no NVIDIA GPU support ({text}): install the NVIDIA container toolkit, then restart Docker"
    return f"the Docker engine could not start a container: {text}"
