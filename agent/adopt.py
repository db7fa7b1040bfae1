"""``overnight init DIR --from PROJECT``: a target.toml for a trainer that knows nothing of us, written by looking.

The project is read, never run. What is guessed is marked as guessed in the file; what cannot be found is listed.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import EnvironmentProblem, UsageError
from agent.guessing import Guess, guess_constraints, guess_hyperparameters
from agent.looking import Constant, Metric, find_constants, find_metric, find_paths

LARGEST = 20 << 20  # bytes of a file that is copied: greater ones are data
_JUNK = {".git", "__pycache__", ".venv", "venv", "node_modules", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache"}
_SECONDS = re.compile(r"(TIME|SECONDS?|SECS?)_?(BUDGET|LIMIT)|(BUDGET|MAX|LIMIT|TRAIN\w*)_(TIME|SECONDS?|SECS?)", re.I)
_COMMON = ("~", "~/.cache", "~/.config", "~/.local", "~/.local/share")
_WRITTEN = re.compile(r"(^|/)(out|outputs?|logs?|wandb|runs|checkpoints?|results?)(/|$)")
_HEAVY = re.compile(r"^\s*(import|from) (torch|jax|tensorflow)\b", re.M)


@dataclass
class Look:
    """What was seen of a project. ``missing``: keys that a person must fill in; ``check``: what to look at."""

    folder: Path
    script: str  # path of the editable file
    source: str
    tree: ast.Module
    metric: Metric | None = None
    seconds: float = 600.0
    why_seconds: str = "guessed: no constant like TIME_BUDGET was found"
    guesses: list[Guess] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)


def adopt(directory: Path, project: Path) -> int:
    """Write ``directory/target.toml`` for ``project``, a folder or the script in it, and say what is missing.

    ``directory`` is the project itself, if that is in a git repository; else a new folder, to which the project is
    copied as a git repository of its own.

    Raises:
        UsageError: there is a target.toml already, no script to edit was found, or files would be overwritten.
    """
    folder = project.parent if project.is_file() else project
    if not folder.is_dir():
        raise UsageError(f"--from {project}: no such folder.")
    same = directory.exists() and directory.resolve() == folder.resolve()
    for place in dict.fromkeys((folder, directory)):
        if (place / "target.toml").exists():
            raise UsageError(f"{place / 'target.toml'} exists, and is left as it is. Start with `overnight run`.")
    versioned = _git(folder, "rev-parse", "--is-inside-work-tree") == "true"
    if same and not versioned:
        raise UsageError(
            f"{folder} is not in a git repository, which a run needs. Name a new folder, to which it is copied, as in "
            f"`overnight init {folder.resolve().name}-night --from {project}`, or make it one: git init, git add, "
            f"git commit."
        )
    if not same and directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty. Name a new folder, or the project itself.")
    found = look(project, versioned)
    text = describe(found)
    if not same:
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
    found.metric = find_metric(tree)
    if found.metric is None:
        found.missing.append("[target] metric, pattern and goal: no printed number looks like a metric")
    elif not found.metric.sure_of_goal:
        found.check.append(f"[target] goal: {found.metric.name} does not say which way is better")
    for name, module in {script.name: tree, **_siblings(folder, tree)}.items():
        _find_seconds(found, name, find_constants(module))
        _find_mounts(found, module, versioned)
    if found.why_seconds.startswith("guessed"):
        found.check.append(f"[budget] seconds: {found.seconds:g} is a guess; it bounds the whole process")
    found.guesses, found.left = guess_hyperparameters(constants)
    if not found.guesses:
        found.missing.append(
            "[[hyperparameters]]: no constant with a literal value was found; cma-es and the like need them, "
            "--proposer code does not"
        )
    _find_habits(found, constants)
    return found


def _script(folder: Path) -> Path:
    """The file to edit: train.py, or the only script that prints a metric."""
    if (folder / "train.py").is_file():
        return folder / "train.py"
    scripts = sorted(folder.glob("*.py"))
    able = [path for path in scripts if find_metric(_read(path)[1])] if len(scripts) > 1 else scripts
    if len(able) == 1:
        return able[0]
    names = ", ".join(path.name for path in able or scripts) or "no .py file"
    raise UsageError(f"{folder} has no train.py, and it is not clear what to edit ({names}). Name it: --from FILE.py")


def _read(path: Path) -> tuple[str, ast.Module]:
    try:
        source = path.read_text(encoding="utf-8")
        return source, ast.parse(source)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text: {error}.") from None
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path}: not valid Python: {error}.") from None


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
                if str(path.relative_to(folder)) not in found and path.is_file():
                    module = _read(path)[1]
                    found[str(path.relative_to(folder))] = module
                    waiting.append(module)
    return found


def _find_seconds(found: Look, name: str, constants: list[Constant]) -> None:
    for constant in constants:
        value = constant.value
        if _SECONDS.search(constant.name) and isinstance(value, (int, float)) and value > 1:
            found.seconds = max(2 * value, value + 60)
            found.why_seconds = (
                f"{constant.name} = {value} in {name}, and as much for start-up and evaluation, at least 60 s"
            )


def _find_mounts(found: Look, tree: ast.Module, versioned: bool) -> None:
    """Directories outside of the repository that the script names: below the home directory, or ignored by git."""
    for text in sorted(set(find_paths(tree)), key=len):
        text = text.rstrip("/")
        if not 0 < len(text) < 200 or any(text == m or text.startswith(m + "/") for m in found.mounts):
            continue
        if text.startswith("~/") and text not in _COMMON and ".." not in text and " " not in text:
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


def _find_habits(found: Look, constants: list[Constant]) -> None:
    """What makes a script fail in a sandbox, or run otherwise than it reads."""
    if "configurator.py" in found.source and any(c.name == "out_dir" for c in constants):
        found.arguments.append("--out_dir={out}")  # nanoGPT's way to set a constant from outside
    if re.search(r"\bexec\(", found.source):
        found.check.append(f"{found.script} runs other files (exec): what they set is not changed by an edit of it")
    writes = re.search(r"makedirs|\.mkdir\(|torch\.save|open\([^)\n]*[\"'][wax]b?[\"']|\.dump\(", found.source)
    if writes and not found.arguments:
        line = found.source.count("\n", 0, writes.start()) + 1
        found.check.append(
            f"{found.script}:{line} seems to write files: in a trial only /tmp and {{out}} (in `train`) can be written"
        )
    if "OVERNIGHT_SEED" not in found.source:
        found.check.append(
            f"{found.script} does not read OVERNIGHT_SEED: if it fixes its seed, repeated runs say nothing of the noise"
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
            f"pattern = {quoted}  # line {metric.line} of {found.script}; the last match counts",
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
    if versioned:
        listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
        names = [name for name in listed.split("\0") if name]
    else:
        names = [str(p.relative_to(folder)) for p in sorted(folder.rglob("*"))]
        names = [name for name in names if not _JUNK.intersection(Path(name).parts)]
    inside = directory.resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in names:
            source = folder / name
            if source.is_symlink() or not source.is_file() or source.resolve().is_relative_to(inside):
                continue
            if source.stat().st_size > LARGEST:
                found.check.append(f"{name} is large and was not copied; a folder of data belongs in [target] mounts")
                continue
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, directory / name)
    except OSError as error:
        raise EnvironmentProblem(f"cannot copy {folder} to {directory}: {error.strerror}.") from error
    for mount in found.mounts:
        if not mount.startswith("~"):
            found.missing.append(
                f"{directory / mount}: not in git, so not copied; put the data of {folder / mount} there"
            )


def _commit(directory: Path) -> None:
    identity = ["-c", "user.name=Overnight", "-c", "user.email=overnight@localhost", "-c", "commit.gpgSign=false"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*identity, "commit", "-q", "-m", "Begin as copied"]):
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
    _say(f"{found.script}: {metric}; {len(found.guesses)} hyperparameters, their bounds guessed.")
    for line in found.missing:
        _say(f"fill in  {line}")
    for line in found.check:
        _say(f"check    {line}")
    if not committed or found.missing:
        commit = f"git -C {directory} commit -m 'Add target.toml' target.toml"
        _say(f"Then: git -C {directory} add target.toml && {commit}")
    _say(f"Next: overnight run --target {directory} --proposer cma-es --trials 1")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
