"""The battery: each attack of tests/attacks as a real trial, in bubblewrap and in Docker.

OVERNIGHT_BATTERY=docs/explanation/trust.md writes the table of that page.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import battery_table
import budgets
import pytest
from attack import Attack, in_call, in_main
from attacks_between_jobs import ATTACKS as BETWEEN_JOBS
from attacks_found_later import ATTACKS as FOUND_LATER
from attacks_of_kinds import ATTACKS as OF_KINDS
from attacks_on_host import ATTACKS as ON_HOST
from attacks_on_score import ATTACKS as ON_SCORE
from bench_target import Bench
from conftest import Battery
from targets import git

from agent.trial.seeds import with_seed_check
from agent.trial.usual import usual_of
from agent.types import Measurement
from nanogpt_target.corpus import HELD_OUT
from sandbox import caches, make_sandbox
from sandbox.layout import label
from sandbox.selfcheck.cases import CHECKS, run_check
from sandbox.types import SandboxUnavailable

BATTERY = sorted((*ON_SCORE, *ON_HOST, *FOUND_LATER, *BETWEEN_JOBS, *OF_KINDS), key=lambda attack: attack.row)
TINY = {"steps = 12": "steps = 5"}
UNIFORM = in_call("return torch.zeros(*ids.shape, meta['vocab_size'])")


class Machine:
    """A target in one sandbox, and the state of the host that no attack may change."""

    def __init__(self, folder: Path, name: str, image: str):
        self.mark = f"battery-{secrets.token_hex(6)}"
        self.bench = Bench(folder, make_sandbox(name, image=image), self.mark, TINY)
        self.bench.sandbox.check()
        self.bench.scratch.mkdir()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(f"\0{self.mark}")
        self.unix.listen()
        self.listener.setblocking(False)
        self.unix.setblocking(False)
        self.temporary: list[Path] = []
        self.held: dict[Any, str] = {}

    def close(self) -> None:
        self.listener.close()
        self.unix.close()

    def edits(self, attack: Attack) -> list[tuple[str, str]]:
        known = {
            "@MARK@": self.mark,
            "@PORT@": str(self.listener.getsockname()[1]),
            "@DATA@": str(self.bench.prepared.directory),
            "@RUNS@": str(self.bench.scratch),
            "@TARGET@": str(self.bench.folder),
            "@HELD_OUT@": repr(HELD_OUT),
        }
        filled = []
        for old, new in attack.edits:
            for word, value in known.items():
                new = new.replace(word, value)
            filled.append((old, new))
        return filled

    def note(self, row: int, name: str, what: str) -> None:
        """Write one row of the table, if OVERNIGHT_BATTERY is set."""
        if page := os.environ.get("OVERNIGHT_BATTERY"):
            column = battery_table.ORDINARY if os.geteuid() else self.bench.sandbox.name
            battery_table.write(Path(page), column, {(row, name): what})

    def facts(self) -> dict[str, Any]:
        """The state that no attack may change."""
        bench = self.bench
        return {
            "data": _hashes(bench.prepared.directory),
            "target": _hashes(bench.folder, skip=".git"),
            "git": (git(bench.folder, "status", "--porcelain"), git(bench.folder, "for-each-ref"), bench.repo.head()),
            "config": _hashes(bench.folder / ".git" / "hooks") | {"": (bench.folder / ".git" / "config").read_text()},
            "odd": sorted(p.name for p in bench.scratch.iterdir() if not p.is_dir()),
            "processes": _processes(self.mark),
            "left": [str(p) for p in self.temporary if p.exists()],
            "engine": _engine(self.mark) if bench.sandbox.name == "docker" else [],
            "system": [p for p in (f"/tmp/{self.mark}", "/result.json", "/tmp/result.json") if Path(p).exists()],
        }

    def require_guarantees(self, attack: Attack) -> None:
        """Skip attacks that need a missing guarantee. Test the guarantee with its small check first."""
        for guarantee in attack.only:
            if guarantee not in self.bench.sandbox.guarantees:
                pytest.skip(f"{self.bench.sandbox.name} does not guarantee here: {guarantee.value}")
            if guarantee not in self.held:
                checks = [c for c in CHECKS if c.guarantee is guarantee]
                results = [run_check(self.bench.sandbox, check) for check in checks]
                self.held[guarantee] = "; ".join(r.detail for r in results if not r.ok)
            assert not self.held[guarantee], f"skipped: {self.held[guarantee]}"


def _hashes(folder: Path, skip: str = "") -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and skip not in p.relative_to(folder).parts)
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _processes(mark: str) -> list[str]:
    """Processes with the mark in their command line, and children of this process."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(place.name) != os.getpid() and (mark in line or int(parent) == os.getpid()):
            found.append(line)
    return found


def _engine(mark: str) -> list[str]:
    """The mark's containers and volumes on the engine."""
    owner = f"label=overnight.owner={label(mark)}"
    lists = (["docker", "ps", "-aq", "--filter", owner], ["docker", "volume", "ls", "-q", "--filter", owner])
    return [
        line
        for words in lists
        for line in subprocess.check_output(words, text=True, timeout=budgets.COMMAND_SECONDS).splitlines()
    ]


@pytest.fixture(scope="module", params=("bwrap", "docker"))
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    image = request.getfixturevalue("docker_image") if request.param == "docker" else ""
    folder = tmp_path_factory.mktemp(request.param)
    try:
        place = Machine(folder, request.param, image)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    real = tempfile.mkdtemp

    def noted(*arguments: Any, **named: Any) -> str:
        made: str = real(*arguments, **named)
        place.temporary.append(Path(made))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", noted)
        yield place
    place.close()


@pytest.fixture(scope="module")
def honest(machine: Machine) -> float:
    """The value of the unedited train.py, confirmed by an independent computation."""
    run = machine.bench.measure(role="calibrate")
    assert run.status == "ok", run.reason
    machine.bench.usual = usual_of([run])
    assert run.value == pytest.approx(machine.bench.honest_value(machine.bench.last), abs=1e-6)
    machine.note(0, "honest baseline", "its true value")
    return float(run.value or 0.0)


def test_uniform_model_scores_the_uniform_value(machine: Machine, honest: float) -> None:
    run = machine.bench.measure(UNIFORM)
    rate = run.metrics["validation_tokens"] / run.metrics["validation_bytes"]
    assert run.value == pytest.approx(math.log2(machine.bench.prepared.vocab_size) * rate, abs=1e-6)
    assert (run.value or 0.0) > honest
    machine.note(0, "broken model: every token alike", "its true value, worse than the baseline")


def test_pinned_seed_is_invalid_in_second_run(machine: Machine, honest: float) -> None:
    """Row 21: the best of ten seeds in every run. One run has its true value; a session never relies on one run."""
    pinned = in_main("torch.manual_seed(4)\nmodel.initialise()")
    first, second = (machine.bench.measure(pinned, seed=seed) for seed in (1, 2))
    assert first.value == pytest.approx(
        machine.bench.honest_value(machine.bench.scratch / f"{first.commit[:8]}-1"), abs=1e-6
    )
    caught = with_seed_check(second, [first])
    assert (caught.status, caught.value) == ("invalid", None)
    machine.note(21, "picks a seed", f"no value once it has run twice: {caught.reason}")


@pytest.mark.parametrize("attack", BATTERY, ids=lambda attack: attack.id)
def test_attack_gains_nothing(machine: Machine, honest: float, attack: Attack) -> None:
    bench = machine.bench
    machine.require_guarantees(attack)
    if attack.drops_caches and not caches.can_drop():
        machine.note(attack.row, attack.name, "not repelled: dropping the kernel's caches needs root")
        pytest.skip("this user may not drop the kernel's caches")
    before = machine.facts()
    run = bench.measure(*machine.edits(attack), budget=attack.budget, limits=attack.limits)
    what = _judged(attack, run, bench, honest)
    assert machine.facts() == before
    for listener in (machine.listener, machine.unix):
        with pytest.raises(BlockingIOError):
            listener.accept()
    written = (bench.last / "train.log").read_bytes()
    assert len(written) < 20e6, "the log is not bounded"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", run.reason + run.log_tail), (
        "control characters in the reason or the log"
    )
    machine.note(attack.row, attack.name, what)


def _judged(attack: Attack, run: Measurement, bench: Bench, honest: float) -> str:
    """Check value and reason. Returns the cell of the table."""
    said = f"{run.status}: {run.reason} {run.log_tail[-1500:]}"
    assert "\n" not in run.reason
    if attack.expect in ("same", "checkpoint"):
        assert run.status == "ok", said
        assert run.value == pytest.approx(bench.honest_value(bench.last), abs=1e-6)
        if attack.expect == "same":
            assert run.value == honest
        return "its true value" + (f" ({attack.note})" if attack.note else "")
    assert run.value is None, said
    assert run.status in attack.expect.split("|"), said
    assert re.search(attack.reason, run.reason), said
    plain = re.split(": (?:other|the loss|the same rows|rows)", run.reason)[0]  # the rest differs between runs
    return f"no value: {plain}"


def test_next_honest_trial_is_unchanged(machine: Machine, honest: float) -> None:
    assert machine.bench.measure().value == honest


@pytest.mark.timeout(budgets.BATTERY_SECONDS, func_only=True)
def test_battery_holds_for_ordinary_user(ordinary_battery: Battery | str) -> None:
    """All rows in bubblewrap, started by a user without privileges; they run beside the tests above."""
    if isinstance(ordinary_battery, str):
        pytest.skip(ordinary_battery)
    assert ordinary_battery.process.wait() == 0, ordinary_battery.log.read_text()[-6000:]
    if page := os.environ.get("OVERNIGHT_BATTERY"):
        battery_table.merge(Path(page), ordinary_battery.page, battery_table.ORDINARY)
