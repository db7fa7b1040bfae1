"""The contract of a sandbox as executable checks, for the tests and for ``overnight doctor --sandbox``.

``cases`` holds one or more checks for each guarantee, and ``bench`` what runs them. The programs that try to break a
guarantee from inside are in ``escapes``, ``exhaustion`` and ``side_channels``.
"""
