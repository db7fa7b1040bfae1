"""State in model processes, and the files of the channel before, during and after a request."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import budgets
import numpy as np
import pytest
from conftest import ONE_THREAD

from nanogpt_target.__main__ import _Host
from nanogpt_target.channel import ModelGone, ModelSide, Rejected, ScorerSide, make_files
from nanogpt_target.look_ahead import steady
from nanogpt_target.prepare import Prepared
from nanogpt_target.scorer import LOG_P
from nanogpt_target.trusted import run_scorer


def soon() -> float:
    return time.monotonic() + budgets.ANSWER_SECONDS


def test_one_sided_noise_is_rejected_as_state() -> None:
    random, weights = np.random.default_rng(0), np.full((62, 64), 3)
    steady(random.normal(0, 0.01, (62, 64)), weights)
    steady(np.zeros((62, 64)), weights)
    with pytest.raises(Rejected, match="keeps state"):
        steady(random.normal(0.01, 0.01, (62, 64)), weights)


def scorer_side(folder: Path, load_seconds: float = float("inf")) -> ScorerSide:
    make_files(folder, 2, 4, 8)
    return ScorerSide(folder, 2, 4, 8, load_seconds)


def test_channel_has_no_text_before_model_loads(tmp_path: Path) -> None:
    scorer = scorer_side(tmp_path)
    ids = np.ones((2, 4), np.int64)
    with pytest.raises(TimeoutError):
        scorer.ask(ids, 0.0)
    assert not any((tmp_path / "ids").read_bytes())
    assert not scorer.asked
    model = ModelSide(tmp_path)
    model._alive.close()  # the process ends while it loads
    with pytest.raises(ModelGone):
        scorer.ask(ids, float("inf"))
    assert not any((tmp_path / "ids").read_bytes())
    scorer.close()


def test_killed_model_process_is_noticed(tmp_path: Path) -> None:
    """Killed by a signal during a request; the scorer does not wait for the deadline."""
    scorer = scorer_side(tmp_path)
    program = (
        "import os, signal, sys; from pathlib import Path; from nanogpt_target.channel import ModelSide\n"
        "side = ModelSide(Path(sys.argv[1])); side.next(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as model:
        with pytest.raises(ModelGone):
            scorer.ask(np.ones((2, 4), np.int64), float("inf"))
        assert model.wait() == -signal.SIGKILL
    assert scorer.asked
    scorer.close()


@pytest.mark.parametrize("name", ["ids", "logits", "asked", "answered", "alive"])
def test_channel_is_never_made_over_existing_files(tmp_path: Path, name: str) -> None:
    victim, channel = tmp_path / "victim", tmp_path / "channel"
    victim.write_text("precious")
    channel.mkdir()
    (channel / name).symlink_to(victim)
    with pytest.raises(FileExistsError):
        make_files(channel, 2, 4, 8)
    assert victim.read_text() == "precious"


def test_loading_has_its_own_bound(tmp_path: Path) -> None:
    """Otherwise a model process could train until scoring ends."""
    scorer = scorer_side(tmp_path, load_seconds=0.05)
    model = ModelSide(tmp_path)  # about to import train.py, never ready
    with pytest.raises(TimeoutError, match="loading the model took"):
        scorer.ask(np.ones((2, 4), np.int64), soon())
    scorer.close()
    assert model.shape == (2, 4, 8)


def test_slow_first_answer_counts_as_loading(tmp_path: Path) -> None:
    scorer = scorer_side(tmp_path)
    model = ModelSide(tmp_path)

    def answer() -> None:
        for seconds in (0.5, 0.0, 0.0):
            model.next()
            time.sleep(seconds)
            model.answer()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(answer)
        for _ in range(3):
            scorer.ask(np.ones((2, 4), np.int64), soon())
    scorer._load_seconds = 0.3  # only now, since the threads may start late
    with pytest.raises(TimeoutError, match="loading the model took"):
        scorer.check_load()
    scorer.close()


def command_lines(parent: int) -> dict[int, str]:
    """Children of a process, with their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_scorer_ends_when_session_is_killed(
    code_with: Callable[[str], Path], trained: Path, prepared: Prepared, tmp_path: Path
) -> None:
    code = code_with("import time; time.sleep(120)")
    program = (
        "import pickle, sys; from pathlib import Path; from nanogpt_target.__main__ import score\n"
        "score(Path(sys.argv[1]), Path(sys.argv[2]), pickle.loads(bytes.fromhex(sys.argv[3])), 'validation', {}, 300.0)"
    )
    words = [sys.executable, "-c", program, code, trained, pickle.dumps(prepared).hex()]
    end = time.monotonic() + budgets.PROGRAM_SECONDS
    with subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}) as session:
        children: dict[int, str] = {}
        while len(children) < 3:  # the scorer and two model processes
            assert time.monotonic() < end
            assert session.poll() is None
            time.sleep(0.05)
            children = command_lines(session.pid)
        session.kill()
    scorer = next(pid for pid, line in children.items() if "nanogpt_target.scorer" in line)
    try:
        while alive(scorer):
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_scorer_that_cannot_write_blames_no_model(
    tiny_code: Path, trained: Path, prepared: Prepared, tmp_path: Path
) -> None:
    folder, shared = tmp_path / "folder", tmp_path / "shared"
    (folder / LOG_P).mkdir(parents=True)
    shared.mkdir()
    host = _Host(tiny_code, trained, folder, shared, ONE_THREAD, budgets.SCORING_SECONDS)
    found = run_scorer(prepared, "validation", host)
    assert found["status"] == "broken"  # a session repeats the run
    assert "Is a directory" in found["reason"]
