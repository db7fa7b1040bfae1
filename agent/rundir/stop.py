"""Stop requests: Ctrl-C, SIGTERM, and the stop file that `overnight stop` writes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from agent.rundir.directory import RunDirectory


class Stopper:
    """One signal ends the session after the running trial, two end it at once."""

    def __init__(self, directory: RunDirectory):
        self.directory, self.signals = directory, 0

    def asked(self) -> str:
        """ "", ``after`` (after the running trial) or ``now``."""
        return "now" if self.now() else self.directory.stop_asked() or ("after" if self.signals else "")

    def now(self) -> bool:
        return self.signals > 1 or self.directory.stop_asked() == "now"

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count SIGINT and SIGTERM instead of dying from them."""

        def count(_signal: int, _frame: object) -> None:
            self.signals += 1
            if self.signals == 1:
                print("\nending after the running trial; once more ends at once", file=sys.stderr)

        before = {s: signal.signal(s, count) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
