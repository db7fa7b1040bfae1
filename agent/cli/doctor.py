"""``overnight doctor``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent.cli.output import show
from agent.errors import OvernightError
from agent.llm.client import ChatModel, normal_base_url
from agent.llm.sleep_mode import Sleeper
from agent.target import load_target
from agent.trial.imports import imports_of, probe
from agent.workers.runtime import with_python
from sandbox import amd, make_sandbox, missing
from sandbox.gpu import has_apple_gpu
from sandbox.packages import install_command
from sandbox.selfcheck.cases import CHECKS, run_check
from sandbox.tools import output_of
from sandbox.types import SandboxUnavailable


@dataclass(frozen=True)
class Finding:
    """One check. No session can run while a ``needed`` check fails."""

    name: str
    ok: bool
    found: str
    mend: str = ""  # how to fix it
    needed: bool = False


SANDBOXES = ("docker", "bwrap", "process")
_USES = {  # what a session can use: the checks that it needs
    **{sandbox: (f"sandbox {sandbox}",) for sandbox in SANDBOXES},
    "presets demo and cpu": ("torch",),
    "preset gpu": ("gpu", "torch", "torch for the GPU"),
    "edits by a model": ("model server",),
    "the target": ("imports",),
}
_WHY = {  # check that fails: the reason in the verdict
    "torch": "PyTorch is not installed",
    "torch for the GPU": "PyTorch is a build for the CPU",
    "gpu": "no GPU",
    "model server": "no model server",
}


def doctor(
    sandbox: bool, llm_base_url: str, target: Path | None, python: str, json: bool, runs: str, cache: str
) -> int:
    """Returns 3 if a check fails that every session needs, else 0."""
    findings = list(check(llm_base_url, Path(cache).expanduser(), Path(runs), python, target))
    if sandbox:
        findings += check_sandbox()
    # in a pipe, no line with a command to copy is wrapped
    show(json, findings, lambda found: {"version": 1, "findings": list(map(asdict, found))}, _view, False, 1000)
    return 3 if any(f.needed and not f.ok for f in findings) else 0


def _view(findings: list[Finding]) -> Group:
    can, cannot = verdict(findings)
    table = Table(box=None, pad_edge=False, show_header=False)
    for f in findings:
        mark = Text("ok", "green") if f.ok else Text("missing", "red") if f.needed else Text("no", "yellow")
        mend = Text(f"\n→ {f.mend}" if f.mend and not f.ok else "", "bold")
        table.add_row(mark, Text(f.name), Text.assemble(f.found, mend))
    first = Text(f"this machine can run: {', '.join(can) or 'nothing'}")
    return Group(first, Text(f"cannot: {', '.join(cannot)}\n" if cannot else ""), table)


def verdict(findings: Iterable[Finding]) -> tuple[list[str], list[str]]:
    """What a session can use on this machine, and what not with the reason."""
    found = {finding.name: finding for finding in findings}
    can, cannot = [], []
    for name, needed in _USES.items():
        checks = [found[check] for check in needed if check in found]
        failed = next((check for check in checks if not check.ok), None)
        if failed is not None:
            cannot.append(f"{name} ({_WHY.get(failed.name) or failed.found.partition(' (')[0]})")
        elif checks:
            can.append(name)
    return can, cannot


def check(llm_base_url: str, cache: Path, runs: Path, python: str, folder: Path | None) -> Iterator[Finding]:
    """All checks but those of ``check_sandbox``."""
    target = with_python(load_target(folder)[0], python) if folder is not None else None
    python = (target.python if target else python) or sys.executable
    names = imports_of(target.folder / target.path) if target is not None and target.score == "stdout" else []
    has = probe(python, names)
    yield Finding("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer", True)
    if python != sys.executable:
        yield Finding("python of trials", bool(has.python), has.python or f"{python} does not start", "", True)
    git = output_of("git", "--version")
    yield Finding("git", bool(git), git or "not found", "install git", True)
    unused = target is not None and target.score == "stdout" and "torch" not in names
    lacks = "not installed" + (": the target does not import it" if unused else "")
    wanted = "torch safetensors" if target is None or target.score != "stdout" else "torch"
    mend = "" if unused else install_command(wanted, python, has.pip)
    yield Finding("torch", bool(has.torch), has.torch or lacks, mend)
    gpu = "; ".join(output_of("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines())
    gpu = gpu or "; ".join(f"{device.model} (--device rocm, untried)" for device in amd.devices())
    none = "an Apple GPU (--device mps, untried)" if has_apple_gpu() else "none (trials train on the CPU)"
    mend = "" if has_apple_gpu() else "install the NVIDIA driver, or ROCm with amd-smi"
    yield Finding("gpu", bool(gpu), gpu or none, mend)
    if gpu and has.torch:
        build = "a build for GPUs" if has.cuda else "a build for the CPU: trials would not use the GPU"
        yield Finding("torch for the GPU", has.cuda, build, install_command("--force-reinstall torch", python, has.pip))
    if names:
        lacking = f"{python} lacks {', '.join(has.missing)}" if has.missing else f"all found: {', '.join(names)}"
        mend = "install them there, or name the interpreter of your project: --python PATH"
        yield Finding("imports", not has.missing, lacking, mend, True)
    yield from (sandbox_finding(name) for name in SANDBOXES)
    yield _model_finding(llm_base_url)
    for name, place in (("disk for runs", runs), ("disk for data", cache)):
        parent = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
        free = shutil.disk_usage(parent).free / 1e9
        yield Finding(name, free > 2, f"{free:.0f} GB free", f"free some space below {place}", True)


def check_sandbox() -> list[Finding]:
    """The isolation checks of the sandbox that ``--sandbox auto`` selects here."""
    try:
        place = make_sandbox("auto")
    except SandboxUnavailable as error:
        return [Finding("isolation", False, "not tested: no sandbox works here", str(error))]
    return [
        Finding(f"{place.name}: {result.name}", result.ok, result.detail, "do not run model-written code here")
        for result in (run_check(place, check) for check in CHECKS)
    ]


def sandbox_finding(name: str) -> Finding:
    """Whether a sandbox works here."""
    try:
        place = make_sandbox(name)
        place.check()
    except SandboxUnavailable as error:
        what, _, mend = str(error).partition(". ")
        return Finding(f"sandbox {name}", False, what, mend, needed=name == "process")
    lacking = ", ".join(guarantee.name.lower().replace("_", " ") for guarantee in missing(place))
    return Finding(f"sandbox {name}", True, f"ready; does not guarantee: {lacking}" if lacking else "ready")


def _model_finding(base_url: str) -> Finding:
    with suppress(OvernightError, OSError):  # describe() below names the problem
        if Sleeper(normal_base_url(base_url)).sleeping(timeout=5.0):
            return Finding("model server", True, f"asleep at {base_url}; a session wakes it")
    try:
        info = ChatModel(base_url, timeout=5.0, patience=0.0).describe()
    except OvernightError as error:
        mend = "overnight llm serve MODEL, then --llm-base-url URL"
        return Finding("model server", False, str(error).split(". ")[0], mend)
    return Finding("model server", True, f"{info.id} at {base_url}")
