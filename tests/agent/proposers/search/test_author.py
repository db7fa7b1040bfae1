"""What an author's results do to the factor, the share and the reliability of its next points."""

from __future__ import annotations

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from agent.proposers.search.author import HIGHEST, LEAST, LOWEST, MOST, Author, Forecast

EXPECTED = Forecast(forecast=1.0, deviation=0.01, noise=0.001, best=1.0, charge=0.001, own=0.0005, success=0.9)


def after(values, forecast=EXPECTED):
    author = Author()
    for value in values:
        author.learn(value, forecast)
    return author


def test_more_improvement_than_charged_raises_factor_and_share():
    good, bad = after([0.98] * 10), after([1.02] * 10)
    assert good.factor > 2.0 > bad.factor
    assert (good.share, bad.share) == (MOST, LEAST)


def test_points_close_to_the_best_earn_nothing():
    sober = Forecast(forecast=1.0, deviation=0.0002, noise=0.001, best=1.0, charge=0.0005, own=0.0005, success=0.9)
    author = after([1.0, 0.9995, 1.0005] * 5, sober)
    assert author.share == LEAST
    assert author.factor < 1.0


def test_failures_lower_the_reliability():
    assert after([None] * 5).reliability < 0.7 < after([1.0] * 5).reliability == 1.0


def test_later_results_outweigh_earlier_ones():
    assert after([0.98] * 20 + [1.02] * 20).share == LEAST
    assert after([1.02] * 20 + [0.98] * 20).share == MOST


def test_forecast_is_read_back_from_its_figures():
    assert Forecast.of({**asdict(EXPECTED), "step": 0.1}) == EXPECTED
    assert Forecast.of({"step": 0.1}) is None


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=40))
def test_factor_and_share_stay_within_bounds(values):
    author = after(values)
    assert LOWEST <= author.factor <= HIGHEST
    assert LEAST <= author.share <= MOST
    assert 0.0 <= author.reliability <= 1.0
