"""API keys: read from the environment, removed from texts and from the environment of child processes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

KEY_VARIABLES = ("OVERNIGHT_LLM_API_KEY", "OPENAI_API_KEY")  # the first one that is set holds the key
TRACKER_KEYS = ("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "HF_TOKEN")  # for trackers only
_OTHER_SECRETS = ("OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET", "OPENAI_CUSTOM_HEADERS")
_passwords: set[str] = set()  # of addresses of servers
_KEY_SHAPE = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]{6,}|\b(?:sk|hf|gsk)[-_][\w-]{8,}")


def key_of_environment() -> str | None:
    """The API key of the environment, or None: most self-hosted servers need none."""
    return next((key for name in KEY_VARIABLES if (key := os.environ.get(name, "").strip())), None)


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without the variables that hold a key, for a child process."""
    return {name: value for name, value in environment.items() if name not in (*KEY_VARIABLES, *_OTHER_SECRETS)}


def remember(password: str | None) -> None:
    """Let ``scrub`` remove the password of a server's address from every text."""
    if password:
        _passwords.add(password)


def scrub(text: str, *keys: str | None) -> str:
    """``text`` with ``[key]`` for ``keys``, the keys of the environment and everything that looks like a key."""
    set_now = (os.environ.get(name) for name in (*KEY_VARIABLES, *TRACKER_KEYS))
    known = [key.strip() for key in (*keys, *set_now, *_passwords) if key and key.strip()]
    for key in sorted(known, key=len, reverse=True):
        if len(key) >= 4 and key.lower() not in ("none", "empty"):
            text = text.replace(key, "[key]")
    return _KEY_SHAPE.sub(lambda match: f"{match.group(1) or ''}[key]", text)
