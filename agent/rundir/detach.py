"""``--detach``: the same command in a background process that survives a closed terminal and a logout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agent.errors import EnvironmentProblem
from agent.rundir.directory import RunDirectory, new_tag

DETACHED = "OVERNIGHT_DETACHED"  # set in the background process: a file that it removes when session.log is open
LINGER = Path("/var/lib/systemd/linger")  # one file per user whose processes survive logout


def detached() -> bool:
    """Whether this process is the background process."""
    return DETACHED in os.environ


def arrived(log: int | None) -> None:
    """Report that the session has started, and redirect all later output to session.log, tracebacks included.

    Args:
        log: file descriptor of session.log; None if it cannot be written.
    """
    if log is not None:
        for stream in (1, 2):
            os.dup2(log, stream)
    Path(os.environ[DETACHED]).unlink(missing_ok=True)


def detach(tag: str, runs: str) -> int:
    """Start the command of this process in the background and wait until the session starts or fails.

    Args:
        tag: the tag in the settings; "" to choose one here.

    Returns:
        0, or the exit status of a session that did not start.
    """
    root = Path(runs)
    words = [w for w in sys.argv[1:] if w != "--detach"]
    if not tag:
        tag = new_tag(root)
        words += ["--tag", tag]
    early = root / f".{tag}.{os.getpid()}.starting"  # removed by ``arrived``
    try:
        root.mkdir(parents=True, exist_ok=True)
        early.touch()
        with tempfile.TemporaryFile() as out:  # the disk of the run may be full, which is then the message
            child = subprocess.Popen(
                [*own_scope(), sys.executable, "-P", "-m", "agent.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={**os.environ, DETACHED: str(early.absolute())},
            )
            while child.poll() is None and early.exists():
                time.sleep(0.05)
            out.seek(0)
            print(out.read().decode(errors="replace"), end="", file=sys.stderr)
    except OSError as error:
        raise EnvironmentProblem(f"cannot start in the background: {error.strerror} ({error.filename}).") from error
    early.unlink(missing_ok=True)
    if child.returncode:
        return child.returncode
    print(tag)
    directory = RunDirectory(root, tag)
    print(f"session {tag} continues in the background: {directory.command('status')}; {directory.log}", file=sys.stderr)
    return 0


def own_scope() -> list[str]:
    """The start of a command that runs it in its own systemd scope; [] without systemd or lingering.

    With KillUserProcesses=yes, systemd kills every process of a login session at logout, even one in a new process
    session. A scope of the user survives only with lingering (``loginctl enable-linger``).
    """
    program = shutil.which("systemd-run")
    user = os.environ.get("USER", "")
    root = os.geteuid() == 0
    if program is None or not (root or (user and (LINGER / user).exists())):
        return []
    words = [program, "--scope", "--quiet", "--collect", *([] if root else ["--user"])]
    try:
        works = subprocess.run([*words, "true"], capture_output=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return words if works.returncode == 0 else []
