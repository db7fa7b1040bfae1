"""The target.toml of an existing project, written by reading its script and never by running it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.errors import UsageError
from agent.scaffold import guesses
from agent.scaffold.metric import find_metric


def find_script(project: Path) -> Path:
    """The file itself, or train.py of a folder, or its only script."""
    usual = project / "train.py"
    scripts = [project] if project.is_file() else [usual] if usual.is_file() else sorted(project.glob("*.py"))
    if len(scripts) == 1:
        return scripts[0]
    names = ", ".join(path.name for path in scripts) or "no .py file"
    raise UsageError(f"{project} has no train.py, and which script to edit is not clear ({names}). Use --from FILE.py.")


def describe(script: Path, imported: Mapping[Path, ast.Module], ignored: Iterable[str]) -> tuple[str, list[str]]:
    """The text of target.toml for a script, and notes: what to fill in and what to check.

    Args:
        script: the file that edits change.
        imported: modules beside it that it imports.
        ignored: files of the project that git ignores, such as data.

    Raises:
        UsageError: the script is not Python in UTF-8.
    """
    source, tree = _parsed(script)
    modules = {script: tree, **imported}
    notes = ["check    [budget] seconds: 600 s for the whole process", *_seed_notes(script.name, source)]
    own_options = ["--out_dir={out}"] if "configurator.py" in source and "out_dir" in source else []  # nanoGPT
    mounts = sorted({mount for tree in modules.values() for mount in guesses.mounts_of(tree, ignored)})
    text = f"""\
# Written by `overnight init --from` from the source of the project. Check each line marked GUESS.
[target]
name = {_toml(script.parent.resolve().name)}
editable = [{_toml(script.name)}]
train = {_toml(["python", script.name, *own_options])}
score = "stdout"  # self-reported: the edited code prints its own value
{_metric(modules, notes)}"""
    if mounts:
        text += f"mounts = {_toml(mounts)}  # GUESS: read-only, at the path that the script names\n"
    text += f"""
[budget]
seconds = 600  # GUESS: bounds the whole process, start-up included

[limits]
memory_gb = {32 if "torch" in source else 8}  # GUESS
"""
    found = guesses.hyperparameters_of(source)
    if {"n_embd", "n_head"} <= {entry.name for entry in found}:
        text += '\n[search]\nconstraints = ["n_embd % n_head == 0"]  # GUESS\n'
    for entry, keys in found.items():
        name = f"name = {_toml(entry.name)}  # {entry.text}; bounds: GUESS"
        text += "\n".join(["", "[[hyperparameters]]", name, *keys, ""])
    if not found:
        notes.append(f"fill in  [[hyperparameters]]: {script.name} has no constants at its top level")
    return text, notes


def _parsed(script: Path) -> tuple[str, ast.Module]:
    if script.suffix != ".py":
        raise UsageError(f"--from {script}: not a Python script. Convert a notebook: jupyter nbconvert --to script")
    try:
        source = script.read_text(encoding="utf-8-sig")
        return source, ast.parse(source)
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{script}: not valid Python in UTF-8: {error}.") from None


def _seed_notes(name: str, source: str) -> list[str]:
    if "OVERNIGHT_SEED" in source:
        return []
    if edits := guesses.seed_edits(source):
        more = "" if re.search(r"^import .*\bos\b", source, re.M) else ", with import os"
        first = f"edit     {name}{more}: a fixed seed hides the noise between runs"
        return [first, *(f"         line {edit}" for edit in edits)]
    return [f"check    {name}: the seed comes from OVERNIGHT_SEED, or from seed_arg or seed_env in [target]"]


def _metric(modules: dict[Path, ast.Module], notes: list[str]) -> str:
    found = next(((metric, path.name) for path, tree in modules.items() if (metric := find_metric(tree))), None)
    if not found:
        notes.append("fill in  [target] pattern, metric and goal: no printed number looks like a metric")
        return """# FILL IN, such as: pattern = '^accuracy:\\s*(\\S+)', metric = "accuracy", goal = "maximize"\n"""
    metric, place = found[0], f"line {found[0].line} of {found[1]}"
    if metric.rank < 3:
        notes.append(f"check    [target] metric: is {metric.name} measured on held-out data?")
    return (
        f"pattern = {_toml(metric.pattern)}  # GUESS: {place}; the last match counts\n"
        f'metric = {_toml(metric.name)}\ngoal = "{metric.goal}"  # GUESS: from the name of the metric\n'
    )


def _toml(value: object) -> str:
    """A string or a list of strings as TOML; a literal string where that needs no escapes."""
    literal = isinstance(value, str) and "\\" in value and "'" not in value and value.isprintable()
    return f"'{value}'" if literal else json.dumps(value, ensure_ascii=False)
