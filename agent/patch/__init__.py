"""Applying a model's reply, a possibly malformed unified diff, to a file."""

from agent.patch.apply import apply_reply

__all__ = ["apply_reply"]
