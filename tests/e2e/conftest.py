"""Real parts for the end-to-end tests: the project's image, a vLLM server, the installed command.

`make e2e` sets up all parts and sets OVERNIGHT_E2E=1: a missing part is then a failure. Otherwise a test whose part is
missing is skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import budgets
import ordinary_user
import pytest
from places import ROOT
from ports import free_port

REQUIRED = os.environ.get("OVERNIGHT_E2E") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound each test by the table in budgets.py. Fixtures that start servers have separate bounds."""
    for item in items:
        if not item.path.is_relative_to(Path(__file__).parent):
            continue
        if item.path.name not in budgets.TEST_SECONDS:
            raise pytest.UsageError(f"{item.path.name} has no entry in tests/support/budgets.py")
        item.add_marker(pytest.mark.timeout(budgets.TEST_SECONDS[item.path.name], func_only=True))


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it if OVERNIGHT_E2E=1 requires all parts."""
    if REQUIRED:
        pytest.fail(f"{what}; OVERNIGHT_E2E=1 requires it", pytrace=False)
    pytest.skip(f"{what}: run `make e2e`")


@pytest.fixture(scope="session")
def docker_image() -> str:
    """The name of the project's image on a running engine."""
    name = os.environ.get("OVERNIGHT_IMAGE", "overnight-train:latest")
    try:
        found = subprocess.run(
            ["docker", "image", "inspect", name],
            capture_output=True,
            text=True,
            timeout=budgets.COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        missing("no `docker` command")
    if found.returncode != 0:
        missing(f"no image {name}: {found.stderr.strip()}")
    return name


@dataclass(frozen=True)
class Battery:
    """The battery of test_attacks.py as a process of an ordinary user."""

    process: subprocess.Popen[bytes]
    log: Path
    page: Path  # a copy of the page with the table, which the process fills


@pytest.fixture(scope="session", autouse=True)
def ordinary_battery(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Battery | str]:
    """Starts with the first test, if the test that awaits it is selected; otherwise, why it does not run."""
    if not any(item.name == "test_battery_holds_for_ordinary_user" for item in request.session.items):
        yield "not selected"
        return
    if os.geteuid():
        yield "this is an ordinary user: the other tests cover it"
        return
    folder = Path(tempfile.mkdtemp(prefix="battery-"))  # pytest's own folders are private to root
    log, page = folder / "log", folder / "page.md"
    page.write_text((ROOT / "docs" / "explanation" / "trust.md").read_text())
    for place in (folder, page):
        os.chown(place, ordinary_user.USER, ordinary_user.USER)
    words = ordinary_user.command([sys.executable], (Path(sys.base_prefix), Path(sys.prefix), ROOT))
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "OVERNIGHT_BATTERY": str(page)}
    probe = "import pytest, torch; from sandbox import make_sandbox; make_sandbox('bwrap').check()"
    tried = subprocess.run([*words, "-c", probe], cwd=ROOT, env=env, capture_output=True, text=True)
    try:
        if tried.returncode:
            yield f"an ordinary user cannot run this environment: {tried.stderr.strip().splitlines()[-1][:300]}"
            return
        argv = [
            "-m",
            "pytest",
            "-o",
            "addopts=",
            "-p",
            "no:cacheprovider",
            "-q",
            "-k",
            "bwrap",
            "tests/e2e/test_attacks.py",
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*words, *argv], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        yield Battery(process, log, page)
        stop_group(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class ModelServer:
    """A running model server."""

    base_url: str  # ends in /v1
    model: str
    context: int  # tokens, prompt and answer together


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A vLLM server with a tiny model of random weights, for the whole test run."""
    script = ROOT / "scripts" / "vllm-server.sh"
    if subprocess.run([script, "installed"], stdin=subprocess.DEVNULL, capture_output=True).returncode != 0:
        missing("no vLLM environment")
    port = free_port()
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [script, "serve", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_healthy(server, f"http://127.0.0.1:{port}/health", log)
        yield ModelServer(base_url=f"http://127.0.0.1:{port}/v1", model="tiny", context=8192)
    finally:
        stop_group(server)


def wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the server answers. Fail with the end of its log if it does not."""
    deadline = time.monotonic() + budgets.SERVER_START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=budgets.REQUEST_SECONDS):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
    state = "still starting" if server.poll() is None else f"ended with status {server.returncode}"
    end = log.read_text("utf-8", "replace")[-4000:]
    pytest.fail(f"the model server does not answer ({state}):\n{end}", pytrace=False)


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a session leader and all processes of its session."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(budgets.SERVER_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Overnight(Protocol):
    """Runs the installed command, with stdout and stderr captured separately."""

    def __call__(
        self,
        *arguments: str | Path,
        status: int | None = 0,
        seconds: float = budgets.COMMAND_SECONDS,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def overnight() -> Overnight:
    """Run `overnight ARGUMENTS`. An unexpected exit status fails the test and prints both outputs."""
    program = Path(sys.executable).parent / "overnight"
    if not program.exists():
        missing(f"no {program}")

    def run(
        *arguments: str | Path,
        status: int | None = 0,
        seconds: float = budgets.COMMAND_SECONDS,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        command = [str(program), *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"`{' '.join(command)}` ran for more than {seconds} s\n{out}\n{err}", pytrace=False)
        if status is not None and process.returncode != status:
            pytest.fail(
                f"`{' '.join(command)}` ended with {process.returncode}, not {status}\n"
                f"stdout:\n{out[-6000:]}\nstderr:\n{err[-6000:]}",
                pytrace=False,
            )
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return run
