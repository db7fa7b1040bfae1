"""Finds what a training script imports, and which of these modules an interpreter has. Nothing is imported."""

from __future__ import annotations

import ast
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROBE = r"""
import importlib.util, json, re, sys
def cuda(spec):
    try:
        with open(spec.origin.replace("__init__.py", "version.py")) as file:
            return re.search(r"(?m)^(?:cuda|hip)\b.*=\s*['\"]", file.read()) is not None
    except (AttributeError, OSError):
        return False
def version(name):
    from importlib import metadata
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
torch = importlib.util.find_spec("torch")
pip = importlib.util.find_spec("pip") is not None
print(json.dumps([sys.version.split()[0], version("torch") if torch else "", cuda(torch), missing, pip]))
"""


@dataclass(frozen=True)
class Installed:
    """What an interpreter has."""

    python: str  # version; "" if the interpreter does not start
    torch: str = ""  # version; "" without PyTorch
    cuda: bool = False  # PyTorch is a build for GPUs
    missing: tuple[str, ...] = ()  # of the names that were asked for
    pip: bool = True


def probe(python: str, names: Iterable[str] = ()) -> Installed:
    """Ask an interpreter for its PyTorch, and for the modules ``names``."""
    try:
        done = subprocess.run([python, "-I", "-c", _PROBE, *names], capture_output=True, text=True, timeout=60)
        version, torch, cuda, missing, pip = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return Installed("")
    return Installed(version, torch, cuda, tuple(missing), pip)


def imports_of(script: Path) -> list[str]:
    """Top-level names that a script and the modules beside it import: no standard library, no optional import."""
    trees = [ast.parse(script.read_bytes()), *modules_of(script).values()]
    names = dict.fromkeys(name for tree in trees for name in _names(tree))
    beside = {path.stem for path in script.parent.iterdir()}
    return [name for name in names if name not in sys.stdlib_module_names and name not in beside]


def modules_of(script: Path) -> dict[Path, ast.Module]:
    """The modules beside ``script`` that it imports; files that do not parse are left out."""
    found: dict[Path, ast.Module] = {}
    with contextlib.suppress(OSError, ValueError, SyntaxError):
        for node in ast.walk(ast.parse(script.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for path in (script.parent / f"{name.replace('.', '/')}.py" for name in names):
                with contextlib.suppress(OSError, ValueError, SyntaxError):
                    found[path] = ast.parse(path.read_bytes())
    return found


def _names(node: ast.AST) -> Iterator[str]:
    """An import in a ``try`` is optional: the script has another way."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module.partition(".")[0]
    elif not isinstance(node, ast.Try):
        for child in ast.iter_child_nodes(node):
            yield from _names(child)
