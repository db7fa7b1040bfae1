"""``overnight init DIR --from PROJECT``: a target.toml for a trainer that knows nothing of us, written by looking.

The project is read, never run. What is guessed is marked as guessed in the file; what cannot be found is listed.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import EnvironmentProblem, UsageError
from agent.scaffold.bounds import Guess, guess_constraints, guess_hyperparameters
from agent.scaffold.preflight import find_habits, writes
from agent.scaffold.source_scan import Constant, Metric, find_constants, find_metric, find_paths

LARGEST = 20 << 20  # bytes of a file that is copied: greater ones are data
_JUNK = {".git", "__pycache__", ".venv", "venv", "node_modules", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache"}
_UNIT = r"(TIME|SECONDS?|SECS?|MINUTES?|HOURS?)"
_TIME = re.compile(rf"{_UNIT}_?(BUDGET|LIMIT)|(BUDGET|MAX|LIMIT|TRAIN\w*)_{_UNIT}", re.I)
_COMMON = ("~", "~/.cache", "~/.config", "~/.local", "~/.local/share")
_WRITTEN = re.compile(r"(^|/)(out|outputs?|logs?|wandb|runs|checkpoints?|results?)(/|$)")
_ASIDE = re.compile(r"(^|/)(setup|conftest|__init__|test_[^/]*|[^/]*_test)\.py$")  # no trainer
_HEAVY = re.compile(r"^\s*(import|from) (torch|jax|tensorflow)\b", re.M)


@dataclass
class Look:
    """What was seen of a project. ``missing``: keys that a person must fill in; ``check``: what to look at;
    ``commit``: files that a commit has to hold."""

    folder: Path
    script: str  # path of the editable file
    source: str
    tree: ast.Module
    metric: Metric | None = None
    printed_by: str = ""  # file that prints the metric
    seconds: float = 600.0
    why_seconds: str = "guessed: no constant like TIME_BUDGET was found"
    guesses: list[Guess] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)
    commit: list[str] = field(default_factory=lambda: ["target.toml"])


def adopt(directory: Path, project: Path) -> int:
    """Write ``directory/target.toml`` for ``project``, a folder or the script in it, and say what is missing.

    ``directory`` is the project itself, if that is in a git repository; else a new folder, to which the project is
    copied as a git repository of its own.

    Raises:
        UsageError: there is a target.toml already, no script to edit was found, or files would be overwritten.
    """
    folder = project.parent if project.is_file() else project
    if project.is_file() and project.suffix != ".py":
        note = " Make a script of the notebook: jupyter nbconvert --to script." if project.suffix == ".ipynb" else ""
        raise UsageError(f"--from {project}: no Python script.{note}")
    if not folder.is_dir():
        raise UsageError(f"--from {project}: no such file or folder.")
    same = directory.exists() and directory.resolve() == folder.resolve()
    for place in dict.fromkeys((folder, directory)):
        if (place / "target.toml").exists():
            raise UsageError(f"{place / 'target.toml'} exists, and is left as it is. Start with `overnight run`.")
    versioned = _git(folder, "rev-parse", "--is-inside-work-tree") == "true"
    versioned = versioned and not _git(folder, "check-ignore", str(folder.resolve()))
    if same and not versioned:
        raise UsageError(
            f"{folder} is not in a git repository, which a run needs. Name a new folder, to which it is copied, as in "
            f"`overnight init {shlex.quote(f'{folder.resolve().name}-night')} --from {shlex.quote(str(project))}`, or "
            f"make it one: git init, git add, git commit."
        )
    if not same and directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty. Name a new folder, or the project itself.")
    found = look(project, versioned)
    text = describe(found)
    if same:
        _check_committed(found)
    else:
        _copy(folder, directory, versioned, found)
    try:
        (directory / "target.toml").write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {directory / 'target.toml'}: {error.strerror}.") from error
    if not same:
        _commit(directory)
    _tell(directory, found, committed=not same)
    return 0


# --- looking --------------------------------------------------------------------------------------------------------


def look(project: Path, versioned: bool) -> Look:
    folder = project.parent if project.is_file() else project
    script = project if project.is_file() else _script(folder)
    source, tree = _read(script)
    found = Look(folder, script.name, source, tree)
    constants = find_constants(tree)
    modules = {script.name: tree, **_siblings(folder, tree)}
    for name, module in modules.items():
        if found.metric is None and (metric := find_metric(module)):
            found.metric, found.printed_by = metric, name
    if found.metric is None:
        found.missing.append("[target] metric, pattern and goal: no printed number looks like a metric")
    elif not found.metric.sure_of_goal:
        found.check.append(f"[target] goal: {found.metric.name} does not say which way is better")
    for name, module in modules.items():
        _find_seconds(found, name, find_constants(module))
        _find_mounts(found, module, versioned)
    if found.why_seconds.startswith("guessed"):
        found.check.append(f"[budget] seconds: {found.seconds:g} is a guess; it bounds the whole process")
    found.guesses, found.left = guess_hyperparameters(constants)
    if not found.guesses:
        found.missing.append(
            "[[hyperparameters]]: no constant with a literal value was found at the top level; cma-es and the like "
            "need them, --proposer code does not"
        )
    _find_habits(found, constants, modules)
    return found


def _script(folder: Path) -> Path:
    """The file to edit: train.py, or the only script that prints a metric."""
    if (folder / "train.py").is_file():
        return folder / "train.py"
    scripts = [path for path in sorted(folder.glob("*.py")) if not _ASIDE.search(path.name)]
    able = [path for path in scripts if (tree := _parse(path)) and find_metric(tree)] if len(scripts) > 1 else scripts
    if len(able) == 1:
        return able[0]
    below = [path for path in sorted(folder.rglob("*.py")) if not _JUNK.intersection(path.relative_to(folder).parts)]
    likely = able or scripts or [path for path in below if (tree := _parse(path)) and find_metric(tree)] or below
    names = [str(path.relative_to(folder)) for path in likely if not _ASIDE.search(path.name)]
    notebook = next(folder.glob("*.ipynb"), None)
    raise UsageError(
        f"{folder} has no train.py, and it is not clear what to edit ({', '.join(names[:9]) or 'no .py file'}). "
        f"Name it: --from FILE.py"
        + (f". {notebook.name} is a notebook: make a script of it (jupyter nbconvert --to script)" if notebook else "")
    )


def _read(path: Path) -> tuple[str, ast.Module]:
    try:
        source = path.read_text(encoding="utf-8")
        if source.startswith("\ufeff"):
            raise UsageError(f"{path} begins with a byte order mark: save it as UTF-8 without one.")
        return source, ast.parse(source)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text: save it as UTF-8.") from None
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path}: not valid Python: {error}.") from None


def _parse(path: Path) -> ast.Module | None:
    """A file that is only looked at, in whatever encoding it says it has; None if it is no Python of today."""
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _siblings(folder: Path, tree: ast.Module) -> dict[str, ast.Module]:
    """The project's own modules that the script imports, and those that they import."""
    found: dict[str, ast.Module] = {}
    waiting = [tree]
    while waiting:
        for node in ast.walk(waiting.pop()):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                path = folder / f"{name.replace('.', '/')}.py"
                relative = str(path.relative_to(folder))
                if relative not in found and path.is_file() and (module := _parse(path)):
                    found[relative] = module
                    waiting.append(module)
    return found


def _find_seconds(found: Look, name: str, constants: list[Constant]) -> None:
    for constant in constants:
        unit = 3600 if "HOUR" in constant.name.upper() else 60 if "MINUTE" in constant.name.upper() else 1
        if not (_TIME.search(constant.name) and isinstance(constant.value, (int, float))):
            continue
        if (value := constant.value * unit) > 1:
            found.seconds = max(2 * value, value + 60)
            found.why_seconds = (
                f"{constant.name} = {constant.value} in {name}, and as much for start-up and evaluation, at least 60 s"
            )


def _find_mounts(found: Look, tree: ast.Module, versioned: bool) -> None:
    """Directories outside of the repository that the script names: below the home directory, or ignored by git."""
    for text in sorted(set(find_paths(tree)), key=len):
        text = text.rstrip("/")
        if not 0 < len(text) < 200 or any(text == m or text.startswith(m + "/") for m in found.mounts):
            continue
        likely = " " not in text or Path(text).expanduser().is_dir()  # and no sentence
        if text.startswith("~/") and text not in _COMMON and ".." not in text and likely:
            found.mounts.append(text)
            if not Path(text).expanduser().is_dir():
                found.check.append(f"[target] mounts: {text} is not there yet; prepare the data first")
        elif versioned and _ignored_folder(found.folder, text):
            found.mounts.append(text)


def _ignored_folder(folder: Path, text: str) -> bool:
    """Whether a text names a folder of the project that holds files which git leaves out, and not the outputs."""
    if not re.fullmatch(r"[\w-][\w./-]*", text) or ".." in text or _WRITTEN.search(text):
        return False
    found = (folder / text).is_dir() and _git(
        folder, "ls-files", "--others", "--ignored", "--exclude-standard", "--", text
    )
    return any("__pycache__" not in name for name in (found or "").splitlines())


def _find_habits(found: Look, constants: list[Constant], modules: dict[str, ast.Module]) -> None:
    """What makes a script fail in a sandbox, or run otherwise than it reads."""
    if "configurator.py" in found.source and any(c.name == "out_dir" for c in constants):
        found.arguments.append("--out_dir={out}")  # nanoGPT's way to set a constant from outside
    found.check += find_habits(found.folder, found.script, found.source, modules)
    if not found.arguments and (line := writes(found.source)):
        found.check.append(
            f"{found.script}:{line} seems to write files: in a trial only /tmp and {{out}} (in `train`) can be written"
        )
    if "OVERNIGHT_SEED" not in found.source:
        found.check.append(
            f"{found.script} does not read OVERNIGHT_SEED: if it fixes its seed, repeated runs say nothing of the noise"
        )


def _check_committed(found: Look) -> None:
    """In place, a trial sees what is in a commit, and of that only files."""
    script = found.folder / found.script
    if script.is_symlink():
        raise UsageError(f"{script} is a link. Name the file itself: --from {script.resolve()}")
    if _git(found.folder, "status", "--porcelain", "--", found.script):
        found.commit.append(found.script)
        found.check.append(f"{found.script} is not as it was committed, and a trial sees what is: commit it")
    rows = _git(found.folder, "ls-files", "-s", "-z").split("\0")
    if names := [row.partition("\t")[2] for row in rows if row.startswith(("120000", "160000"))]:
        found.check.append(
            f"{', '.join(names[:9])}: links and submodules are not there in a trial. A copy has what they lead to: "
            f"overnight init NEW --from {shlex.quote(str(found.folder))}"
        )


# --- writing --------------------------------------------------------------------------------------------------------


def describe(found: Look) -> str:
    """The text of target.toml."""
    metric = found.metric
    train = _text(["python", found.script, *found.arguments])
    lines = [
        "# Written by `overnight init --from`, by reading the project. What is marked as guessed deserves a look.",
        "[target]",
        f"name = {_text(found.folder.resolve().name)}",
        f"editable = [{_text(found.script)}]",
        f"train = {train}",
        'score = "stdout"  # self-reported: the edited code prints its value itself',
    ]
    if metric is None:
        lines.append(
            "# FILL IN: nothing printed looks like a metric. A line for a script that prints `accuracy: 0.93`:"
        )
        lines.append(
            r"""# pattern = '^accuracy:\s*([0-9.]+)'  # and metric = "accuracy", goal = "maximize" """.rstrip()
        )
    else:
        quoted = f"'{metric.pattern}'" if "'" not in metric.pattern else _text(metric.pattern)
        lines += [
            f"pattern = {quoted}  # line {metric.line} of {found.printed_by}; the last match counts",
            f"metric = {_text(metric.name)}",
            f'goal = "{metric.goal}"  # guessed by the name',
        ]
    if found.mounts:
        lines.append(f"mounts = {_text(found.mounts)}  # read-only, where the script looks for them")
    lines += ["", "[budget]", f"seconds = {found.seconds:g}  # of the whole process; {found.why_seconds}"]
    memory = 32 if _HEAVY.search(found.source) else 8
    lines += ["", "[limits]", f"memory_gb = {memory}  # guessed"]
    if constraints := guess_constraints(found.guesses):
        lines += ["", "[search]", f"constraints = {_text(constraints)}  # guessed by the names"]
    if found.left:
        lines += [
            "",
            f"# Left out: a search should not change them, or their bounds are not clear: {', '.join(found.left)}",
        ]
    for guess in found.guesses:
        said = f"{found.script}:{guess.constant.line}, {guess.constant.value}"
        lines += ["", "[[hyperparameters]]", f"name = {_text(guess.constant.name)}  # {said}"]
        lines += [
            f"{key} = {value}{'  # bounds are guessed' if not k else ''}" for k, (key, value) in enumerate(guess.keys)
        ]
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    """A text or a list of texts as TOML."""
    return json.dumps(value, ensure_ascii=False)


def _copy(folder: Path, directory: Path, versioned: bool, found: Look) -> None:
    """The project's own files: what git knows or would, or all but junk and data."""
    inside = directory.resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in _names(folder, versioned):
            source = folder / name
            if source.is_symlink() and source.is_dir():
                found.check.append(f"{name} is a link to a folder and was not copied; data belong in [target] mounts")
            if not source.is_file() or source.resolve().is_relative_to(inside):
                continue
            if source.stat().st_size > LARGEST:
                found.check.append(f"{name} is large and was not copied; a folder of data belongs in [target] mounts")
                continue
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, directory / name)
    except OSError as error:
        raise EnvironmentProblem(f"cannot copy {folder} to {directory}: {error.strerror}.") from error
    for mount in found.mounts:
        if not mount.startswith("~"):
            found.missing.append(
                f"{directory / mount}: not in git, so not copied; put the data of {folder / mount} there"
            )


def _names(folder: Path, versioned: bool) -> Iterator[str]:
    """Files to copy, and links; of a submodule what lies there now."""
    if versioned:
        listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".").split("\0")
        yield from filter(None, listed)
        places = [folder / name for name in listed if name and (folder / name).is_dir()]
        places = [place for place in places if not place.is_symlink()]
    else:
        places = [folder]
    for place in places:
        for path in sorted(place.rglob("*")):
            if not _JUNK.intersection(path.relative_to(folder).parts):
                yield str(path.relative_to(folder))


def _commit(directory: Path) -> None:
    identity = ["-c", "user.name=Overnight", "-c", "user.email=overnight@localhost", "-c", "commit.gpgSign=false"]
    add, commit = ["add", "-A", "-f"], ["commit", "-q", "-m", "Begin as copied"]  # a trial needs what is ignored, too
    for words in (["init", "-q", "-b", "main"], add, [*identity, *commit]):
        done = subprocess.run(
            ["git", "-C", str(directory), "-c", "core.hooksPath=/dev/null", *words], capture_output=True, text=True
        )
        if done.returncode:
            raise EnvironmentProblem(f"git {words[-1]} failed in {directory}: {done.stderr.strip()}")


def _git(folder: Path, *words: str) -> str:
    """What a git command prints; "" where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, errors="replace")
    except OSError:
        raise EnvironmentProblem("git is not installed.") from None
    return done.stdout.strip() if done.returncode == 0 else ""


def _tell(directory: Path, found: Look, committed: bool) -> None:
    print(directory / "target.toml")
    metric = f"{found.metric.name}, {found.metric.goal}" if found.metric else "no metric"
    many = len(found.guesses)
    _say(f"{found.script}: {metric}; {many} hyperparameter{'' if many == 1 else 's'}, bounds guessed.")
    for line in found.missing:
        _say(f"fill in  {line}")
    for line in found.check:
        _say(f"check    {line}")
    place = shlex.quote(str(directory))
    if not committed or found.missing:
        files = shlex.join(found.commit)
        _say(f"Then: git -C {place} add {files} && git -C {place} commit -m 'Add target.toml' {files}")
    method = "--proposer cma-es" if many else "--proposer code --llm-base-url URL"
    _say(f"Next: overnight run --target {place} {method} --trials 1")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
