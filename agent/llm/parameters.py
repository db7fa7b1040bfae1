"""Optional request parameters that a server refuses are renamed or left out for the rest of the session."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from agent.llm.chat import Reply
from agent.llm.connection import RequestFailed

# Parameters that a request can do without, and the words for them in errors.
_OPTIONAL = {
    "temperature": "temperature",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_(?:completion_)?tokens",
    "n": r"[`'\"]n[`'\"]|n ?(?:[:=<>!]|must|should|is not)|completion choices?|multiple (?:choices|completions)",
    "response_format": "response_?format|json_?schema|structured[ _-]?outputs?",
    "structured_outputs": "structured[ _-]?outputs?|grammar|guided",
    "stream": "stream(?:ing)?",
    "stream_options": "stream_options|include_usage",
}
_NEW_NAMES = {"max_tokens": "max_completion_tokens"}


class Parameters:
    """Sends requests by ``post`` without the parameters that the server refused; ``warn`` receives a line on each."""

    def __init__(self, post: Callable[[dict[str, Any]], Reply], warn: Callable[[str], None]) -> None:
        self._post, self._warn = post, warn
        self._changes: dict[str, str] = {}  # refused parameter: its new name, "" to leave it out

    def leave_out(self, name: str) -> None:
        """Send no more requests with the parameter ``name``."""
        self._changes[name] = ""

    def send(self, body: Mapping[str, Any], needed: str = "") -> Reply:
        """Post ``body``; after a refusal, post it again without that parameter, unless it is ``needed``.

        Raises RequestFailed if the last attempt failed. Then nothing is remembered.
        """
        changes, reasons = dict(self._changes), dict[str, str]()
        while True:
            sent = _adapted(body, changes)
            try:
                reply = self._post(sent)
            except RequestFailed as error:
                refused = refused_parameter(error, sent)
                if not refused or refused == needed:
                    raise
                changes[refused], reasons[refused] = _NEW_NAMES.get(refused, ""), str(error)
                continue
            self._changes |= changes
            for name, reason in reasons.items():
                instead = f"send {changes[name]} instead" if changes[name] else "leave it out"
                self._warn(f"refuses {name}; requests now {instead}. The server says: {reason}")
            return reply


def _adapted(body: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    out = dict(body)
    for name, new in changes.items():
        value = out.pop(name, None)
        if new and value is not None:
            out[new] = value
    return out


def refused_parameter(error: RequestFailed, body: Mapping[str, Any]) -> str:
    """The optional parameter of ``body`` that an error response names; "" if there is none."""
    if error.status not in (400, 422) or error.overflow:
        return ""
    param = re.split(r"[.\[]", error.body.param)[-1].strip("]'\"")
    places = {}
    for name, words in _OPTIONAL.items():
        if name in body and name == param:
            return name
        if name in body and (found := re.search(rf"(?<!\w)(?:{words})(?!\w)", error.body.reason, re.IGNORECASE)):
            places[name] = found.start()
    return min(places, key=lambda name: places[name], default="")
