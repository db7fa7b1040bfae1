"""``overnight trust``."""

from __future__ import annotations

from pathlib import Path

from agent.cli.options import Commands, add_command
from agent.cli.output import say


def add(commands: Commands) -> None:
    parser = add_command(commands, "trust", trust, "")
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder with a target.toml, or of a run")


def trust(directory: Path) -> int:
    """Let a target.toml or a copied run set protected settings, such as sandbox, llm_base_url and mounts."""
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
