"""Experiment trackers: what is sent (entries), when (follow), and one module for each tool."""
