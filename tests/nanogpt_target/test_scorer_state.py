"""A model that learns from what it is asked, and what a model process may say before and after it was asked."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nanogpt_target.channel import ModelGone, ModelSide, Rejected, ScorerSide
from nanogpt_target.scorer import steady


def test_noise_that_goes_one_way_is_a_memory() -> None:
    random, weights = np.random.default_rng(0), np.full((62, 64), 3)
    steady(random.normal(0, 0.01, (62, 64)), weights)
    steady(np.zeros((62, 64)), weights)
    with pytest.raises(Rejected, match="keeps state"):
        steady(random.normal(0.01, 0.01, (62, 64)), weights)


def test_no_text_is_in_the_channel_before_the_model_is_loaded(tmp_path: Path) -> None:
    scorer = ScorerSide(tmp_path, 2, 4, 8)
    ids, out = np.ones((2, 4), np.int64), np.empty((2, 4, 8), np.float32)
    with pytest.raises(TimeoutError):
        scorer.ask(ids, 0.0, out)
    assert not any((tmp_path / "ids").read_bytes())
    assert not scorer.asked
    model = ModelSide(tmp_path)
    model._alive.close()  # it dies while it loads
    with pytest.raises(ModelGone):
        scorer.ask(ids, float("inf"), out)
    assert not any((tmp_path / "ids").read_bytes())
    scorer.close()


def test_the_death_of_a_model_process_is_seen_at_once(tmp_path: Path) -> None:
    """Killed by a signal, while it is asked: no wait for the deadline."""
    scorer = ScorerSide(tmp_path, 2, 4, 8)
    program = (
        "import os, signal, sys; from pathlib import Path; from nanogpt_target.channel import ModelSide\n"
        "side = ModelSide(Path(sys.argv[1])); side.next(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as model:
        with pytest.raises(ModelGone):
            scorer.ask(np.ones((2, 4), np.int64), float("inf"), np.empty((2, 4, 8), np.float32))
        assert model.wait() == -signal.SIGKILL
    assert scorer.asked
    scorer.close()


@pytest.mark.parametrize("name", ["ids", "logits", "asked", "answered", "alive", "header.new"])
def test_files_that_wait_in_the_channel_are_refused(tmp_path: Path, name: str) -> None:
    """A model process that is there first may have put a link to a file of the host where the scorer will write."""
    victim, channel = tmp_path / "victim", tmp_path / "channel"
    victim.write_text("precious")
    channel.mkdir()
    (channel / name).symlink_to(victim)
    with pytest.raises(Rejected, match="interfered with the channel"):
        ScorerSide(channel, 2, 4, 8)
    assert victim.read_text() == "precious"


def _grow(channel: Path) -> None:
    with (channel / "logits").open("r+b") as file:
        file.truncate(1 << 30)


@pytest.mark.parametrize(
    ("meddle", "reason"),
    [
        (_grow, "more into the channel than an answer"),
        (lambda channel: (channel / "own").touch(), "something of its own"),
        (lambda channel: (channel / "own").mkdir(), "something of its own"),
        (lambda channel: channel.rename(channel.with_name("elsewhere")), "interfered with the channel"),
    ],
    ids=["grows", "a file", "a folder", "moved away"],
)
def test_what_grows_in_the_channel_is_seen_while_waiting(
    tmp_path: Path, meddle: Callable[[Path], object], reason: str
) -> None:
    """The folder lies in the host's memory, and no limit of the model process covers it."""
    channel = tmp_path / "channel"
    channel.mkdir()
    scorer = ScorerSide(channel, 2, 4, 8)
    meddle(channel)
    with pytest.raises(Rejected, match=reason):
        scorer.ask(np.ones((2, 4), np.int64), time.monotonic() + 60, np.empty((2, 4, 8), np.float32))
    scorer.close()


def test_loading_has_a_bound_of_its_own(tmp_path: Path) -> None:
    """From the import of train.py: until scoring ends, it would be time to train."""
    scorer = ScorerSide(tmp_path, 2, 4, 8, load_seconds=0.05)
    model = ModelSide(tmp_path)  # about to import train.py, and never ready
    with pytest.raises(TimeoutError, match="loading the model took"):
        scorer.ask(np.ones((2, 4), np.int64), time.monotonic() + 60, np.empty((2, 4, 8), np.float32))
    scorer.close()
    assert model.shape == (2, 4, 8), "it lives until here"


def test_a_first_answer_that_takes_long_counts_as_loading(tmp_path: Path) -> None:
    scorer = ScorerSide(tmp_path, 2, 4, 8, load_seconds=0.3)
    model = ModelSide(tmp_path)

    def answer() -> None:
        for seconds in (0.5, 0.0, 0.0):
            model.next()
            time.sleep(seconds)
            model.answer(np.zeros((2, 4, 8), np.float32))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(answer)
        for _ in range(3):
            scorer.ask(np.ones((2, 4), np.int64), time.monotonic() + 60, np.empty((2, 4, 8), np.float32))
    with pytest.raises(TimeoutError, match="loading the model took"):
        scorer.check_load()
    scorer.close()
