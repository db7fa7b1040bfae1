"""Data for reviewing a session, computed once and rendered by ``terminal``, ``report`` and ``--json``."""
