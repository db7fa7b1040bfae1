"""Who may import whom (docs/decisions): a layer knows nothing of the layers above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = {"types", "errors"}
FOUNDATION = CORE | {
    "config", "ledger", "repo", "space", "context", "chat", "keys", "wire", "noise", "judge", "normal_form",
}  # fmt: skip
# each module: what of agent it must not import
ABOVE_SESSION = {"cli", "commands", "launch", "doctor", "clean", "watch", "replaying", "compare", "serving"}


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        yield name.removesuffix(".__init__"), path


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """Modules that a file imports; ``everywhere`` counts those inside of functions too, never those for types alone."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            nodes.extend(ast.iter_child_nodes(node))
    return found


def parts_of(found: set[str], package: str) -> set[str]:
    return {name.split(".")[1] for name in found if name.startswith(package + ".")}


@pytest.mark.parametrize("package", ["sandbox", "nanogpt_target", "prompts"])
def test_what_the_agent_stands_on_does_not_know_it(package: str) -> None:
    others = {"agent", "sandbox", "nanogpt_target", "prompts"} - {package}
    for name, path in modules(package):
        known = {found.split(".")[0] for found in imports(path)} & others
        assert not known, f"{name} imports {known}"


def test_layers_of_the_agent() -> None:
    for name, path in modules("agent"):
        parts = name.split(".")
        module = parts[1] if len(parts) > 1 else ""
        below = parts_of(imports(path), "agent")
        if module in CORE:
            assert below <= CORE, f"{name} imports {below}"
        elif module in FOUNDATION:
            beside = {"axes", "block", "constraints", "hyperparameters", "proposers"}  # the last: the table of names
            assert below <= FOUNDATION | beside, f"{name} imports {below}"
        elif module not in ABOVE_SESSION:
            assert not below & ABOVE_SESSION, f"{name} imports {below & ABOVE_SESSION}"
        if module in ("proposers", "patch", "judge", "views", "report", "published"):
            assert not below & {"session", "trial"}, f"{name} imports the session"


def test_heavy_packages_load_only_where_they_are_needed() -> None:
    heavy = {"torch", "docker", "openai", "optuna", "sklearn", "git", "cmaes", "tokenizers", "ray", "smac", "scipy"}
    lazy = {"agent.llm", "agent.proposers.cma", "agent.proposers.gp"}  # loaded by the command that needs them
    for package in ("agent", "sandbox"):
        for name, path in modules(package):
            found = {i.split(".")[0] for i in imports(path, everywhere=False)} & heavy
            if found and name not in lazy:
                users = [n for n, p in modules("agent") if name in imports(p, everywhere=False) and n not in lazy]
                assert not users, f"{name} imports {found} when it is loaded, by {users}"


def test_commands_that_read_load_no_trainer() -> None:
    script = "import sys, agent.commands, agent.views.status, agent.views.log; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.strip("[]' ").split(".")[0] for name in done.stdout.split(",")}
    assert not loaded & {"torch", "docker", "openai", "optuna", "sklearn", "git", "numpy", "cmaes"}
