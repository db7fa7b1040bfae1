"""The contract of a sandbox as executable checks, for the tests and for ``overnight doctor --sandbox``.

``cases`` holds one or more checks for each guarantee, ``escapes`` the programs that try to break them from inside,
``bench`` what runs these programs.
"""
