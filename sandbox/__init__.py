"""Where a job runs. ``make_sandbox`` is the door; a provider per module, one contract for all (``sandbox.types``)."""

from __future__ import annotations

from sandbox.types import Guarantee, Sandbox, SandboxUnavailable

NAMES = ("docker", "bwrap", "process")


def make_sandbox(name: str, *, image: str = "overnight-train:latest") -> Sandbox:
    """The sandbox ``docker``, ``bwrap`` or ``process``; ``auto`` is the first of docker and bwrap that works here.

    Raises:
        SandboxUnavailable: none does; the message ends with the line that mends it.
        ValueError: there is no sandbox of this name.
    """
    if name == "auto":
        complaints = []
        for candidate in ("docker", "bwrap"):
            place = make_sandbox(candidate, image=image)
            try:
                place.check()
            except SandboxUnavailable as error:
                complaints.append(f"{candidate}: {error}")
            else:
                return place
        raise SandboxUnavailable(" ".join(complaints))
    if name == "process":
        from sandbox.process import ProcessSandbox

        return ProcessSandbox()
    if name == "bwrap":
        from sandbox.bwrap import BwrapSandbox

        return BwrapSandbox()
    if name == "docker":
        from sandbox.docker import DockerSandbox

        return DockerSandbox(image)
    raise ValueError(f"no sandbox {name!r}: there are {', '.join(NAMES)}")


def missing(sandbox: Sandbox) -> list[Guarantee]:
    """What this sandbox does not promise on this machine."""
    return [guarantee for guarantee in Guarantee if guarantee not in sandbox.guarantees]


def protects(sandbox: Sandbox) -> bool:
    """Whether code that nobody has read may run here."""
    return not missing(sandbox)
