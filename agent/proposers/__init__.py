"""Proposers of edits. ``make_proposer`` returns a search method by its name and imports only that method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from agent.errors import UsageError, check_choice

if TYPE_CHECKING:
    from agent.llm.chat import Chat, Message
    from agent.proposers.search.base import Method
    from agent.space.space import Params, SearchSpace

METHODS = {  # name: module, class, whether it needs a model
    "cma-es": ("agent.proposers.search.cma", "CmaEs", False),
    "cma-gp": ("agent.proposers.search.cma_gp", "CmaGp", False),
    "tpe": ("agent.proposers.search.tpe", "Tpe", False),
    "random": ("agent.proposers.search.tpe", "RandomSearch", False),
    "smac": ("agent.proposers.search.smac", "Smac", False),
    "hparams": ("agent.proposers.search.adviser", "Hparams", True),
    "llambo": ("agent.proposers.search.llambo", "Llambo", True),
    "llambo-optuna": ("agent.proposers.search.llambo", "LlamboOptuna", True),
    "centaur": ("agent.proposers.search.centaur", "Centaur", True),
}


def make_proposer(
    name: str,
    space: SearchSpace,
    seed: int = 0,
    llm: Chat | Callable[[Sequence[Message]], str] | None = None,
    baseline: Params | None = None,
    **options: Any,
) -> Method:
    """The search method ``name`` over ``space``, a ``SearchMethod``. Values are minimised.

    Args:
        name: a key of ``METHODS``.
        space: the search space.
        seed: any integer.
        llm: the model, for the methods that need one: a ``Chat``, or a function from the messages to the answer.
        baseline: configuration where the search starts, never proposed; default the values in the block.
        options: further arguments of the method's class.

    Raises:
        UsageError: unknown method, a missing model, or a baseline outside the space.
        EnvironmentProblem: a package that the method needs is not installed.
    """
    check_choice(str(name), METHODS, "search method")
    module, attribute, needs_model = METHODS[name]
    if needs_model:
        if llm is None:
            raise UsageError(f"{name} needs a model; name its server with --llm-base-url")
        options["llm"] = _chat(llm)
    method: Method = getattr(import_module(module), attribute)(space, seed, baseline, **options)
    return method


def _chat(llm: Chat | Callable[[Sequence[Message]], str]) -> Chat:
    from agent.llm.chat import Answers

    lacking = [verb for verb in ("complete", "describe", "count_tokens") if not callable(getattr(llm, verb, None))]
    if not lacking:
        return llm  # type: ignore[return-value]
    if callable(llm):
        return Answers(llm)
    raise UsageError(f"llm must be an agent.llm.chat.Chat or a function; {llm!r:.60} has no {', '.join(lacking)}")
