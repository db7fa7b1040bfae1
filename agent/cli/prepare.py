"""``overnight prepare``."""

from __future__ import annotations

from pathlib import Path

from agent.cli.options import Commands, add_command
from agent.cli.output import say
from agent.errors import UsageError


def add(commands: Commands) -> None:
    parser = add_command(commands, "prepare", prepare, "cache -runs")
    parser.add_argument("--target", default=".", help="folder with a target.toml (default: .)")
    parser.add_argument("--data", help="a txt, jsonl or parquet file, a folder of them, or hub:OWNER/NAME")
    parser.add_argument("--verify", action="store_true", help="check the hash of every prepared file")


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
