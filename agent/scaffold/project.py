"""``overnight init DIR --from PROJECT``: write target.toml for a training script by reading it, never by running it."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.errors import EnvironmentProblem, UsageError
from agent.scaffold import guesses
from agent.scaffold.metric import find_metric
from agent.trust import protected_keys, trust

Modules = Mapping[Path, ast.Module]  # the script and the modules beside it that it imports

LARGEST = 20 << 20  # bytes of a file that is copied; larger files are data
_JUNK = {".git", "__pycache__", ".venv", "venv", "node_modules", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache"}


def adopt(directory: Path, project: Path, model_notes: str) -> int:
    """Write ``directory/target.toml`` for ``project`` and list what a person must check or fill in.

    Args:
        directory: the project itself, if it is in a git repository; otherwise a new folder, which receives a copy of
            the project as a git repository.
        project: a folder, or the script in it.
        model_notes: content of notes.md, if the project has none.

    Raises:
        UsageError: there is no script, more than one could be meant, or files would be overwritten.
    """
    folder = project.parent if project.is_file() else project
    if not folder.is_dir():
        raise UsageError(f"--from {project}: no such file or folder.")
    in_place = directory.exists() and directory.resolve() == folder.resolve()
    for existing in {folder / "target.toml", directory / "target.toml"}:
        if existing.exists():
            raise UsageError(f"{existing} exists and is not overwritten. Start with `overnight run`.")
    known = _in_repository(folder) and not _git(folder, "check-ignore", folder.resolve())
    if in_place and not known:
        raise UsageError(
            f"{folder} is not in a git repository. Run git init, git add and git commit there, or name a new folder "
            f"for a copy: overnight init {folder.resolve().name}-night --from {shlex.quote(str(project))}"
        )
    if not in_place and directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty. Name a new folder, or the project itself.")
    script = project if project.is_file() else _script(folder)
    text, notes = describe(script)
    if in_place and (script.is_symlink() or _git(folder, "status", "--porcelain", "--", script.name)):
        notes.append(f"check    {script.name}: a trial sees only files that are committed, and no links")
    try:
        if not in_place:
            notes += _copy(folder, directory, bool(known))
        (directory / "target.toml").write_text(text, encoding="utf-8")
        if not (directory / "notes.md").exists():
            (directory / "notes.md").write_text(model_notes, encoding="utf-8")
        if protected_keys(directory, tomllib.loads(text)):
            trust(directory)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {error.filename or directory}: {error.strerror}.") from error
    if not in_place:
        make_repository(directory, f"Copy {folder.resolve().name}")
    print(directory / "target.toml")
    place = shlex.quote(str(directory))
    git, files = f"git -C {place}", "target.toml notes.md"
    notes.append(f"then     {git} add {files} && {git} commit -m 'Add target.toml' {files}")
    proposer = "cma-es" if "[[hyperparameters]]" in text else "code --llm-base-url URL"
    notes.append(f"next     overnight run --target {place} --proposer {proposer} --policy greedy --trials 1")
    print("\n".join(note for note in notes if in_place or not note.startswith("then")), file=sys.stderr, flush=True)
    return 0


def _script(folder: Path) -> Path:
    """train.py, or the only script that prints a metric."""
    if (folder / "train.py").is_file():
        return folder / "train.py"
    scripts = sorted(folder.glob("*.py"))
    able = [path for path in scripts if _prints_metric(path)] if len(scripts) > 1 else scripts
    if len(able) == 1:
        return able[0]
    names = ", ".join(path.name for path in able or scripts) or "no .py file"
    raise UsageError(f"{folder} has no train.py, and which script to edit is not clear ({names}). Use --from FILE.py.")


def _prints_metric(path: Path) -> bool:
    try:
        return find_metric(ast.parse(path.read_bytes())) is not None
    except (OSError, SyntaxError, ValueError):
        return False


def describe(script: Path) -> tuple[str, list[str]]:
    """The text of target.toml for a script, and notes: what to fill in and what to check."""
    if script.suffix != ".py":
        raise UsageError(f"--from {script}: not a Python script. Convert a notebook: jupyter nbconvert --to script")
    try:
        source = script.read_text(encoding="utf-8-sig")
        modules = {script: ast.parse(source), **guesses.modules_of(script)}
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{script}: not valid Python in UTF-8: {error}.") from None
    notes: list[str] = []
    lines = [
        "# Written by `overnight init --from` from the source of the project. Check each line marked GUESS.",
        *_target_lines(script, source, modules, notes),
        *_budget_lines(source, modules, notes),
        *_search_lines(script, source, notes),
    ]
    return "\n".join(lines) + "\n", notes


def _target_lines(script: Path, source: str, modules: Modules, notes: list[str]) -> Iterator[str]:
    folder = script.parent
    own_options = ["--out_dir={out}"] if "configurator.py" in source and "out_dir" in source else []  # nanoGPT
    yield "[target]"
    yield f"name = {_toml(folder.resolve().name)}"
    yield f"editable = [{_toml(script.name)}]"
    yield f"train = {_toml(['python', script.name, *own_options])}"
    yield from _seed_lines(script.name, source, notes)
    yield 'score = "stdout"  # self-reported: the edited code prints its own value'
    found = next(((metric, path.name) for path, tree in modules.items() if (metric := find_metric(tree))), None)
    if found:
        metric, name = found
        yield f"pattern = {_toml(metric.pattern)}  # GUESS: line {metric.line} of {name}; the last match counts"
        yield f"metric = {_toml(metric.name)}"
        yield f'goal = "{metric.goal}"  # GUESS: from the name of the metric'
        if metric.rank < 3:
            notes.append(f"check    [target] metric: is {metric.name} measured on held-out data?")
    else:
        yield "# FILL IN, for a script that prints `accuracy: 0.93`:"
        yield from (r"# pattern = '^accuracy:\s*(\S+)'", '# metric = "accuracy"', '# goal = "maximize"')
        notes.append("fill in  [target] pattern, metric and goal: no printed number looks like a metric")
    ignored = _git(folder, "ls-files", "--others", "--ignored", "--exclude-standard").splitlines()
    if mounts := list(dict.fromkeys(m for tree in modules.values() for m in guesses.mounts_of(tree, ignored))):
        yield f"mounts = {_toml(mounts)}  # GUESS: read-only, at the path that the script names"
    missing = [mount for mount in mounts if not (folder / Path(mount).expanduser()).is_dir()]
    notes += [f"check    [target] mounts: {mount} does not exist yet" for mount in missing]


def _seed_lines(name: str, source: str, notes: list[str]) -> Iterator[str]:
    if key := guesses.seed_key_of(source):
        if "OVERNIGHT_SEED" not in key:
            yield f"{key}  # GUESS: receives the seed of each run"
        return
    if edits := guesses.seed_edits(source):
        more = "" if re.search(r"^import .*\bos\b", source, re.M) else ", with import os"
        notes.append(f"edit     {name}{more}: a fixed seed hides the noise between runs")
        notes += [f"         line {edit}" for edit in edits]
    else:
        notes.append(f"check    {name} does not read OVERNIGHT_SEED: a fixed seed hides the noise between runs")


def _budget_lines(source: str, modules: Modules, notes: list[str]) -> Iterator[str]:
    budgets = (guesses.seconds_of(tree) for tree in modules.values())
    seconds, why = next(filter(None, budgets), (600.0, "no constant such as TIME_BUDGET"))
    yield from ("", "[budget]", f"seconds = {seconds:g}  # GUESS: {why}; bounds the whole process, start-up included")
    yield from ("", "[limits]", f"memory_gb = {32 if 'torch' in source else 8}  # GUESS")
    notes.append(f"check    [budget] seconds: {seconds:g} s for the whole process ({why})")


def _search_lines(script: Path, source: str, notes: list[str]) -> Iterator[str]:
    found = guesses.hyperparameters_of(source)
    if {"n_embd", "n_head"} <= {constant.name for constant in found}:
        yield from ("", "[search]", 'constraints = ["n_embd % n_head == 0"]  # GUESS')
    for constant, keys in found.items():
        yield from (
            "",
            "[[hyperparameters]]",
            f"name = {_toml(constant.name)}  # {constant.text}; bounds: GUESS",
            *keys,
        )
    if not found:
        notes.append(
            f"fill in  [[hyperparameters]]: {script.name} has no constants at its top level (cma-es needs them)"
        )


def _toml(value: object) -> str:
    """A string or a list of strings as TOML; a literal string where that needs no escapes."""
    literal = isinstance(value, str) and "\\" in value and "'" not in value and value.isprintable()
    return f"'{value}'" if literal else json.dumps(value, ensure_ascii=False)


def _copy(folder: Path, directory: Path, known: bool) -> list[str]:
    """Copy what git tracks or would track, or without git all but caches; returns notes on files left out."""
    notes, inside = [], directory.resolve()
    names = list(_names(folder, known))
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        source = folder / name
        if not source.is_file() or source.resolve().is_relative_to(inside):
            continue
        if source.stat().st_size > LARGEST:
            notes.append(
                f"check    {name} is larger than 20 MB and was not copied: put its folder into [target] mounts"
            )
            continue
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, directory / name)
    return notes


def _names(folder: Path, known: bool) -> Iterator[str]:
    if known:
        for words in (("--cached", "--recurse-submodules"), ("--others", "--exclude-standard")):
            yield from filter(None, _git(folder, "ls-files", "-z", *words).split("\0"))
        return
    for path in sorted(folder.rglob("*")):
        if not _JUNK.intersection(path.relative_to(folder).parts):
            yield str(path.relative_to(folder))


def make_repository(directory: Path, message: str) -> None:
    """Make ``directory`` a git repository with one commit of everything in it.

    Raises:
        EnvironmentProblem: git is missing or fails.
    """
    identity = ["-c", "user.name=Overnight", "-c", "user.email=overnight@localhost", "-c", "commit.gpgSign=false"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A", "-f"], [*identity, "commit", "-q", "-m", message]):
        done = _run_git(directory, "-c", "core.hooksPath=/dev/null", *words)
        if done.returncode:
            raise EnvironmentProblem(f"git {words[0]} failed in {directory}: {done.stderr.strip()}")


def _in_repository(folder: Path) -> bool:
    """Whether git finds a working tree here.

    Raises:
        EnvironmentProblem: git refuses for another reason than a missing repository, such as its owner; quotes git.
    """
    done = _run_git(folder, "rev-parse", "--is-inside-work-tree")
    if done.returncode and "not a git repository" not in done.stderr:
        raise EnvironmentProblem(f"git rev-parse failed in {folder}: {done.stderr.strip().splitlines()[0]}")
    return done.stdout.strip() == "true"


def _git(folder: Path, *words: str | Path) -> str:
    """The output of a git command; "" if the command fails."""
    done = _run_git(folder, *words)
    return done.stdout.strip() if done.returncode == 0 else ""


def _run_git(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    english = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}  # `_in_repository` reads git's message
    command = ["git", "-C", folder, *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", env=english)
    except OSError:
        raise EnvironmentProblem("git is not installed.") from None
