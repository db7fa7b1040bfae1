"""The documentation agrees with the code."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from places import ROOT
from targets import make_bowl

from agent.cli.parser import build_parser, commands_of

TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "runs/README.md", "prompts/README.md", "tests/e2e/README.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_point_to_existing_places(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), link
        if anchor:
            titles = re.findall(r"(?m)^#+ (.*)", place.read_text())
            assert anchor in [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles], link


def test_reference_matches_the_code() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_in_text_exist(page: Path) -> None:
    commands = commands_of(build_parser())
    text = page.read_text()
    if page.name == "CHANGELOG.md" or "decisions" in page.parts:
        return
    for line in re.findall(r"(?m)`(overnight [a-z][^`\n]*)`|^(?:\.venv/bin/)?(overnight [a-z][^#\n]*)", text):
        words = (line[0] or line[1]).split()
        assert words[1] in commands, " ".join(words)
        flags = {option for action in commands[words[1]]._actions for option in action.option_strings}
        for word in words[2:]:
            if word.startswith("--"):
                assert word.split("=")[0] in flags, f"overnight {words[1]} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_code_blocks_parse(page: Path) -> None:
    for language, code in re.findall(r"(?ms)^```(\w+)\n(.*?)^```", page.read_text()):
        if language == "toml":
            tomllib.loads(code)
        elif language == "python":
            ast.parse(code)
        elif language == "sh":
            done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_named_files_exist(page: Path) -> None:
    for name in re.findall(
        r"`((?:agent|sandbox|nanogpt_target|tests|benchmarks|scripts|prompts|docs)/[\w./-]*)`", page.read_text()
    ):
        assert (ROOT / name).exists(), name


def test_readme_starts_with_commands_and_picture() -> None:
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    for needed in ("make demo", "make test", "docs/images/"):
        assert needed in first


def test_every_environment_variable_is_documented() -> None:
    places = [
        ROOT / "Makefile",
        *(p for d in ("agent", "sandbox", "nanogpt_target", "scripts") for p in code(ROOT / d)),
    ]
    used = set(re.findall(r"\bOVERNIGHT_[A-Z0-9_]+", "".join(p.read_text() for p in places)))
    used -= {"OVERNIGHT_CHECK_SECRET"}  # set by the sandbox self-check only
    described = re.findall(r"\bOVERNIGHT_[A-Z0-9_]+", (ROOT / "docs/reference/environment.md").read_text())
    assert set(described) - {"OVERNIGHT_E2E", "OVERNIGHT_IMAGE"} == used - {"OVERNIGHT_E2E", "OVERNIGHT_IMAGE"}


def code(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.suffix in (".py", ".sh")]


def test_tutorial_commands_run(tmp_path: Path) -> None:
    """On a target that trains for a second instead of ~/gpt."""
    make_bowl(tmp_path / "gpt")
    text = (ROOT / "docs/tutorial.md").read_text()
    lines = [line for block in re.findall(r"(?ms)^```sh\n(.*?)^```", text) for line in block.splitlines()]
    runs = [line for line in lines if "--proposer cma-es" in line]
    assert runs[0] == f"{runs[1]} --dry-run"
    resume = next(line for line in lines if line.startswith("overnight resume"))
    after = [line for line in lines if re.search(r"\bnight\b", line) and "--llm-base-url" not in line]
    assert len(after) >= 5
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": path, "GIT_PAGER": "cat"}
    few = [run.replace("--trials 20", "--trials 3") + " --sandbox process" for run in runs]
    few.append(resume.replace("30", "4"))
    for line in (*few, *(re.sub(r"\bnight\b", "first", line) for line in after)):
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_examples_of_ask_and_tell_run(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "reference" / "proposers.md").read_text()
    names: dict[str, object] = {}
    for code in re.findall(r"(?ms)^```python\n(.*?)^```", page):
        exec(code, names)
    assert "'RATE'" in capsys.readouterr().out
    assert {point.source for point in names["method"].observations} == {"cma", "gp", "llm"}  # type: ignore[attr-defined]
