"""What every test relies on."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("overnight", deadline=None)  # no time may fail a test
settings.load_profile("overnight")


def pytest_configure() -> None:
    """A shell that starts a test run in the background lets it ignore Ctrl-C, and so would every command under test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def own_configuration() -> Iterator[None]:
    """Records of trusted targets stay out of the user's configuration folder."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", folder)
        yield
