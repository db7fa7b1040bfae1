"""The acceptance rule: whether an edit is kept, reverted or measured again. Pure functions of the measurements."""

from agent.judge.policy import judge

__all__ = ["judge"]
