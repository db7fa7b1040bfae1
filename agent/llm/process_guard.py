"""Runs a command and kills every process that it leaves: at its end, after SIGTERM, or when the parent dies.

    python -m agent.llm.process_guard PARENT SECONDS COMMAND...

The guard is the subreaper of all descendants of the command, so it also finds detached ones. After SIGTERM, or when
process PARENT has died, it sends SIGTERM to the command and kills it after SECONDS. Exit status: that of the command,
or 128 plus the number of the signal that ended it.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from sandbox.supervisor import PR_SET_PDEATHSIG, Signals, kill_all, prctl, reap

CHECK_EVERY = 5.0  # seconds between checks of the parent; signals wake the guard at once
HIDDEN_VARIABLES = ("PYTHONPATH", "PYTHONHOME")  # the command may have a Python environment of its own


def main() -> int:
    parent, patience, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    signals = Signals()
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    child = os.fork()
    if child == 0:
        _execute(command)
    status = None
    while status is None and not signals.terminated and os.getppid() == parent:
        signals.wait(CHECK_EVERY)
        status = reap(child)
    if status is None:
        os.kill(child, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while status is None and time.monotonic() < deadline:
            signals.wait(0.2)
            status = reap(child)
    kill_all()
    code = os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL
    return code if code >= 0 else 128 - code


def _execute(command: list[str]) -> None:
    """Replace the child by the command, which gets SIGTERM if the guard itself is killed."""
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(command[0], command, {k: v for k, v in os.environ.items() if k not in HIDDEN_VARIABLES})
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


if __name__ == "__main__":
    sys.exit(main())
