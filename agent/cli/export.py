"""``overnight export``."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.cli.options import Commands, add_command
from agent.cli.output import say
from agent.cli.runs import existing, load
from agent.errors import EnvironmentProblem


def add(commands: Commands) -> None:
    parser = add_command(commands, "export", export, "newest runs")
    parser.add_argument("--format", choices=("tsv", "csv", "json"), default="tsv", help="default: tsv")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: stdout")


def export(tag: str | None, format: str, output: Path | None, runs: str) -> int:
    """Print the attempts of a run as tsv, csv or json."""
    from agent.review.data.export import export as text_of
    from agent.text import count

    state, _ = load(existing(runs, tag))
    text = text_of(state, format)
    if output is None:
        sys.stdout.write(text)
        return 0
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {output}: {error.strerror}.") from error
    say(f"{output}: {count(len(state.finished), 'attempt')} as {format}")
    return 0
