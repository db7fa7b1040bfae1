"""The directory of one session: file paths, settings, lock, stop file."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from shlex import quote
from typing import Any

from agent.errors import EnvironmentProblem, UsageError
from agent.files import acquire
from agent.ledger.state import State
from agent.toml import dump_toml, read_toml
from sandbox.layout import exists

ORPHAN_SECONDS = 10.0  # wait for a lock whose session has ended
NOTES = """# Notes for the model

The model reads this file before every proposal. Write ideas to try, parts to leave alone, and facts about this target.
Notes do not change the rules of acceptance.
A new session copies notes.md of its target into its run directory; edit that copy during the session.
"""
DERIVED = ("replay-", "promote-")  # begin the tags of what trains the commits of a run again


class RunDirectory:
    """``runs/<tag>/``. Raises ``UsageError`` for a tag that cannot be part of a branch name; names ``option``."""

    def __init__(self, root: Path, tag: str, option: str = "--tag"):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", tag) or tag.endswith((".lock", ".")) or ".." in tag:
            raise UsageError(f"{option} {tag!r}: use letters, digits, '.', '_' and '-' (it names a branch).")
        self.tag = tag
        self.path = root / tag
        self.ledger = self.path / "ledger.jsonl"
        self.settings = self.path / "run.toml"
        self.notes = self.path / "notes.md"
        self.report = self.path / "report.html"
        self.results = self.path / "results.tsv"
        self.log = self.path / "session.log"
        self.progress = self.path / "progress.json"
        self._stop = self.path / "stop"

    def trial(self, number: int) -> Path:
        return self.path / "trials" / f"{number:04d}"

    def command(self, verb: str, *options: str) -> str:
        """A command line to copy: ``overnight resume TAG``, with ``--runs`` if the folder is not the default."""
        root = self.path.parent
        where = () if root == Path("runs") else ("--runs", quote(str(root)))
        return " ".join(["overnight", verb, self.tag, *options, *where])

    def check_new(self) -> None:
        """Raise ``UsageError`` if a new run cannot have this directory."""
        if self.tag.startswith(DERIVED):
            raise UsageError(
                f"--tag {self.tag}: {' and '.join(DERIVED)} begin the names of replays and promotions. Choose another."
            )
        if self.path.exists():
            raise UsageError(
                f"{self.path} exists. Use `{self.command('resume')}` to continue it, or another --tag to start a new "
                "run."
            )

    def create(self, settings: Mapping[str, Any], notes: str = NOTES) -> None:
        """Make the directory with run.toml and notes.md."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.path.mkdir()
            except FileExistsError:  # another session has just begun under this tag
                self.check_new()
                raise
            try:
                (self.path / ".gitignore").write_text("*\n")  # runs may lie inside the target
                self.settings.write_text(dump_toml(settings), encoding="utf-8")
                self.notes.write_text(notes, encoding="utf-8")
            except OSError:  # a full disk: half a directory would occupy the tag
                shutil.rmtree(self.path, ignore_errors=True)
                raise

    def read_settings(self, state: State | None = None) -> dict[str, Any]:
        """run.toml: the settings at the start; with ``state``, including the changes by resumes."""
        if not self.settings.is_file():
            raise UsageError(f"{self.path} has no run.toml: it is not a run directory.")
        saved = read_toml(self.settings)
        if not isinstance(saved.get("run"), dict):
            raise UsageError(f"{self.settings} has no table [run]: restore the file as the session wrote it.")
        changed = state.settings if state is not None else {}
        return {**saved, "run": {**saved["run"], **changed}}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process per session. The kernel releases the lock when the process ends, so no lock is stale."""
        with (self.path / "lock").open("a+") as file:
            if not acquire(file, 1.0):
                file.seek(0)
                owner = file.read().strip()
                # A child that a killed session was forking inherits the lock, and holds it until it calls exec(): for
                # seconds on a machine under load.
                alive = owner.isdigit() and exists(int(owner))
                if alive or not acquire(file, ORPHAN_SECONDS):
                    raise UsageError(
                        f"session {self.tag} is already running (process {owner or 'unknown'}). "
                        f"`{self.command('status')}` shows it, `{self.command('stop')}` ends it."
                    )
            with writing(self.path / "lock"):
                file.truncate(0)
                os.write(file.fileno(), str(os.getpid()).encode())
            yield

    def running(self) -> bool:
        """Whether a session holds the lock now."""
        try:
            with (self.path / "lock").open("r+") as file:
                return not acquire(file)
        except OSError:
            return False

    def ask_to_stop(self, now: bool) -> None:
        self._stop.write_text("now" if now else "after")

    def stop_asked(self) -> str:
        """ "", ``after`` (after the running trial) or ``now``."""
        try:
            return self._stop.read_text()
        except FileNotFoundError:
            return ""

    def forget_stop(self) -> None:
        self._stop.unlink(missing_ok=True)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Raise ``EnvironmentProblem`` where ``place`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {place}: {error.strerror or error}.") from error


def find_runs(root: Path) -> list[str]:
    """Tags of the sessions below a folder, oldest first."""
    folders = root.iterdir() if root.is_dir() else ()  # unlike glob, it reports a folder that cannot be read
    return _by_age(place for folder in folders if (place := folder / "run.toml").is_file())


def find_replays(root: Path) -> list[str]:
    """Names of the folders of replays and promotions, the latest write last. They have a ledger and no run.toml."""
    return _by_age(p for p in root.glob("*/ledger.jsonl") if not p.with_name("run.toml").exists())


def _by_age(files: Iterable[Path]) -> list[str]:
    return [p.parent.name for p in sorted(files, key=lambda p: p.stat().st_mtime)]


def new_tag(root: Path, prefix: str = "", *beside: str) -> str:
    """A new tag, the date with a number if needed, that is unused in ``root`` and in its folders ``beside``."""
    day = prefix + datetime.now().strftime("%b%d").lower()
    taken = {p.name for place in (root, *(root / name for name in beside)) if place.is_dir() for p in place.iterdir()}
    return next(t for k in range(10_000) if (t := day if k == 0 else f"{day}-{k + 1}") not in taken)


def environment() -> dict[str, Any]:
    """Versions, hardware and start time, for run.toml and the report."""
    versions = {"python": sys.version.split()[0]}
    for name in ("overnight", "torch", "numpy", "cmaes", "openai", "optuna"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    cores = os.cpu_count() or 1
    hardware: dict[str, Any] = {"machine": platform.machine(), "cores": cores, "system": platform.platform()}
    if gpus := list(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        hardware["gpus"] = [re.sub(r"\s+", " ", g.read_text().split("\n")[0]) for g in gpus]
    return {"versions": versions, "hardware": hardware, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
