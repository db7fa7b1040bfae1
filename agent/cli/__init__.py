"""The command line: ``parser`` has the commands with their options, and each command has a module."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see ``agent.cli.entry``. Ctrl-C while its modules load ends without a traceback, too."""
    try:
        from agent.cli import entry
    except KeyboardInterrupt:
        print("overnight: interrupted", file=sys.stderr)
        return 130
    return entry.main(argv)
