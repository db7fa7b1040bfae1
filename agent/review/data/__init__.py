"""Data for reviewing a run, computed once and rendered by ``terminal``, ``report`` and ``--json``."""
