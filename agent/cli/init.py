"""``overnight init`` and ``overnight prepare``: a new target, and its data."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shlex import quote

from agent.cli.output import say
from agent.errors import EnvironmentProblem, UsageError
from agent.target import load_target
from agent.trial.trusted_target import prepare as prepare_data
from agent.trial.trusted_target import write_preset


def init(directory: Path, preset: str | None, project: Path | None) -> int:
    if project is not None:
        from agent.scaffold.project import adopt

        if preset:
            raise UsageError("--preset is a size of the nanoGPT target; with --from the project decides.")
        return adopt(directory, project)
    preset = make_target(directory, preset)
    print(f"{directory}: the nanoGPT target, preset {preset}, in a fresh git repository.")
    print(f"Next: overnight run --target {quote(str(directory))}")
    return 0


def make_target(directory: Path, preset: str | None) -> str:
    """Make a git repository with the target as its one commit; the preset, by default the one for this machine."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file. Name a new folder.")
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty. Name a new folder.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        preset = write_preset(preset, directory)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {directory}: {error.strerror}.") from error
    identity = ["-c", "user.name=Overnight", "-c", "user.email=overnight@localhost", "-c", "commit.gpgSign=false"]
    for words in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        [*identity, "commit", "-q", "-m", f"Start from preset {preset}"],
    ):
        done = subprocess.run(
            ["git", "-C", str(directory), "-c", "core.hooksPath=/dev/null", *words], capture_output=True, text=True
        )
        if done.returncode:
            raise EnvironmentProblem(f"git {words[0]} failed in {directory}: {done.stderr.strip()}")
    return preset


def prepare(target: str, data: str | None, verify: bool, runs: str, cache: str) -> int:
    prepared = prepare_data(load_target(Path(target))[0], cache, say, data or "", verify)
    if prepared is None:
        raise UsageError(f'{target}: a target with score = "stdout" reads its own data; there is none to prepare.')
    print(prepared.directory)
    for split, count in prepared.tokens.items():
        say(f"{split}: {count:,} tokens")
    return 0
