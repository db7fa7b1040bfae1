"""Messages about failed requests. ``server`` names the server in all of them: its address, and its proxy."""

from __future__ import annotations

from collections.abc import Sequence

from agent.errors import ContextOverflow, ModelMisconfigured, ModelUnavailable, similar
from agent.llm.api_keys import KEY_VARIABLES
from agent.llm.connection import RequestFailed


def unavailable(server: str, error: RequestFailed, attempts: int, waited: float, bypass: str) -> ModelUnavailable:
    """A server that does not answer in ``waited`` seconds. ``bypass``: its host, if a proxy is in use."""
    tried = "1 attempt" if attempts == 1 else f"{attempts} attempts over {waited:.0f} s"
    if error.status == 0:
        without = f" To connect without the proxy, add {bypass} to NO_PROXY." if bypass else ""
        hint = f"Start the server, or name another one with --llm-base-url.{without}"
    elif error.retry_after:
        hint = f"It asks to wait {error.retry_after:.0f} s."
    else:
        hint = "Look at the server's log. `overnight resume TAG` continues a run that has begun."
    return ModelUnavailable(f"{server} gave no answer in {tried}: {str(error).rstrip('.')}. {hint}")


def refused(
    server: str, error: RequestFailed, model: str | None, has_key: bool, names: Sequence[str]
) -> ModelMisconfigured | ContextOverflow:
    """A request that fails however often it is sent. ``names``: the models of the server, for the status 404."""
    reason = str(error).rstrip(".")
    if error.status in (401, 403):
        problem = "refuses the API key" if has_key else "wants an API key"
        return ModelMisconfigured(f"{server} {problem} ({reason}). Set the right one in {KEY_VARIABLES[0]}.")
    if error.overflow:
        return ContextOverflow(
            f"the request does not fit the context of {model} on {server}: {reason}. Start the server with a larger "
            "--max-model-len, or use a model with a longer context.",
            error.body.window,
        )
    if error.status == 404 and model is not None and names and model not in names:
        return ModelMisconfigured(f"{unlisted(server, model, names)} Set --llm-model. The server says: {reason}.")
    if error.status == 404:
        return ModelMisconfigured(
            f"{server} offers no chat completions with {model!r} ({reason}). Serve a chat model, or check --llm-model "
            "and --llm-base-url."
        )
    if error.body.code == "insufficient_quota":
        return ModelMisconfigured(f"the account at {server} has no quota left ({reason}).")
    return ModelMisconfigured(f"{server} does not accept the request: {reason}.")


def unlisted(server: str, model: str, names: Sequence[str]) -> str:
    """A model that the server does not list."""
    return f"{server} lists no model {model!r}; it has {_listed(names)}.{similar(model, names)}"


def no_choice(server: str, names: Sequence[str]) -> ModelMisconfigured:
    """No model is named, and the server lists none or several."""
    if names:
        return ModelMisconfigured(f"{server} has {_listed(names)}: choose one with --llm-model")
    return ModelMisconfigured(
        f"{server} does not list its models. Is it an OpenAI-compatible server? Its address usually ends in /v1 "
        "(--llm-base-url). If the address is right, name the model with --llm-model."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
