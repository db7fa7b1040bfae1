"""What every test relies on."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from agent.llm import client

settings.register_profile("overnight", deadline=None)  # no time may fail a test
settings.load_profile("overnight")

LONGEST = (  # more than 10 s of processor time
    "test_experiment.py", "test_gpu_check.py", "test_replay.py", "test_scorer.py", "test_recipes.py", "test_loop.py",
    "test_faults.py", "test_search_contract.py", "test_cli.py", "test_smoke.py", "test_compile_cache.py",
    "test_harness.py", "test_sandbox_contract.py",
)  # fmt: skip


def pytest_configure() -> None:
    """A shell that starts a test run in the background lets it ignore Ctrl-C, and so would every command under test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than processors, since tests wait for processes that wait."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, the files that take longest come first, so that no worker ends long after the others."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """Garbage collection skips the modules and tests that are loaded now: about a million objects."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def own_configuration() -> Iterator[None]:
    """Records of trusted targets stay out of the user's configuration folder."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", folder)
        yield


@pytest.fixture(autouse=True, scope="session")
def quick() -> Iterator[None]:
    """No waits for the disk, which only a power failure needs, nor for model servers that never start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        patch.setenv("GIT_TEST_FSYNC", "0")  # git's own switch
        patch.setattr(client, "CONNECT_PATIENCE", 0.5)
        yield
