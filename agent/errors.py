"""What can go wrong, one class per exit status.

A message says what happened, where, and what to do next; ``cli.main`` prints it and exits with ``exit_status``.
Anything that is not an ``OvernightError`` is a bug and keeps its traceback.
"""

from __future__ import annotations


class OvernightError(Exception):
    """The work failed. Exit status 1."""

    exit_status = 1


class UsageError(OvernightError):
    """The command line, a configuration file or the target is wrong. Exit status 2."""

    exit_status = 2


class EnvironmentProblem(OvernightError):
    """Something outside is missing or broken (Docker, model, disk). Exit status 3. No idea loses its trial by it."""

    exit_status = 3


def system_problem(error: OSError) -> EnvironmentProblem:
    """The message for an error of the operating system, such as a full disk."""
    place = f"{error.filename}: " if error.filename else ""
    return EnvironmentProblem(f"{place}{error.strerror or error}. Fix this, then `overnight resume`.")


class ModelUnavailable(EnvironmentProblem):
    """The model server cannot be reached, refuses the key, or does not have the model."""


class ModelMisconfigured(ModelUnavailable):
    """The server answers, and waiting will not help: wrong key, unknown model, a request that it does not accept."""


class PatchRejected(OvernightError):
    """A reply holds no edit that can be applied. The message quotes the nearest real lines, for the repair round."""


class NoEffect(PatchRejected):
    """The edit applies and the program stays the same: nothing would be measured but noise."""


class ReplyRejected(OvernightError):
    """A reply was understood and breaks a rule (out of bounds, not in the asked form). The message names the rule."""


class ContextOverflow(ReplyRejected):
    """The request is longer than the server's context window: ``window`` tokens, None if it does not say."""

    def __init__(self, message: str, window: int | None = None) -> None:
        super().__init__(message)
        self.window = window


class Interrupted(Exception):
    """The user wants the running trial to end now. Not an error: nothing is wrong."""
