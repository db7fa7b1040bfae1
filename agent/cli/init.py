"""The commands that set up a target: ``overnight init``, ``trust`` and ``prepare``."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from agent import trust as approvals
from agent.cli.output import say
from agent.cli.runs import load
from agent.errors import UsageError
from agent.repo.create import copy_files, files_of, ignored_of, make_repository
from agent.rundir.directory import NOTES, RunDirectory, writing
from agent.scaffold.project import describe, find_script
from agent.settings import foreign_settings
from agent.target import load_target, read_tables
from agent.text import count, line
from agent.trial.imports import modules_of
from agent.trial.trusted_target import prepare as prepare_data
from agent.trial.trusted_target import write_preset


def init(directory: Path, preset: str | None, project: Path | None) -> None:
    place = quote(str(directory))
    if project is not None:
        if preset:
            raise UsageError("--preset belongs to the nanoGPT target. Remove --preset or --from.")
        notes, proposer = adopt(directory, project)
        print(directory / "target.toml")
        next_step = f"next     overnight run --target {place} --proposer {proposer} --trials 0"
        print("\n".join([*notes, next_step]), file=sys.stderr, flush=True)
        return
    preset = make_target(directory, preset)
    print(f"{directory}: the nanoGPT target, preset {preset}, in a fresh git repository.")
    print(f"First, one run: overnight run --target {place} --proposer cma-es --trials 0")
    print(
        f"Then: overnight run --target {place} --llm-base-url URL --hours 8, with your notes for the model in notes.md"
    )


def make_target(directory: Path, preset: str | None) -> str:
    """Make a git repository with the nanoGPT target. Returns the preset; by default the one for this machine."""
    with _new_folder(directory):
        preset = write_preset(preset, directory)
        (directory / "notes.md").write_text(NOTES, encoding="utf-8")
    make_repository(directory, f"Start from preset {preset}")
    return preset


def adopt(directory: Path, project: Path) -> tuple[list[str], str]:
    """Write ``directory/target.toml`` for ``project``; no file is overwritten.

    Args:
        directory: the project itself, if it is in a git repository; otherwise a new folder, which receives a copy of
            the project as a git repository.
        project: a folder, or the script in it.

    Returns:
        Notes on what a person must check or do, and options for a proposer that works.
    """
    folder = project.parent if project.is_file() else project
    if not folder.is_dir():
        raise UsageError(f"--from {project}: no such file or folder.")
    for existing in {folder / "target.toml", directory / "target.toml"}:
        if existing.exists():
            raise UsageError(f"{existing} exists and is not overwritten. Start with `overnight run`.")
    names = files_of(folder)
    script = find_script(project)
    text, notes = describe(script, modules_of(script), ignored_of(folder))
    proposer = "cma-es" if "[[hyperparameters]]" in text else "code --llm-base-url URL"
    copied = directory.resolve() != folder.resolve()
    if not copied and names is None:
        raise UsageError(
            f"{folder} is not in a git repository. Run git init, git add and git commit there, or name a new folder "
            f"for a copy: overnight init {folder.resolve().name}-night --from {quote(str(project))}"
        )
    with _new_folder(directory) if copied else writing(directory):
        large = copy_files(folder, names, directory) if copied else ()
        (directory / "target.toml").write_text(text, encoding="utf-8")
        if not (directory / "notes.md").exists():
            (directory / "notes.md").write_text(NOTES, encoding="utf-8")
    if approvals.protected_keys(directory, tomllib.loads(text)):
        approvals.trust(directory)
    notes += [f"check    {name}: above 20 MB, not copied; use [target] mounts" for name in large]
    if copied:
        make_repository(directory, f"Copy {folder.resolve().name}")
    else:
        git, files = f"git -C {quote(str(directory))}", "target.toml notes.md"
        notes.append(f"then     {git} add {files} && {git} commit -m 'Add target.toml' {files}")
    return notes, proposer


@contextmanager
def _new_folder(directory: Path) -> Iterator[None]:
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file. Name a new folder.")
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty. Name a new folder.")
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        yield


def trust(directory: Path) -> None:
    name, here = "run.toml", directory.resolve()
    if (here / name).is_file():
        saved = load(RunDirectory(here.parent, here.name))[1]["run"]
        approvals.trust_run(here, saved)
        found = [f"{key} = {saved[key]!r}" for key in sorted(foreign_settings(saved))]
    else:
        name, found = "target.toml", approvals.protected_keys(directory, read_tables(directory))
        approvals.trust(directory)
    for entry in found:
        print(line(entry))
    entries = count(len(found), "protected entry", "protected entries")
    say(f"{directory / name} is trusted until it changes: {entries}.")


def prepare(target: str, data: str | None, verify: bool, cache: str) -> None:
    prepared = prepare_data(load_target(Path(target))[0], cache, say, data or "", verify)
    if prepared is None:
        what = f'{target}: a target with score = "stdout" reads its own data'
        if data:
            raise UsageError(f"--data {data}: {what}. Name folders in mounts of target.toml.")
        say(f"{what}: nothing to prepare.")
        return
    print(prepared.directory)
    for split, tokens in prepared.tokens.items():
        say(f"{split}: {tokens:,} tokens")
