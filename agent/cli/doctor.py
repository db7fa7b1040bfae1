"""``overnight doctor``: what this machine has for a night, and the line that mends what it lacks."""

from __future__ import annotations

import json as jsonlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One check. ``needed`` are those without which no session can run."""

    name: str
    ok: bool
    found: str
    mend: str = ""
    needed: bool = False


def doctor(sandbox: bool, llm_base_url: str, json: bool, runs: str, cache: str) -> int:
    """Print all findings; exit status 3 when something needed is missing."""
    findings = list(check(llm_base_url, Path(cache).expanduser(), Path(runs)))
    if sandbox:
        findings += check_sandbox()
    if json:
        print(jsonlib.dumps({"version": 1, "findings": [asdict(f) for f in findings]}, indent=1))
    else:
        from rich.table import Table
        from rich.text import Text

        from agent.cli.output import console

        table = Table(box=None, pad_edge=False)
        for title in ("", "check", "found", "to mend it"):
            table.add_column(title)
        for f in findings:
            mark = Text("ok", "green") if f.ok else Text("missing", "red") if f.needed else Text("no", "yellow")
            table.add_row(mark, Text(f.name), Text(f.found), Text("" if f.ok else f.mend))
        console(widest=1000).print(table)  # lines to copy: never broken in a pipe
    return 3 if any(f.needed and not f.ok for f in findings) else 0


def check(llm_base_url: str, cache: Path, runs: Path) -> Iterator[Finding]:
    yield Finding("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer", True)
    git = _output("git", "--version")
    yield Finding("git", bool(git), git or "not found", "install git", True)
    torch = _module("torch")
    yield Finding("torch", bool(torch), torch or "not installed", "pip install 'overnight[train]'", True)
    gpu = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    yield Finding("gpu", bool(gpu), gpu or "none (trials train on the CPU)", "install the NVIDIA driver")
    yield from (_sandbox_finding(name) for name in ("docker", "bwrap", "process"))
    yield _model_finding(llm_base_url)
    for name, place in (("disk for runs", runs), ("disk for data", cache)):
        free = shutil.disk_usage(_existing_parent(place)).free / 1e9
        yield Finding(name, free > 2, f"{free:.0f} GB free", f"free some space below {place}", True)


def check_sandbox() -> list[Finding]:
    """The contract suite, case by case, against the sandbox that ``--sandbox auto`` would take here."""
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
    lacking = missing(place)
    found = "ready" if not lacking else f"ready; does not promise: {', '.join(g.name.lower() for g in lacking)}"
    return Finding(f"sandbox {name}", True, found)


def _model_finding(base_url: str) -> Finding:
    from agent.errors import OvernightError
    from agent.llm.client import ChatModel, normal_base_url
    from agent.llm.sleep_mode import Sleeper

    with suppress(OvernightError, OSError):  # what is wrong is said below
        if Sleeper(normal_base_url(base_url)).sleeping(timeout=5.0):
            return Finding("model server", True, f"asleep at {base_url}: a session wakes it for its next idea")
    try:
        info = ChatModel(base_url, timeout=5.0, patience=0.0, connect_patience=0.0).describe()
    except OvernightError as error:
        mend = "overnight llm serve MODEL, then --llm-base-url URL"
        return Finding("model server", False, str(error).split(". ")[0], mend)
    return Finding("model server", True, f"{info.id} at {base_url}")


def _output(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().replace("\n", "; ") if done.returncode == 0 else ""


def _module(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _existing_parent(place: Path) -> Path:
    return next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
