"""``overnight init`` and ``overnight prepare``: a new target, and its data."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shlex import quote

from agent.cli.output import say
from agent.errors import EnvironmentProblem, UsageError
from agent.target import load_target


def init(directory: Path, preset: str | None, project: Path | None) -> int:
    if project is not None:
        from agent.scaffold.project import adopt

        if preset:
            raise UsageError("--preset is a size of the nanoGPT target; with --from the project decides.")
        return adopt(directory, project)
    from nanogpt_target.presets import choose_preset

    preset = preset or choose_preset()
    make_target(directory, preset)
    print(f"{directory}: the nanoGPT target, preset {preset}, in a fresh git repository.")
    print(f"Next: overnight run --target {quote(str(directory))}")
    return 0


def make_target(directory: Path, preset: str) -> None:
    """A git repository with one commit: the target."""
    from nanogpt_target.presets import write_target

    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file. Name a new folder.")
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty. Name a new folder.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_target(preset, directory)
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


def prepare(target: str, data: str | None, verify: bool, runs: str, cache: str) -> int:
    from nanogpt_target import prepare as preparation

    spec = dict(load_target(Path(target))[0].data)
    if data:
        spec["source"] = data
    try:
        prepared = preparation.prepare(spec, Path(cache).expanduser() / "data", progress=say, verify=verify)
    except preparation.DataError as error:
        raise UsageError(str(error)) from None
    print(prepared.directory)
    for split, count in prepared.tokens.items():
        say(f"{split}: {count:,} tokens")
    return 0
