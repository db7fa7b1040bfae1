"""The errors that users see, one class for each exit status.

A message says what happened, where, and what to do next. ``agent.cli`` prints it and exits with ``exit_status``. Any
other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OvernightError(Exception):
    """The work failed. Exit status 1."""

    exit_status = 1


class UsageError(OvernightError):
    """The command line, a configuration file or the target is wrong. Exit status 2."""

    exit_status = 2


class EnvironmentProblem(OvernightError):
    """Something outside is missing or broken (Docker, model, disk). Exit status 3. It never ends a trial."""

    exit_status = 3


def system_problem(error: OSError) -> EnvironmentProblem:
    """The message for an error of the operating system, such as a full disk."""
    place = f"{error.filename}: " if error.filename else ""
    return EnvironmentProblem(f"{place}{error.strerror or error}. Fix this, then `overnight resume`.")


class ModelUnavailable(EnvironmentProblem):
    """The model server cannot be reached, refuses the key, or does not have the model."""


class ModelMisconfigured(ModelUnavailable):
    """The server answers, but waiting cannot help: wrong key, unknown model, or a request that it does not accept."""


class PatchRejected(OvernightError):
    """A reply has no edit that applies. The message quotes the nearest real lines, for the repair round."""


class NoEffect(PatchRejected):
    """The edit applies, but the program stays the same: a run would measure only noise."""


class ReplyRejected(OvernightError):
    """A reply breaks a rule, such as a bound or the requested form. The message names the rule."""


class SearchExhausted(OvernightError):
    """Every configuration of the search space was proposed."""


class ContextOverflow(ReplyRejected):
    """The request is longer than the context window of the server.

    Args:
        message: for the user.
        window: tokens; None if the server does not say.
    """

    def __init__(self, message: str, window: int | None = None) -> None:
        super().__init__(message)
        self.window = window


class Interrupted(Exception):
    """The user wants the running trial to end now. This is not an error."""


def check_key(key: str, valid: Iterable[str], where: str, what: str = "key") -> None:
    """Raises ``UsageError`` for a key that is not in ``valid``, with the nearest valid key."""
    names = list(valid)
    if key not in names:
        raise UsageError(f"{where}: unknown {what} {key!r}.{nearest(key, names)}")


def check_choice(value: str, choices: Iterable[str], where: str) -> None:
    """Raises ``UsageError`` for a value that is not in ``choices``. ``where`` names the file and the key."""
    names = list(choices)
    if value not in names:
        raise UsageError(f"{where} = {value!r} is not one of {', '.join(names)}.{similar(value, names)}")


def nearest(word: str, names: Iterable[str]) -> str:
    """A sentence that suggests the name closest to ``word``, or lists all names."""
    options = sorted(names)
    return similar(word, options) or f" Valid: {', '.join(options)}."


def similar(word: str, names: Iterable[str]) -> str:
    """A sentence that suggests the name closest to ``word``; "" if no name is close."""
    close = difflib.get_close_matches(word, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
