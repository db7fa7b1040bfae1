"""What CMA-ES and Centaur report about their state."""

from __future__ import annotations

import pytest
from places import ROOT
from search_models import Helper

from agent.proposers import make_proposer
from agent.proposers.search.cma import SIGMA
from agent.space.space import SearchSpace
from agent.types import Param

NANOGPT = SearchSpace.from_toml(ROOT / "nanogpt_target" / "target.toml")


def test_cma_es_reports_step_and_axes() -> None:
    method = make_proposer("cma-es", NANOGPT)
    first = method.suggest().search
    assert first["shortest"] == pytest.approx(first["longest"]) == first["step"] == pytest.approx(SIGMA)
    for _ in range(22):
        params = method.ask()
        method.tell(params, float(params["MATRIX_LR"]))
    later = method.suggest().search
    assert later["generation"] > first["generation"] == 0
    assert later["shortest"] < later["longest"]


def test_centaur_reports_the_share_of_the_model() -> None:
    method = make_proposer("centaur", NANOGPT, llm=Helper(NANOGPT))
    assert 0.0 < method.suggest().search["model_share"] < 1.0


def test_search_of_categories_reports_no_step() -> None:
    space = SearchSpace([Param("PATTERN", "categorical", "SL", choices=("SL", "LL", "SS"))])
    assert make_proposer("cma-es", space).suggest().search == {}
