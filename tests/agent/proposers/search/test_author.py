"""What a model's results do to the bonus, the share and the reliability of its next points."""

from __future__ import annotations

from dataclasses import asdict, replace

from hypothesis import given
from hypothesis import strategies as st

from agent.proposers.search.author import HIGHEST, LEAST, MOST, Author, Forecast

EXPECTED = Forecast(forecast=1.0, deviation=0.01, noise=0.001, best=1.0, own=0.0005, success=0.9)


def after(values, forecast=EXPECTED):
    author = Author()
    for value in values:
        author.learn(value, forecast)
    return author


def test_better_results_than_forecast_raise_bonus_and_share():
    good, bad = after([0.98] * 10), after([1.02] * 10)
    assert good.bonus > 1.0 > bad.bonus == 0.0
    assert (good.share, bad.share) == (MOST, LEAST)
    assert good.favour == 0.0 > bad.favour


def test_points_close_to_the_best_earn_nothing():
    author = after([1.0, 0.9995, 1.0005] * 5, replace(EXPECTED, deviation=0.0002))
    assert author.share == LEAST
    assert author.favour < 0.0


def test_failures_lower_the_reliability():
    assert after([None] * 5).reliability < 0.7 < after([1.0] * 5).reliability == 1.0


def test_later_results_outweigh_earlier_ones():
    assert after([0.98] * 20 + [1.02] * 20).share == LEAST
    assert after([1.02] * 20 + [0.98] * 20).share == MOST


def test_exploration_is_bounded_until_paid_back():
    author = after([0.9999] * 6, replace(EXPECTED, own=0.005))
    assert author.balance < 0.0 == author.bonus
    for _ in range(6):
        author.learn(0.97, EXPECTED)
    assert author.balance > 0.0 < author.bonus


def test_forecast_is_read_back_from_its_figures():
    assert Forecast.of({**asdict(EXPECTED), "step": 0.1}) == EXPECTED
    assert Forecast.of({"step": 0.1}) is None


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=40))
def test_bonus_and_share_stay_within_bounds(values):
    author = after(values)
    assert 0.0 <= author.bonus <= HIGHEST
    assert LEAST <= author.share <= MOST
    assert author.favour <= 0.0
    assert 0.0 <= author.reliability <= 1.0
