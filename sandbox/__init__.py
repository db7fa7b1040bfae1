"""Runs a job in isolation. ``make_sandbox`` selects an implementation of the interface in ``sandbox.types``."""

from __future__ import annotations

from sandbox.types import Guarantee, Sandbox, SandboxUnavailable

NAMES = ("docker", "bwrap", "process")


def make_sandbox(name: str, *, image: str = "overnight-train:latest") -> Sandbox:
    """Make a sandbox by its name.

    Args:
        name: ``docker``, ``bwrap``, ``process``, or ``auto`` for the first of docker and bwrap that works here.
        image: the Docker image in which jobs run.

    Raises:
        SandboxUnavailable: ``auto`` found none; the message says how to install one.
        ValueError: unknown name.
    """
    if name == "auto":
        reasons = []
        for candidate in ("docker", "bwrap"):
            try:
                sandbox = make_sandbox(candidate, image=image)
                sandbox.check()
                return sandbox
            except SandboxUnavailable as error:
                reasons.append(f"{candidate}: {error}")
        raise SandboxUnavailable(" ".join(reasons))
    if name == "process":
        from sandbox.process import ProcessSandbox

        return ProcessSandbox()
    if name == "bwrap":
        from sandbox.bwrap import BwrapSandbox

        return BwrapSandbox()
    if name == "docker":
        from sandbox.docker import DockerSandbox

        return DockerSandbox(image)
    raise ValueError(f"unknown sandbox {name!r}: use one of {', '.join(NAMES)}")


def missing(sandbox: Sandbox) -> list[Guarantee]:
    """The guarantees that this sandbox does not give on this machine."""
    return [guarantee for guarantee in Guarantee if guarantee not in sandbox.guarantees]
