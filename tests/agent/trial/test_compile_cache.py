"""The cache of torch.compile: the baseline writes it, and every other run only reads it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bench_target import Bench
from targets import TRAIN, make_bowl

from agent.repo.repo import Repo
from agent.target import load_target
from agent.trial.experiment import COMPILED, Experiment
from agent.trial.order import Order
from sandbox import make_sandbox
from sandbox.types import Device

BEGIN = "    run.begin(model)\n"
# A product of matrices calls a library: no C++ is compiled.
COMPILES = """    torch.compile(lambda x: x @ x)(torch.ones(8, 8))
    from torch._dynamo.utils import counters
    found = counters["inductor"]
    print("compiled", found["fxgraph_cache_miss"], "found", found["fxgraph_cache_hit"], flush=True)
"""
ENDS = "    raise SystemExit(7)\n"
LEAVES = """    (run._out / "compiled.bin").write_bytes(b"of a trial")
    print("seen", (run._data / "compiled.bin").exists(), flush=True)
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), changes={"steps = 12": "steps = 2"})


def printed(bench: Bench, pattern: str) -> str:
    found = re.search(pattern, (bench.last / "train.log").read_text())
    assert found
    return found[0]


def test_trial_reuses_compile_cache_of_baseline(bench: Bench, tmp_path: Path) -> None:
    compiled = tmp_path / COMPILED.name
    bench.measure((BEGIN, COMPILES + BEGIN + ENDS), role="calibrate", compiled=compiled)
    assert printed(bench, r"compiled \d found \d") == "compiled 1 found 0"
    assert not (bench.last / COMPILED.name).exists()
    run = bench.measure((BEGIN, COMPILES + BEGIN), role="screen", compiled=compiled)
    assert run.status == "ok", run.reason
    assert printed(bench, r"compiled \d found \d") == "compiled 0 found 1"
    assert not (bench.last / COMPILED.name).exists()


def test_only_first_calibration_writes_compile_cache(bench: Bench, tmp_path: Path) -> None:
    compiled = tmp_path / COMPILED.name
    leaves = (BEGIN, BEGIN + LEAVES + ENDS)  # after the harness has written its own cache
    bench.measure(leaves, role="screen", compiled=compiled)
    assert printed(bench, "seen .*") == "seen False"
    assert not list(bench.last.glob("compiled*"))
    assert not list(tmp_path.iterdir())
    bench.measure(leaves, role="calibrate", compiled=compiled)
    assert compiled.read_bytes() == b"of a trial"
    compiled.write_bytes(b"kept")
    bench.measure(leaves, role="calibrate", compiled=compiled)
    assert compiled.read_bytes() == b"kept"


def test_target_without_compilation_writes_no_cache(bench: Bench, tmp_path: Path) -> None:
    bench.measure((BEGIN, BEGIN + ENDS), role="calibrate", compiled=tmp_path / COMPILED.name)
    assert bench.experiment is not None
    assert not list(tmp_path.iterdir())


def test_foreign_target_writes_no_cache(tmp_path: Path) -> None:
    leaves = "import os, pathlib\n(pathlib.Path(os.environ['OVERNIGHT_OUT']) / 'compiled.bin').write_bytes(b'mine')\n"
    repo = Repo(make_bowl(tmp_path / "target", leaves + TRAIN))
    compiled, target = tmp_path / COMPILED.name, load_target(repo.top)[0]
    device = Device("cpu", threads=1)
    experiment = Experiment(repo.tree, target, make_sandbox("process"), device, "test", compiled=compiled)
    order = Order(0, repo.head(), "calibrate", 1, "run")
    run = experiment.measure(order, tmp_path / "run", lambda _phase, _info: None)
    assert run.status == "ok", run.reason
    assert not compiled.exists()
    assert not (tmp_path / "run" / COMPILED.name).exists()
