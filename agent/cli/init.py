"""The commands that set up a target: ``init``, ``trust`` and ``prepare``."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from agent.cli.options import Commands, add_command
from agent.cli.output import say
from agent.errors import UsageError


def add(commands: Commands) -> None:
    parser = add_command(commands, "init", init, "")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--preset", choices=("demo", "cpu", "gpu"), help="size of model and budget; default: by hardware"
    )
    parser.add_argument(
        "--from", dest="project", type=Path, metavar="PROJECT",
        help="write target.toml for this folder or script; DIR is the folder itself, or a new one for a copy",
    )  # fmt: skip
    parser = add_command(commands, "trust", trust, "")
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder with a target.toml, or a run directory")
    parser = add_command(commands, "prepare", prepare, "cache -runs")
    parser.add_argument("--target", default=".", help="folder with a target.toml (default: .)")
    parser.add_argument("--data", help="a txt, jsonl or parquet file, a folder of them, or hub:OWNER/NAME")
    parser.add_argument("--verify", action="store_true", help="check the hash of every prepared file")


def init(directory: Path, preset: str | None, project: Path | None) -> int:
    """Make a git repository with the nanoGPT target, or a target.toml for an existing project."""
    place = quote(str(directory))
    if project is not None:
        if preset:
            raise UsageError("--preset belongs to the nanoGPT target. Remove --preset or --from.")
        notes, proposer = adopt(directory, project)
        print(directory / "target.toml")
        next_step = f"next     overnight run --target {place} --proposer {proposer} --trials 0"
        print("\n".join([*notes, next_step]), file=sys.stderr, flush=True)
        return 0
    preset = make_target(directory, preset)
    print(f"{directory}: the nanoGPT target, preset {preset}, in a fresh git repository.")
    print(f"First, one run: overnight run --target {place} --proposer cma-es --trials 0")
    print(
        f"Then: overnight run --target {place} --llm-base-url URL --hours 8, with your notes for the model in notes.md"
    )
    return 0


def make_target(directory: Path, preset: str | None) -> str:
    """The nanoGPT target in a git repository with one commit.

    Returns:
        The preset; by default the one for this machine.

    Raises:
        UsageError: ``directory`` is a file or not empty.
        EnvironmentProblem: the folder cannot be written, or git fails.
    """
    from agent.repo.create import make_repository
    from agent.rundir.directory import NOTES
    from agent.trial.trusted_target import write_preset

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

    Raises:
        UsageError: there is no script, more than one could be meant, or files would be overwritten.
        EnvironmentProblem: a folder cannot be written, or git fails.
    """
    from agent.repo.create import copy_files, files_of, ignored_of, make_repository
    from agent.scaffold.project import describe, find_script
    from agent.trial.imports import modules_of

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
    if directory.resolve() != folder.resolve():
        with _new_folder(directory):
            large = copy_files(folder, names, directory)
            notes += [f"check    {name}: above 20 MB, not copied; use [target] mounts" for name in large]
            _write(directory, text)
        make_repository(directory, f"Copy {folder.resolve().name}")
        return notes, proposer
    if names is None:
        raise UsageError(
            f"{folder} is not in a git repository. Run git init, git add and git commit there, or name a new folder "
            f"for a copy: overnight init {folder.resolve().name}-night --from {quote(str(project))}"
        )
    _write(directory, text)
    git, files = f"git -C {quote(str(directory))}", "target.toml notes.md"
    return [*notes, f"then     {git} add {files} && {git} commit -m 'Add target.toml' {files}"], proposer


def _write(directory: Path, text: str) -> None:
    from agent import trust as approvals
    from agent.rundir.directory import NOTES, writing

    with writing(directory):
        (directory / "target.toml").write_text(text, encoding="utf-8")
        if not (directory / "notes.md").exists():
            (directory / "notes.md").write_text(NOTES, encoding="utf-8")
    if approvals.protected_keys(directory, tomllib.loads(text)):
        approvals.trust(directory)


@contextmanager
def _new_folder(directory: Path) -> Iterator[None]:
    from agent.rundir.directory import writing

    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file. Name a new folder.")
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty. Name a new folder.")
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        yield


def trust(directory: Path) -> int:
    """Let a target.toml or a copied run directory choose sandbox, model server, mounts and other protected settings."""
    from agent import trust as approvals
    from agent.target import read_tables
    from agent.text import count, line

    if (directory / "run.toml").is_file():
        found, name = _trust_run(directory), "run.toml"
    else:
        found, name = approvals.protected_keys(directory, read_tables(directory)), "target.toml"
        approvals.trust(directory)
    for entry in found:
        print(line(entry))
    entries = count(len(found), "protected entry", "protected entries")
    say(f"{directory / name} is trusted until it changes: {entries}.")
    return 0


def _trust_run(directory: Path) -> list[str]:
    from agent.cli.runs import load
    from agent.rundir.directory import RunDirectory
    from agent.settings import foreign_settings
    from agent.trust import trust_run

    saved = load(RunDirectory(directory.resolve().parent, directory.resolve().name))[1]["run"]
    trust_run(directory, saved)
    return [f"{key} = {saved[key]!r}" for key in sorted(foreign_settings(saved))]


def prepare(target: str, data: str | None, verify: bool, cache: str) -> int:
    """Prepare data and tokenizer of a target."""
    from agent.target import load_target
    from agent.trial.trusted_target import prepare as prepare_data

    prepared = prepare_data(load_target(Path(target))[0], cache, say, data or "", verify)
    if prepared is None:
        what = f'{target}: a target with score = "stdout" reads its own data'
        if data:
            raise UsageError(f"--data {data}: {what}. Name folders in mounts of target.toml.")
        say(f"{what}: nothing to prepare.")
        return 0
    print(prepared.directory)
    for split, count in prepared.tokens.items():
        say(f"{split}: {count:,} tokens")
    return 0
