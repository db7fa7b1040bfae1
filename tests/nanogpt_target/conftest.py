"""A prepared data set of a few kB, and code directories with a trainer of a few thousand weights."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import budgets
import pytest

from nanogpt_target import __main__ as once
from nanogpt_target.prepare import Prepared, prepare
from nanogpt_target.presets import write_target

TINY = (
    *("DEPTH=2", "ASPECT_RATIO=16", "HEAD_DIM=16", "DEVICE_BATCH_SIZE=4", "TOTAL_BATCH_SIZE=256"),
    'WINDOW_PATTERN="SL"',
)
SPEC = {"vocab_size": 320, "sequence_length": 32, "validation_tokens": 640, "test_tokens": 640}
ONE_THREAD = {"OVERNIGHT_DEVICE": "cpu", "OVERNIGHT_THREADS": "1"}


def make_text(seed: int, paragraphs: int = 120) -> str:
    """Different paragraphs of a few words, with characters of one to four bytes."""
    draw = random.Random(seed)
    words = [
        "night",
        "trial",
        "loss",
        "gain",
        "model",
        "clock",
        "seed",
        "naïve",
        "Größe",
        "速い",
        "🌙",
        "of",
        "the",
        "is",
    ]
    lines = [" ".join(draw.choice(words) for _ in range(draw.randint(150, 260))) for _ in range(paragraphs)]
    return "\n\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(make_text(0), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Prepared:
    return prepare({"source": str(corpus_file), **SPEC}, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the baseline: train.py of the demo preset, made tiny, with the package."""
    folder = tmp_path_factory.mktemp("code")
    write_target("demo", folder / "target")
    once.make_code(folder / "target", folder / "code", TINY)
    return folder / "code"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_code: Path, prepared: Prepared) -> Path:
    """The output folder of a real run of 12 steps."""
    work = tmp_path_factory.mktemp("trained")
    run = once.train(tiny_code, prepared, work, "steps:12", 1, ONE_THREAD)
    assert run["exit"] == 0
    return work / "out"


MakeCode = Callable[[str], Path]


@pytest.fixture
def code_with(tmp_path: Path, tiny_code: Path) -> MakeCode:
    """Make a code directory with the given train.py."""

    def make(source: str) -> Path:
        code = tmp_path / f"code{len(list(tmp_path.iterdir()))}"
        code.mkdir()
        (code / "train.py").write_text(source)
        (code / "nanogpt_target").symlink_to(tiny_code / "nanogpt_target")
        return code

    return make


@pytest.fixture(scope="session")
def python() -> Callable[[str], str]:
    """Run a program in a fresh interpreter; its output."""

    def run(program: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=budgets.STARTUP_SECONDS
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
