"""What every test relies on."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A shell that starts a test run in the background lets it ignore Ctrl-C, and so would every command under test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
