"""The Gaussian process of the screening, and its use of threads."""

from __future__ import annotations

import multiprocessing
from threading import Event, Thread

import budgets
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from agent.proposers.search.cma import CANDIDATES
from agent.proposers.search.cma_gp import VARIATIONS, CmaGp
from agent.proposers.search.gp import GaussianProcess, compress, one_thread
from agent.proposers.search.surrogate import FIRST, Surrogate
from benchmarks.objectives import Objective, paper_space


def test_compress_keeps_good_values_and_order():
    y = np.array([1.0, 1.1, 1.2, 1.3, 1.5, 3.0])  # best to upper quantile: 0.5
    squeezed = compress(y)
    assert squeezed[:5].tolist() == y[:5].tolist()
    assert (np.diff(squeezed) > 0).all()
    assert squeezed[-1] < y[-1]


def test_compress_keeps_the_surroundings_late_in_a_search():
    y = np.concatenate([np.linspace(1.0, 1.0005, 70), np.linspace(1.001, 1.02, 30)])
    kept = y < 1.02
    assert compress(y)[kept] == pytest.approx(y[kept], abs=1e-12)


@pytest.mark.parametrize("absurd", [11.0, 1e4, 1e30])
def test_outliers_do_not_hide_the_minimum(absurd):
    x = np.linspace(0.0, 1.0, 40)[:, None]
    y = 3.0 + 0.1 * (x[:, 0] - 0.4) ** 2
    y[36:] = absurd
    process = GaussianProcess(x, compress(y), np.array([0]), np.ones(len(y)))
    grid = np.linspace(0.0, 0.8, 81)[:, None]
    mean, _ = process.predict(grid)
    assert grid[np.argmin(mean), 0] == pytest.approx(0.4, abs=0.05)
    assert np.ptp(compress(y)) < 6 * np.ptp(y[:36])


def test_variations_step_further_along_long_scales():
    search = CmaGp(paper_space())
    scales = np.ones(search.space.dimensions)
    scales[5], scales[6] = 0.2, 5.0
    centre = np.full(search.space.dimensions, 0.5)
    points = search.variations(0, centre, scales)
    assert (points >= 0.0).all()
    assert (points <= 1.0).all()
    spread = np.abs(points - centre).mean(axis=0)
    assert spread[5] < spread[4] < spread[6]


def test_variations_take_part_in_every_second_ask():
    objective = Objective(paper_space(), "near", 0)
    search = CmaGp(objective.space)
    for trial in range(FIRST + 5):
        params = search.ask()
        outcome = objective.run(params, trial)
        search.tell(params, outcome.value, status=outcome.status, memory_gb=outcome.memory_gb)
    assert search.screens
    assert [len(search.options(ask)) for ask in (100, 101)] == [CANDIDATES, CANDIDATES + VARIATIONS]


def threads_now() -> set[int]:
    """The present numbers of BLAS threads."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def in_a_thread(work) -> None:
    thread = Thread(target=work)
    thread.start()
    thread.join()


class Watched(Surrogate):
    """Records the number of BLAS threads during screening."""

    threads: set[int] = set()  # noqa: RUF012

    def _posterior(self):
        self.threads = threads_now()
        return super()._posterior()


def test_screening_uses_one_thread():
    objective = Objective(paper_space(), "near", 0)
    search = CmaGp(objective.space)
    search.surrogate = watched = Watched(search)
    with threadpool_limits(4, user_api="blas"):
        for trial in range(FIRST + 10):
            params = search.ask()
            outcome = objective.run(params, trial)
            search.tell(params, outcome.value, status=outcome.status, memory_gb=outcome.memory_gb)
        assert watched.threads == {1}
        assert threads_now() == {4}


def test_parallel_searches_restore_thread_limits():
    entered, second_entered, left = Event(), Event(), Event()

    def first() -> None:
        with one_thread():
            entered.set()
            second_entered.wait(0.5)  # the second search waits for the lock
        left.set()

    def second() -> None:
        entered.wait()
        with one_thread():
            second_entered.set()
            left.wait()

    with one_thread():  # loads all libraries
        pass
    before = max(threads_now())
    in_a_thread(lambda: threadpool_limits(4, user_api="blas"))  # limits are per thread
    try:
        threads = [Thread(target=work) for work in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert threads_now() == {4}
    finally:
        in_a_thread(lambda: threadpool_limits(before, user_api="blas"))


def test_fork_during_search_can_search():
    entered, done = Event(), Event()

    def search() -> None:
        with one_thread():
            entered.set()
            done.wait()

    thread = Thread(target=search)
    thread.start()
    entered.wait()
    child = multiprocessing.get_context("fork").Process(target=one_thread().__enter__)
    child.start()
    child.join(budgets.PROGRAM_SECONDS)
    try:
        assert child.exitcode == 0
    finally:
        child.kill()
        done.set()
        thread.join()
