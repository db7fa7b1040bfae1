"""The acceptance rule: whether a trial is kept, reverted or measured again. Pure functions of the measurements."""

from agent.judge.policy import judge

__all__ = ["judge"]
