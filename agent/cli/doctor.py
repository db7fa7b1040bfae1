"""``overnight doctor``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.options import Commands, add_command
from agent.cli.output import console, show
from agent.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Finding:
    """One check. No session can run while a ``needed`` check fails."""

    name: str
    ok: bool
    found: str
    mend: str = ""  # how to fix it
    needed: bool = False


def add(commands: Commands) -> None:
    parser = add_command(commands, "doctor", doctor, "json runs cache")
    parser.add_argument("--sandbox", action="store_true", help="also test the isolation of this machine's sandbox")
    url = Settings.llm_base_url
    parser.add_argument("--llm-base-url", default=url, help=f"model server to check (default: {url})")


def doctor(sandbox: bool, llm_base_url: str, json: bool, runs: str, cache: str) -> int:
    """Check GPU, Docker, model server, disk and git of this machine.

    Returns:
        3 if a check fails that every session needs, else 0.
    """
    findings = list(check(llm_base_url, Path(cache).expanduser(), Path(runs)))
    if sandbox:
        findings += check_sandbox()
    if json:
        show(True, lambda: {"version": 1, "findings": [asdict(f) for f in findings]}, lambda: None)
    else:
        console(widest=1000).print(_table(findings))  # commands to copy are never wrapped in a pipe
    return 3 if any(f.needed and not f.ok for f in findings) else 0


def _table(findings: list[Finding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "found", "how to fix", box=None, pad_edge=False)
    for f in findings:
        mark = Text("ok", "green") if f.ok else Text("missing", "red") if f.needed else Text("no", "yellow")
        table.add_row(mark, Text(f.name), Text(f.found), Text("" if f.ok else f.mend))
    return table


def check(llm_base_url: str, cache: Path, runs: Path) -> Iterator[Finding]:
    """All checks but those of ``check_sandbox``."""
    yield Finding("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer", True)
    git = _output("git", "--version")
    yield Finding("git", bool(git), git or "not found", "install git", True)
    try:
        yield Finding("torch", True, metadata.version("torch"), needed=True)
    except metadata.PackageNotFoundError:
        yield Finding("torch", False, "not installed", "pip install 'overnight[train]'", True)
    gpu = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    yield Finding("gpu", bool(gpu), gpu or "none (trials train on the CPU)", "install the NVIDIA driver")
    yield from (_sandbox_finding(name) for name in ("docker", "bwrap", "process"))
    yield _model_finding(llm_base_url)
    for name, place in (("disk for runs", runs), ("disk for data", cache)):
        parent = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
        free = shutil.disk_usage(parent).free / 1e9
        yield Finding(name, free > 2, f"{free:.0f} GB free", f"free some space below {place}", True)


def check_sandbox() -> list[Finding]:
    """The isolation checks of the sandbox that ``--sandbox auto`` selects here."""
    from sandbox import make_sandbox
    from sandbox.selfcheck.cases import run_checks

    place = make_sandbox("auto")
    return [
        Finding(f"{place.name}: {result.name}", result.ok, result.detail, "do not run model-written code here")
        for result in run_checks(place)
    ]


def _sandbox_finding(name: str) -> Finding:
    from sandbox import make_sandbox, missing
    from sandbox.types import SandboxUnavailable

    try:
        place = make_sandbox(name)
        place.check()
    except SandboxUnavailable as error:
        what, _, mend = str(error).partition(". ")
        return Finding(f"sandbox {name}", False, what, mend, needed=name == "process")
    lacking = ", ".join(guarantee.name.lower() for guarantee in missing(place))
    return Finding(f"sandbox {name}", True, f"ready; does not guarantee: {lacking}" if lacking else "ready")


def _model_finding(base_url: str) -> Finding:
    from agent.errors import OvernightError
    from agent.llm.client import ChatModel, normal_base_url
    from agent.llm.sleep_mode import Sleeper

    with suppress(OvernightError, OSError):  # describe() below names the problem
        if Sleeper(normal_base_url(base_url)).sleeping(timeout=5.0):
            return Finding("model server", True, f"asleep at {base_url}; a session wakes it")
    try:
        info = ChatModel(base_url, timeout=5.0, patience=0.0, connect_patience=0.0).describe()
    except OvernightError as error:
        mend = "overnight llm serve MODEL, then --llm-base-url URL"
        return Finding("model server", False, str(error).split(". ")[0], mend)
    return Finding("model server", True, f"{info.id} at {base_url}")


def _output(*argv: str) -> str:
    """The output of a program on one line; "" if it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().replace("\n", "; ") if done.returncode == 0 else ""
