"""``overnight init``."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from agent.cli.options import Commands, add_command
from agent.errors import EnvironmentProblem, UsageError


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


def init(directory: Path, preset: str | None, project: Path | None) -> int:
    """Make a git repository with the nanoGPT target, or a target.toml for an existing project."""
    if project is not None:
        from agent.rundir.directory import NOTES
        from agent.scaffold.project import adopt

        if preset:
            raise UsageError("--preset belongs to the nanoGPT target. Remove --preset or --from.")
        return adopt(directory, project, NOTES)
    preset = make_target(directory, preset)
    print(f"{directory}: the nanoGPT target, preset {preset}, in a fresh git repository.")
    place = quote(str(directory))
    print(
        f"First, two runs without a model: overnight run --target {place} --proposer cma-es --policy greedy --trials 1"
    )
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
    from agent.rundir.directory import NOTES
    from agent.scaffold.project import make_repository
    from agent.trial.trusted_target import write_preset

    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file. Name a new folder.")
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty. Name a new folder.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        preset = write_preset(preset, directory)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {directory}: {error.strerror}.") from error
    (directory / "notes.md").write_text(NOTES, encoding="utf-8")
    make_repository(directory, f"Start from preset {preset}")
    return preset
