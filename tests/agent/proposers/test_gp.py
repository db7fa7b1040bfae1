"""What the screening makes of values."""

from __future__ import annotations

import numpy as np
import pytest

from agent.proposers.gp import GaussianProcess, compress


def test_good_values_are_left_alone_and_bad_ones_keep_their_order():
    y = np.array([1.0, 1.1, 1.2, 1.3, 1.5, 2.0])
    squeezed = compress(y)
    assert squeezed[:3].tolist() == [1.0, 1.1, 1.2]
    assert (np.diff(squeezed) > 0).all()
    assert squeezed[-1] < y[-1]


@pytest.mark.parametrize("absurd", [11.0, 1e4, 1e30])
def test_absurd_values_do_not_blind_a_process_to_the_rest(absurd):
    """A tenth of the runs went wrong and say so with a number; how large that is must not matter."""
    x = np.linspace(0.0, 1.0, 40)[:, None]
    y = 3.0 + 0.1 * (x[:, 0] - 0.4) ** 2
    y[36:] = absurd
    process = GaussianProcess(x, compress(y), np.array([0]))
    grid = np.linspace(0.0, 0.8, 81)[:, None]
    mean, _ = process.predict(grid)
    assert grid[np.argmin(mean), 0] == pytest.approx(0.4, abs=0.05)
    assert np.ptp(compress(y)) < 5 * np.ptp(y[:36])
