"""Sandboxes that work on this machine."""

from __future__ import annotations

import pytest

from sandbox import make_sandbox
from sandbox.types import Sandbox, SandboxUnavailable


def working(name: str) -> Sandbox:
    """The sandbox of this name; skips the test where it does not work."""
    sandbox = make_sandbox(name)
    try:
        sandbox.check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    return sandbox
