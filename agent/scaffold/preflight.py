"""What makes a script fail in a trial, or a search find nothing in it: read off its source, said before the night."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agent.scaffold.source_scan import find_paths

_WRITES = re.compile(
    r"makedirs|\.mkdir\(|torch\.save|open\([^)\n]*[\"'][wax]b?[\"']|\.dump\(|\.write_(text|bytes)\(|savefig|\.to_csv\("
    r"|np\.save|SummaryWriter|FileHandler"
)
_DOWNLOADS = re.compile(
    r"urlretrieve|urlopen|requests\.get|load_dataset\(|(hf_hub|snapshot)_download|get_kernel\(|from_pretrained\(|\bfetch_\w+\("
    r"|download\s*=\s*True|\bwget\b|\bgdown\b"
)
_OPTIONS = re.compile(r"add_argument$|^click\.(option|argument)$|^typer\.(Option|Argument)$|^fire\.Fire$|^tyro\.cli$")
_IN_THE_IMAGE = ("numpy", "safetensors", "torch")  # see Dockerfile
_SYSTEM = ("usr", "dev", "proc", "sys", "etc", "bin", "sbin", "lib", "lib64")


def find_habits(folder: Path, script: str, source: str, modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """One line for each. ``modules``: the script and what it imports of the project, by file name."""
    if re.search(r"\bexec\(", source):
        yield f"{script} runs other files (exec): what they set is not changed by an edit of it"
    if required := list(_required(modules[script])):
        yield f"[target] train: {script} wants {', '.join(required)}"
    if any(True for _ in _options(modules[script])):
        yield f"{script} takes settings from its command line: a search sees constants at the top level alone"
    packages = sorted(_packages(folder, modules.values()))
    if lacking := [name for name in packages if not _is_installed(name)]:
        yield (
            f"{script} imports {', '.join(lacking)}, which is not installed beside `overnight`: pip install it there, "
            f"or name an image that has it (--image)"
        )
    if others := [name for name in packages if name not in (*lacking, *_IN_THE_IMAGE)]:
        yield (
            f"{script} imports {', '.join(others)}: --sandbox bwrap finds it beside `overnight`, but in Docker the "
            f"image has to have it (--image)"
        )
    for path in sorted(set(_absolute(modules.values()))):
        yield (
            f"{path} is not there in a trial: name it in [target] mounts, and say in train where it is, as in "
            f'["python", "{script}", "--data", "{{mount0}}"]'
        )
    if line := _line(_DOWNLOADS, source):
        yield (
            f"{script}:{line} seems to download: a trial has no network; fetch it before, into a folder of "
            f"[target] mounts"
        )


def writes(source: str) -> int:
    """The first line that seems to write a file; 0 if there is none."""
    return _line(_WRITES, source)


def _line(sought: re.Pattern[str], source: str) -> int:
    found = sought.search(source)
    return source.count("\n", 0, found.start()) + 1 if found else 0


def _options(tree: ast.Module) -> Iterator[ast.Call]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return (node for node in calls if _OPTIONS.search(ast.unparse(node.func)))


def _required(tree: ast.Module) -> Iterator[str]:
    """Arguments without which argparse ends the script."""
    for node in _options(tree):
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        first = node.args[0] if node.args else None
        if ast.unparse(node.func).endswith("add_argument") and isinstance(first, ast.Constant):
            demanded = isinstance(wish := given.get("required"), ast.Constant) and wish.value is True
            if demanded or not (str(first.value).startswith("-") or {"nargs", "default"} & given.keys()):
                yield str(first.value)


def _packages(folder: Path, trees: Iterable[ast.Module]) -> Iterator[str]:
    """What is imported without any precaution, and neither of Python nor of the project."""
    for name in {name for tree in trees for name in _imported(tree)} - {*sys.stdlib_module_names, "__main__"}:
        if not any(True for path in (name, f"{name}.py") for _ in folder.rglob(path)):
            yield name


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None  # which runs nothing of it


def _imported(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            yield child.module.partition(".")[0]
        elif not isinstance(child, (ast.Try, ast.If, ast.FunctionDef)):  # what is not there may not be needed
            yield from _imported(child)


def _absolute(trees: Iterable[ast.Module]) -> Iterator[str]:
    """What the code names of this machine, by an absolute path."""
    for text in (text for tree in trees for text in find_paths(tree)):
        parts = Path(text).parts if text.startswith("/") and len(text) < 200 and "\0" not in text else ()
        if len(parts) > 2 and parts[1] not in _SYSTEM and Path(text).exists():
            yield text if Path(text).is_dir() else str(Path(text).parent)
