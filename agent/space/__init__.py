"""The hyperparameter block of a target as a search space."""

from agent.space.space import SearchSpace

__all__ = ["SearchSpace"]
