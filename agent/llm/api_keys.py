"""API keys: where they come from, and how they are kept out of files, logs, messages and child processes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

KEY_VARIABLES = ("OVERNIGHT_LLM_API_KEY", "OPENAI_API_KEY")  # the first that is set holds the key
_MORE_SECRETS = ("OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET", "OPENAI_CUSTOM_HEADERS")
_KEY_SHAPE = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]{6,}|\b(?:sk|hf|gsk)[-_][\w-]{8,}")


def key_of_environment() -> str | None:
    """The key of the environment, or None: most servers of one's own need none."""
    return next((key for name in KEY_VARIABLES if (key := os.environ.get(name, "").strip())), None)


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` for a child process: without the variables that hold a key."""
    hidden = {*KEY_VARIABLES, *_MORE_SECRETS}
    return {name: value for name, value in environment.items() if name not in hidden}


def scrub(text: str, *keys: str | None) -> str:
    """``text`` without API keys: those given, those of the environment, and whatever looks like one."""
    known = [key.strip() for key in (*keys, *(os.environ.get(name) for name in KEY_VARIABLES)) if key and key.strip()]
    for key in sorted(known, key=len, reverse=True):
        if len(key) >= 4 and key.lower() not in ("none", "empty"):
            text = text.replace(key, "[key]")
    return _KEY_SHAPE.sub(lambda match: f"{match.group(1) or ''}[key]", text)
