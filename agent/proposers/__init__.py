"""Who proposes. ``make_proposer`` returns a search method by its name; it loads only what that method needs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from agent.errors import UsageError
from agent.types import Value

if TYPE_CHECKING:
    from agent.llm.chat import Chat, Message
    from agent.proposers.protocol import SuggestingMethod
    from agent.space.space import SearchSpace

METHODS = {  # name: module, class, whether it talks to a model
    "cma-es": ("agent.proposers.search.cma", "CmaEs", False),
    "cma-gp": ("agent.proposers.search.cma_gp", "CmaGp", False),
    "tpe": ("agent.proposers.search.tpe", "Tpe", False),
    "random": ("agent.proposers.search.tpe", "RandomSearch", False),
    "smac": ("agent.proposers.search.smac", "Smac", False),
    "hparams": ("agent.proposers.search.hparams", "Hparams", True),
    "llambo": ("agent.proposers.search.llambo", "Llambo", True),
    "llambo-optuna": ("agent.proposers.search.llambo", "LlamboOptuna", True),
    "centaur": ("agent.proposers.search.centaur", "Centaur", True),
}


def make_proposer(
    name: str,
    space: SearchSpace,
    seed: int = 0,
    llm: Chat | Callable[[Sequence[Message]], str] | None = None,
    baseline: Mapping[str, Value] | None = None,
    **options: Any,
) -> SuggestingMethod:
    """The search method ``name`` over ``space``. Values that it is told are minimised.

    Args:
        llm: the model, for the methods that talk to one: a ``Chat``, or a function from a conversation to an answer.
        baseline: the configuration to start from, which is known and never proposed; default the values in the block.
        options: what the method's class takes besides.

    Raises:
        UsageError: no such method or option, no model for a method that needs one, a baseline outside the space.
        EnvironmentProblem: the method needs a package that is not installed.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(str(name), METHODS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METHODS)}"
        raise UsageError(f"no search method {name!r}; {hint}")
    module, attribute, needs_model = METHODS[name]
    if needs_model:
        if llm is None:
            raise UsageError(f"{name} talks to a model and was given none; name its server with --llm-base-url")
        options["llm"] = _chat(llm)
    try:
        method: SuggestingMethod = getattr(import_module(module), attribute)(space, seed, baseline, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise UsageError(f"{name} has no option {str(error).rsplit(' ', 1)[-1]}") from None
    return method


def _chat(llm: Chat | Callable[[Sequence[Message]], str]) -> Chat:
    from agent.llm.chat import Answers

    lacking = [verb for verb in ("complete", "describe", "count_tokens") if not callable(getattr(llm, verb, None))]
    if not lacking:
        return llm  # type: ignore[return-value]
    if callable(llm):
        return Answers(llm)
    raise UsageError(f"llm is a model as in agent.chat.Chat or a function; {llm!r:.60} has no {', '.join(lacking)}")
