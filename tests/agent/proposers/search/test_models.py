"""Methods with a model: prompts, answers and failures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from places import ROOT
from scripted import ScriptedModel
from search_models import Helper

from agent.errors import ModelUnavailable, ReplyRejected, UsageError
from agent.llm.chat import Reply
from agent.patch.apply import unified_diff
from agent.proposers import make_proposer
from agent.proposers.search.adviser import POINTS
from agent.proposers.search.author import LEAST
from agent.proposers.search.base import Method, NoPoint, Suggestion
from agent.proposers.search.centaur import Centaur
from agent.space.space import SearchSpace

SPACE = SearchSpace.from_toml(ROOT / "nanogpt_target" / "target.toml")


def live(method: Centaur, trials: int, value: Callable[[str, int], float | None]) -> list[str]:
    """The sources of the trials; ``value`` is by source and trial."""
    sources = []
    for k in range(trials):
        suggestion = method.suggest()
        result = value(suggestion.source, k)
        method.tell(suggestion.params, result, status="ok" if result is not None else "oom")
        sources.append(suggestion.source)
    return sources


def test_paper_mode_gives_model_thirty_percent():
    method = Centaur(SPACE, llm=Helper(SPACE), share=0.3, screen=False)
    sources = live(method, 50, lambda source, k: 1.0 + 0.001 * k)
    assert sources[:10] == ["cma"] * 10
    assert sources.count("llm") == 12
    assert set(sources) == {"cma", "llm"}


def test_model_share_follows_success():
    useless = Centaur(SPACE, llm=Helper(SPACE), screen=False)
    live(useless, 100, lambda source, k: None if source == "llm" else 1.0 - 0.001 * k)
    assert useless.model_share < 0.06
    good = Centaur(SPACE, llm=Helper(SPACE), screen=False)
    live(good, 100, lambda source, k: 0.9 - 0.001 * k if source == "llm" else 1.0 + 0.001 * (k % 7))
    assert 0.4 < good.model_share <= 0.5


def test_prompt_shows_cma_es_in_block_units():
    helper = Helper(SPACE)
    live(Centaur(SPACE, llm=helper, share=1.0, screen=False), 40, lambda source, k: 1.0 + 0.01 * (k % 5))
    prompt = helper.prompts[-1]
    assert "| MATRIX_LR | 0.0" in prompt
    assert "one step, low to high | next suggestion" in prompt
    assert "- DEPTH: whole number, 4 to 24" in prompt
    assert "WINDOW_PATTERN: " in prompt
    assert "always: `TOTAL_BATCH_SIZE >= DEVICE_BATCH_SIZE * 2048`" in prompt


@pytest.mark.parametrize(
    ("name", "options"),
    [("hparams", {}), ("llambo", {}), ("llambo-optuna", {}), ("centaur", {}), ("centaur", {"share": 0.5})],
)
def test_replay_gives_the_same_next_prompt(name, options):
    lived, replayed = Helper(SPACE), Helper(SPACE)
    one, two = (make_proposer(name, SPACE, seed=5, llm=llm, **options) for llm in (lived, replayed))
    for k in range(25):
        suggestion = one.suggest()
        two.replay(suggestion)
        for method in (one, two):
            method.tell(suggestion.params, None if k % 6 == 5 else 1.0 + 0.001 * (k % 11), memory_gb=30.0)
    assert replayed.prompts == []
    while not replayed.prompts:
        before = len(lived.prompts)
        assert one.suggest() == two.suggest()
    assert lived.prompts[before:] == replayed.prompts


@pytest.mark.parametrize("form", ["diff", "json"])
def test_malformed_reply_gets_one_repair_request(form):
    good = SPACE.defaults | {"DEPTH": 10}
    diff = unified_diff(SPACE.block, SPACE.render(SPACE.block, good), SPACE.path)
    answer = json.dumps(good) if form == "json" else f"Rationale: deeper\n\n```diff\n{diff}```"
    llm = ScriptedModel(["no idea", answer])
    suggestion = make_proposer("hparams", SPACE, llm=llm, reply=form).suggest()
    assert suggestion.params == good
    assert (suggestion.source, suggestion.usage["repairs"]) == ("llm", 1)
    assert "could not be used" in llm.requests[1].messages[-1]["content"]
    assert llm.requests[0].seed != llm.requests[1].seed


def test_second_bad_reply_uses_up_the_ask():
    method = make_proposer("hparams", SPACE, llm=ScriptedModel(["nothing", "nothing"]))
    with pytest.raises(NoPoint, match="no usable configuration") as raised:
        method.suggest()
    assert isinstance(raised.value, ReplyRejected)
    assert "# Reply" in raised.value.transcript
    with pytest.raises(ModelUnavailable):
        method.suggest()


def test_repeated_configuration_is_rejected():
    same = json.dumps(SPACE.defaults)
    with pytest.raises(NoPoint, match="started from"):
        make_proposer("hparams", SPACE, llm=ScriptedModel([same, same]), reply="json").suggest()


def test_cma_replaces_failing_model_only_if_allowed():
    strict = Centaur(SPACE, llm=ScriptedModel([]), share=1.0)
    allowed = Centaur(SPACE, llm=ScriptedModel([]), share=1.0, on_failure="cma")
    for _ in range(10):
        assert allowed.suggest() == strict.suggest()
    with pytest.raises(ModelUnavailable):
        strict.suggest()
    with pytest.raises(ModelUnavailable):  # nothing changed: the same call again
        strict.suggest()
    suggestion = allowed.suggest()
    assert suggestion.source == "cma"
    assert "the model failed" in suggestion.rationale


def tell_failures(method: Method) -> None:
    """Every run deeper than 12 runs out of memory."""
    for k in range(60):
        params = dict(SPACE.defaults, DEPTH=4 + k % 17, MATRIX_LR=0.02 + 0.0005 * k)
        fails = params["DEPTH"] > 12
        method.tell(params, None if fails else 1.0 + 0.001 * (k % 7), status="oom" if fails else "ok")


def after_failures(replies: list[str], share: float | None = 1.0, **options: Any) -> tuple[Centaur, ScriptedModel]:
    """A Centaur that saw failures of deep runs, before the model's turn."""
    llm = ScriptedModel(replies)
    method = Centaur(SPACE, llm=llm, reply="json", share=share, **options)
    tell_failures(method)
    while not method.models_turn(method.asks):
        method.replay(None)
    return method, llm


DEEP, DEEPER, SHALLOW = (json.dumps(SPACE.defaults | {"DEPTH": depth}) for depth in (20, 24, 7))


def test_common_pool_runs_no_likely_failure():
    method, llm = after_failures([DEEP, DEEPER], share=None)
    suggestion = method.suggest()
    assert (suggestion.source, len(llm.requests)) == ("gp", 2)
    assert DEEP in suggestion.transcript
    assert suggestion.usage["calls"] == 2


def test_repeating_model_leaves_cma_gp_unchanged():
    plain, pooled = make_proposer("cma-gp", SPACE), make_proposer("centaur", SPACE, llm=lambda _: "DEPTH = 8")
    before = pooled.model_share
    for k in range(30):
        own, suggestion = plain.suggest(), pooled.suggest()
        assert (own.params, own.source) == (suggestion.params, suggestion.source)
        for method in (plain, pooled):
            method.tell(own.params, 1.0 + 0.001 * (k % 7))
    assert pooled.model_share < before


def test_failures_of_the_model_leave_cma_es_unchanged():
    method = Centaur(SPACE, llm=Helper(SPACE))
    before = method.gaussian.mean.copy(), method.gaussian.covariance
    for k in range(30):
        params = dict(SPACE.defaults, DEPTH=16, MATRIX_LR=0.06 + 0.001 * k)
        method.replay(Suggestion(params, "llm"))
        method.tell(params, None, status="oom")
    assert (method.gaussian.mean == before[0]).all()
    assert (method.gaussian.covariance == before[1]).all()
    assert method.model_share == LEAST


def test_good_points_of_the_model_run_and_are_counted():
    shallow = lambda _: json.dumps(SPACE.defaults | {"DEPTH": 4, "SCALAR_LR": 0.3 + 0.001 * len(method.observations)})  # noqa: E731
    method = make_proposer("centaur", SPACE, llm=shallow, reply="json")
    for _ in range(40):
        params = method.ask()
        method.tell(params, 1.0 + 0.01 * params["DEPTH"])
    assert sum(o.source == "llm" for o in method.observations) > 4
    assert method.best.source == "llm"


def test_several_points_are_asked_for_except_in_paper_mode():
    for options, count in (({"share": 1.0}, POINTS), ({"share": 1.0, "screen": False}, 1)):
        llm = ScriptedModel([json.dumps(SPACE.defaults | {"DEPTH": 7})])
        method = Centaur(SPACE, llm=llm, reply="json", **options)
        while not llm.requests:
            method.suggest()
        assert llm.requests[0].n == count


def test_hparams_runs_the_most_promising_answer():
    far, near = ({**SPACE.defaults, "MATRIX_LR": rate, "DEPTH": 9} for rate in (0.19, 0.021))
    answers = tuple(json.dumps(params) for params in (SPACE.defaults, far, near))
    llm = ScriptedModel([Reply(answers[0], choices=answers)])
    method = make_proposer("hparams", SPACE, llm=llm, reply="json")
    for k in range(16):
        rate = 0.01 + 0.01 * k
        method.tell(SPACE.defaults | {"MATRIX_LR": rate}, 1.0 + (rate - 0.02) ** 2)
    assert method.suggest().params == near
    assert "- 16 results; none failed." in llm.requests[0].messages[0]["content"]


def test_hparams_runs_no_likely_failure():
    unknown = json.dumps(SPACE.defaults | {"DEPTH": 24, "SCALAR_LR": 1.9})  # the largest expected improvement
    for replies in ([Reply(unknown, choices=(unknown, SHALLOW))], [unknown, SHALLOW]):
        method = make_proposer("hparams", SPACE, llm=ScriptedModel(replies), reply="json")
        tell_failures(method)
        assert method.suggest().params == json.loads(SHALLOW)


def test_likely_failure_is_doubted_once():
    for second, tried in ((SHALLOW, SHALLOW), (DEEPER, DEEP), (DEEP, DEEP)):
        method, llm = after_failures([DEEP, second])
        suggestion = method.suggest()
        assert (suggestion.source, suggestion.params) == ("llm", json.loads(tried))
        assert suggestion.usage["repairs"] == 1
        asked = llm.requests[1].messages[-1]["content"]
        assert re.search(r"by the runs that failed so far \(oom\).* fails with a probability of \d\d%", asked)
    method, llm = after_failures([SHALLOW])
    assert method.suggest().usage["repairs"] == 0


def test_doubted_point_is_used_without_second_answer():
    for second in ("no idea", json.dumps(SPACE.defaults)):
        method, _ = after_failures([DEEP, second])
        suggestion = method.suggest()
        assert (suggestion.source, suggestion.params) == ("llm", json.loads(DEEP))
        assert second in suggestion.transcript


def test_second_answer_is_never_doubted():
    method, llm = after_failures(["no idea", DEEP])
    assert method.suggest().params == json.loads(DEEP)
    assert len(llm.requests) == 2


def test_model_failures_raise_the_threshold():
    edge = json.dumps(SPACE.defaults | {"DEPTH": 12})
    trusted, _ = after_failures([edge])
    assert trusted.suggest().usage["repairs"] == 0
    method, llm = after_failures([edge, SHALLOW])
    for k in range(8):
        params = dict(SPACE.defaults, DEPTH=16, MATRIX_LR=0.06 + 0.001 * k)
        method.replay(Suggestion(params, "llm"))
        method.tell(params, None, status="oom")
    while not method.models_turn(method.asks):
        method.replay(None)
    assert method.suggest().params == json.loads(SHALLOW)
    assert len(llm.requests) == 2


def test_paper_mode_never_doubts():
    method, llm = after_failures([DEEP], share=0.3, screen=False)
    assert method.suggest().params == json.loads(DEEP)
    assert len(llm.requests) == 1


def test_form_is_enforced_by_capable_servers():
    for structured, form, sent in ((["grammar", "schema"], "diff", "grammar"), (["schema"], "json", "schema")):
        llm = ScriptedModel(["x", "x"], structured=structured)
        with pytest.raises(NoPoint):
            make_proposer("hparams", SPACE, llm=llm, reply=form).suggest()
        assert getattr(llm.requests[0], sent) is not None


def test_bad_options_raise():
    with pytest.raises(UsageError, match="between 0 and 1"):
        make_proposer("centaur", SPACE, llm=Helper(SPACE), share=30)
    with pytest.raises(UsageError, match="--llm-base-url"):
        make_proposer("centaur", SPACE)
