"""The command line: one module per command, its options beside the function that runs them."""

from agent.cli.entry import main

__all__ = ["main"]
