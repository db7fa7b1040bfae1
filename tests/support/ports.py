"""Ports and addresses of the loopback for tests."""

from __future__ import annotations

import os
import socket

# The kernel gives none of these to another socket. Ray refuses ports below 20,000, which its workers use.
_BELOW_EPHEMERAL = range(20_000, 32_000)
_next = os.getpid() * 37  # processes that test at the same time begin at different ports
_dead: list[socket.socket] = []


def free_port() -> int:
    """A port that nothing listens on, and that no other process gets before it is used."""
    global _next
    for _ in _BELOW_EPHEMERAL:
        _next += 1
        port = _BELOW_EPHEMERAL[_next % len(_BELOW_EPHEMERAL)]
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")


def dead_port() -> int:
    """A port that refuses connections until this process ends: it is bound, but nothing listens."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    _dead.append(bound)
    return int(bound.getsockname()[1])
