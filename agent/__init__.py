"""Overnight: a code-editing research agent that works through the night on one training script."""

__version__ = "0.1.0"
