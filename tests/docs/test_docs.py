"""The documentation agrees with the code, and with itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agent.cli import build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{link} leads nowhere"
        if anchor:
            titles = re.findall(r"(?m)^#+ (.*)", place.read_text())
            assert anchor in [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles], link


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_in_the_text_exist(page: Path) -> None:
    commands = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    text = page.read_text()
    if page.name == "CHANGELOG.md" or "decisions" in page.parts:
        return
    for line in re.findall(r"(?m)`(overnight [a-z][^`\n]*)`|^(?:\.venv/bin/)?(overnight [a-z][^#\n]*)", text):
        words = (line[0] or line[1]).split()
        assert words[1] in commands, f"there is no {' '.join(words)}"  # type: ignore[operator]
        flags = {option for action in commands[words[1]]._actions for option in action.option_strings}  # type: ignore[index]
        for word in words[2:]:
            if word.startswith("--"):
                assert word.split("=")[0] in flags, f"overnight {words[1]} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_blocks_of_code_parse(page: Path) -> None:
    for language, code in re.findall(r"(?ms)^```(\w+)\n(.*?)^```", page.read_text()):
        if language == "toml":
            tomllib.loads(code)
        elif language == "python":
            ast.parse(code)
        elif language == "sh":
            done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(
        r"`((?:agent|sandbox|nanogpt_target|tests|benchmarks|scripts|prompts|docs)/[\w./-]*)`", page.read_text()
    ):
        assert (ROOT / name).exists(), name


def test_the_first_screen_has_the_two_commands_and_a_picture() -> None:
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    for needed in ("make demo", "make test", "docs/images/"):
        assert needed in first
