"""Runs a command, and leaves nothing of it behind: not at its end, not when told to stop, not when its parent dies.

    python -m agent.keeper PARENT SECONDS COMMAND...

It is the subreaper of all that the command starts, so it finds and kills what detached itself. By SIGTERM, or when
process PARENT has died, it asks the command to end, and kills it after SECONDS. Exit status: that of the command, or
128 and the number of the signal that ended it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

from sandbox.supervisor import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, kill_all, reap, wake_by_signals

LOOK_EVERY = 5.0  # seconds; signals wake it at once
NOT_FOR_OTHERS = ("PYTHONPATH", "PYTHONHOME")  # the command may live in a Python environment of its own


def main() -> int:
    parent, patience, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake = wake_by_signals()
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to decide on
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    child = os.fork()
    if child == 0:
        _become(command)
    status = None
    while status is None and not told and os.getppid() == parent:
        _wait(wake, LOOK_EVERY)
        status = reap(child)
    if status is None:
        os.kill(child, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while status is None and time.monotonic() < deadline:
            _wait(wake, 0.2)
            status = reap(child)
    kill_all()
    code = os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL
    return code if code >= 0 else 128 - code


def _become(command: list[str]) -> None:
    """Turn the child into the command. Should the keeper itself be killed, the command is asked to end."""
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(command[0], command, {k: v for k, v in os.environ.items() if k not in NOT_FOR_OTHERS})
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _wait(wake: int, seconds: float) -> None:
    if select.select([wake], [], [], seconds)[0]:
        os.read(wake, 4096)


if __name__ == "__main__":
    sys.exit(main())
