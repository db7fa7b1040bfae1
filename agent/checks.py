"""What the settings of a session must satisfy, each by itself and together; nothing is looked up but the settings."""

from __future__ import annotations

import dataclasses

from agent.config import Settings
from agent.ending import check_ends
from agent.errors import UsageError
from agent.judge import Policy, needs_noise

MOST_THREADS = 4096  # of a trial: with more, libraries crash
LOOKED_AT_BY = {  # settings that one proposer alone looks at
    "on_plateau": "code",
    "repairs": "code",
    "llm_temperature": "code",
    "centaur_share": "centaur",
    "screen": "centaur",
}


def check_settings(settings: Settings) -> None:
    """Raises ``UsageError``: names the flag, and what to write."""
    check_ends(settings)
    if settings.llm_timeout <= 0:
        raise UsageError(f"--llm-timeout {settings.llm_timeout:g}: must be more than 0 (seconds for one answer).")
    check_threads(settings.threads)
    if settings.centaur_share != "auto" and not _is_share(settings.centaur_share):
        raise UsageError(f"--centaur-share {settings.centaur_share}: write auto, or a number from 0 to 1.")
    if settings.on_llm_failure == "cma" and settings.proposer != "centaur":
        raise UsageError("--on-llm-failure cma belongs to --proposer centaur: no other has cma-es beside a model.")


def check_threads(threads: int) -> None:
    if threads > MOST_THREADS:
        raise UsageError(f"--threads {threads}: must be at most {MOST_THREADS}; 0 takes all cores.")


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def check_calibration(calibration: int, policy: Policy) -> None:
    """Raises ``UsageError`` where the policy would know nothing of the noise."""
    if calibration < 2 and needs_noise(policy):
        raise UsageError(
            f"--calibrate {calibration}: the policy {policy.name} needs at least 2 runs of the baseline to know "
            f"the noise. Use --calibrate 3 or more, or --policy greedy."
        )


def without_effect(settings: Settings) -> list[str]:
    """What was set and this proposer does not look at, in a sentence each."""
    found = []
    for item in dataclasses.fields(Settings):
        value, user = getattr(settings, item.name), LOOKED_AT_BY.get(item.name, settings.proposer)
        if value != item.default and user != settings.proposer:
            flag = item.name.replace("_", "-")
            said = f"--no-{flag}" if value is False else f"--{flag} {value}"
            found.append(f"{said} has no effect: only --proposer {user} looks at it, and this is {settings.proposer}.")
    return found
