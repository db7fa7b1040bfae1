"""Programs of this machine that report something, such as nvidia-smi."""

from __future__ import annotations

import subprocess


def output_of(*command: str, seconds: float = 30.0) -> str:
    """What a program prints; "" if it is missing, fails or runs longer than ``seconds``."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""
