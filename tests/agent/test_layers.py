"""The law of layers: a package imports only from the rows below its own (the picture is in CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest
from places import ROOT

ROWS = [
    {"cli"},
    {"compare", "web"},
    {"session", "replay"},
    {"workers", "observers"},
    {"trial", "review", "settings"},
    {"proposers", "judge", "repo", "rundir", "scaffold", "target"},
    {"space", "patch", "llm", "ledger", "toml", "curves", "trust"},
    {"types", "errors", "text", "files"},
]
RANK = {name: rank for rank, row in enumerate(reversed(ROWS)) for name in row}
INSIDE = {  # within one package: who may import whom
    "review": {"data": set(), "terminal": {"data"}, "report": {"data"}},
    "proposers": {"search": {"protocol"}, "code": {"protocol", "memory"}, "ideas": {"code", "protocol"}},
}
HEAVY = {
    "torch", "docker", "openai", "optuna", "sklearn", "git", "cmaes", "tokenizers", "ray", "smac", "scipy", "starlette",
    "uvicorn", "mcp", "tensorboard", "mlflow", "wandb", "trackio",
}  # fmt: skip


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        yield name.removesuffix(".__init__"), ast.parse(path.read_text())


def imports(tree: ast.Module, everywhere: bool = True) -> set[str]:
    """Modules that a file imports; ``everywhere`` adds imports inside functions and for type checkers."""
    found: set[str] = set()
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif everywhere or not (isinstance(node, ast.FunctionDef) or ast.unparse(node).startswith("if TYPE_CHECKING")):
            nodes.extend(ast.iter_child_nodes(node))
    return found


def test_packages_import_only_from_rows_below() -> None:
    for name, tree in modules("agent"):
        own = ([*name.split("."), "", ""])[1:3]
        for found in imports(tree):
            other = ([*found.split("."), "", ""])[1:3]
            if not found.startswith("agent.") or own[0] not in RANK or other[0] not in RANK:
                continue
            if own[0] == other[0]:
                allowed = INSIDE.get(own[0], {}).get(own[1])
                assert allowed is None or other[1] in allowed | {own[1], ""}, f"{name} imports {found}"
            else:
                assert RANK[other[0]] < RANK[own[0]], f"{name} imports {found}"


@pytest.mark.parametrize("package", ["sandbox", "nanogpt_target", "prompts"])
def test_lower_packages_do_not_import_agent(package: str) -> None:
    others = {"agent", "sandbox", "nanogpt_target", "prompts"} - {package}
    for name, tree in modules(package):
        known = {found.split(".")[0] for found in imports(tree)} & others
        assert not known, f"{name} imports {known}"


def test_agent_root_holds_only_ground_modules() -> None:
    files = {path.stem for path in (ROOT / "agent").glob("*.py")}
    assert files == {"__init__", "types", "errors", "text", "files", "toml", "curves", "target", "settings", "trust"}


def test_nanogpt_target_is_named_in_one_file() -> None:
    named = [path for path in (ROOT / "agent").rglob("*.py") if "nanogpt_target" in path.read_text()]
    assert named == [ROOT / "agent/trial/trusted_target.py"]


def test_heavy_packages_load_only_in_the_command_that_needs_them() -> None:
    script = "import sys, agent.cli.entry, agent.review.terminal.status, agent.review.terminal.log; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in done.stdout.split()} & (HEAVY | {"numpy"})
