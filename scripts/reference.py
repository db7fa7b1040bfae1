"""Writes the tables of docs/reference from the code. With --check it only compares."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from agent.cli.parser import build_parser, commands_of
from agent.ledger.events import EVENTS
from agent.proposers import METHODS
from agent.settings import Settings
from agent.target import TARGET_KEYS, load_target
from nanogpt_target.prepare import DEFAULTS

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
BEGIN, END = "<!-- begin: written by scripts/reference.py -->", "<!-- end -->"


def commands() -> str:
    """Every command with its options, in the groups of --help."""
    parts = []
    for name, parser in commands_of(build_parser()).items():
        words = [(a.metavar or a.dest, a.nargs) for a in parser._actions if not a.option_strings]
        shown = " ".join(f"[{word}]" if nargs == "?" else str(word) for word, nargs in words)
        parts.append(f"## `overnight {name}{' ' + shown if shown else ''}`\n\n{parser.description}\n")
        first, second, *others = parser._action_groups  # arguments, options, groups of settings
        tables = {"": first._group_actions + second._group_actions} | {str(g.title): g._group_actions for g in others}
        for title, actions in tables.items():
            shown_actions = [a for a in actions if a.help not in (None, argparse.SUPPRESS) and a.dest != "help"]
            rows = [f"| {_flag(a)} | {_cell(a.help)} |" for a in shown_actions]
            if rows:
                parts.append("\n".join([f"| {title or 'option'} | meaning |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def settings() -> str:
    """Every key of a settings file."""
    rows = []
    for field in dataclasses.fields(Settings):
        default = "" if field.default in (None, "") else f"`{str(field.default).lower()}`"
        choices = ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
        text = field.metadata["help"] + (f": {choices}" if choices else "")
        rows.append(f"| `{field.name}` | {default} | {_cell(text)} |")
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows]) + "\n"


TARGET = {  # table: key: meaning. A missing or outdated key is an error.
    "target": {
        "name": "name of the target",
        "editable": "the one file that edits may change",
        "train": "training command; `python` becomes the interpreter of the sandbox",
        "score": "`trusted`: computed from a checkpoint by the host. `stdout`: last match of `pattern`, its default",
        "pattern": 'regular expression with one group, for `score = "stdout"`',
        "metric": "name of the value",
        "goal": "`minimize` or `maximize`",
        "mounts": "host directories that training may read, read-only",
        "smoke": 'command that tests a new program briefly, for `score = "stdout"`; exit status 0 passes',
        "python": "interpreter of trials outside of Docker; default: Overnight's own. `--python` replaces it",
        "seed_env": 'environment variable that receives the seed of a run, for `score = "stdout"`',
        "seed_arg": 'argument that receives it: `"--seed"` adds `--seed 7`, `"seed="` adds `seed=7`',
    },
    "budget": {
        "seconds": "training per run, enforced by the host; set exactly one of seconds, steps, tokens",
        "steps": "training per run in optimiser steps, counted by the harness",
        "tokens": "training per run in tokens, counted by the harness",
        "wall_seconds": "bound on training time for a budget in steps or tokens",
        "startup_seconds": "bound on start-up: imports, compilation, first batch",
        "score_seconds": "bound on scoring",
    },
    "limits": {
        "memory_gb": "memory of a trial",
        "vram_gb": "GPU memory of a trial in GiB: must be free at its start; a trial that uses more is killed",
        "disk_gb": "disk space that a trial may write",
        "processes": "processes and threads of a trial",
    },
    "search": {"constraints": "comparisons between parameters that every configuration must satisfy"},
    "hyperparameters": {
        "name": "name in the marked block",
        "kind": "`int`, `float` or `categorical`; default: from the value in the block and the bounds",
        "low": "smallest value",
        "high": "largest value",
        "log": "search on a logarithmic scale",
        "power_of_two": "powers of two only",
        "choices": "values of a categorical parameter, instead of low and high",
    },
    "data": {
        "source": "`builtin`, a file or folder, or `hub:OWNER/NAME`",
        "files": "patterns of file names of a hub data set",
        "vocab_size": "of the tokenizer",
        "sequence_length": "tokens in a row",
        "validation_tokens": "size of the validation split",
        "test_tokens": "size of the test split",
        "train_bytes": "bytes of the built-in corpus to train on; 0: all",
        "download_gb": "bound on the download of a hub data set without `files`",
    },
    "run": {"any setting": "see [settings](settings.md); some need a trusted file"},
}


def target() -> str:
    """Every table and key of a target.toml, with the default in the code."""
    keys = {table: names or tuple(TARGET[table]) for table, names in TARGET_KEYS.items()} | {"data": tuple(DEFAULTS)}
    wrong = [table for table in {*keys, *TARGET} if set(keys.get(table, ())) != set(TARGET.get(table, ()))]
    if wrong:
        raise SystemExit(f"scripts/reference.py: TARGET does not have the keys of [{wrong[0]}] in agent/target.py")
    defaults = defaults_of_target()
    rows = []
    for table, names in keys.items():
        shown = "[[hyperparameters]]" if table == "hyperparameters" else f"[{table}]"
        own = defaults | {"name": "required"} if table == "hyperparameters" else defaults
        rows += [f"| `{shown}` | `{key}` | {own.get(key, '')} | {_cell(TARGET[table][key])} |" for key in names]
    return "\n".join(["| table | key | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def defaults_of_target() -> dict[str, str]:
    """The values of a target.toml with only the required keys."""
    least = '[target]\neditable = ["train.py"]\ntrain = ["python"]\n[budget]\nsteps = 1\n'
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "target.toml").write_text(least)
        found, _ = load_target(Path(folder))
    values = {**dataclasses.asdict(found.budget), **dataclasses.asdict(found), **DEFAULTS}
    values |= {"log": False, "power_of_two": False}
    shown = {"name": "the folder's", "editable": "required", "train": "required"}
    for key, value in values.items():
        if key not in shown and value not in (None, "", (), []):
            shown[key] = f"`{value:g}`" if isinstance(value, float) else f"`{str(value).lower()}`"
    return shown


def ledger() -> str:
    """The names of the events."""
    return ", ".join(f"`{event}`" for event in EVENTS) + "\n"


MODULES = {
    "list": "agent.review.data.runs",
    "ideas": "agent.proposers.ideas.bank",
    "status": "agent.review.data.status",
    "log": "agent.review.data.attempts",
    "show": "agent.review.data.attempt",
    "diff": "agent.review.data.pair",
    "replay promote": "agent.replay.view",
    "compare": "agent.compare.view",
    "export": "agent.review.data.export",
}


def schemas() -> str:
    """The --json output of each command, from the docstring of its module."""
    parts = []
    for names, module in MODULES.items():
        text = import_module(module).__doc__ or ""
        schema = text[text.index("``", text.index("\n\n``")) :].strip()
        option = "--format json" if names == "export" else "--json"
        heading = " and ".join(f"`overnight {name} {option}`" for name in names.split())
        parts.append(f"## {heading}\n\n{schema.replace('``', '`')}\n")
    return "\n".join(parts)


def proposers() -> str:
    """Every proposer, from the docstrings of its class and module."""
    rows = [
        "| `code` | yes | Unified diffs to the whole file, written by a model. |",
        "| `ideas` | no | Recipes of the [idea bank](../how-to/ideas.md), the best expected first. |",
    ]
    for name, (module, attribute, talks) in METHODS.items():
        own = (getattr(import_module(module), attribute).__doc__ or "").split("\n\n")[0].replace("``", "`")
        shared = (import_module(module).__doc__ or "").split("\n\n")[0]
        own = own.removeprefix(f"`{name}`").lstrip(".: ")
        words = " ".join(f"{shared} {own[:1].upper()}{own[1:]}".split())
        rows.append(f"| `{name}` | {'yes' if talks else 'no'} | {_cell(words)} |")
    return "\n".join(["| `--proposer` | asks a model | what it does |", "|---|---|---|", *rows]) + "\n"


PAGES = {
    "proposers.md": {"proposers": proposers},
    "commands.md": {"commands": commands},
    "settings.md": {"settings": settings},
    "target-toml.md": {"target": target},
    "json.md": {"schemas": schemas},
    "files-and-refs.md": {"ledger": ledger},
}


def _flag(action: argparse.Action) -> str:
    """An option with its value, or an argument."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    value = "" if action.nargs == 0 else f" {action.metavar or '/'.join(action.choices or ()) or action.dest.upper()}"
    return f"`{', '.join(action.option_strings)}{value}`".replace("|", "\\|")


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("%%", "%")


def pages() -> Iterator[tuple[Path, str, str]]:
    """Each page: path, present text, wanted text."""
    for name, parts in PAGES.items():
        path = REFERENCE / name
        text = path.read_text()
        wanted = text
        for make in parts.values():
            head, _, rest = wanted.partition(BEGIN)
            _, _, tail = rest.partition(END)
            wanted = f"{head}{BEGIN}\n\n{make()}\n{END}{tail}"
        yield path, text, wanted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a page differs from the code")
    check = parser.parse_args().check
    stale = [(path, wanted) for path, text, wanted in pages() if text != wanted]
    for path, wanted in stale:
        if not check:
            path.write_text(wanted)
        print(f"{path.name} {'is outdated: run scripts/reference.py' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
