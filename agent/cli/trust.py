"""``overnight trust``."""

from __future__ import annotations

from pathlib import Path

from agent.cli.options import Commands, add_command
from agent.cli.output import say


def add(commands: Commands) -> None:
    parser = add_command(commands, "trust", trust, "")
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder with a target.toml")


def trust(directory: Path) -> int:
    """Let target.toml set protected settings, such as sandbox, llm_base_url and mounts."""
    from agent import trust as approvals
    from agent.target import read_tables
    from agent.text import count, line

    found = approvals.protected_keys(directory, read_tables(directory))
    approvals.trust(directory)
    for entry in found:
        print(line(entry))
    entries = count(len(found), "protected entry", "protected entries")
    say(f"{directory / 'target.toml'} is trusted until it changes: {entries}.")
    return 0
