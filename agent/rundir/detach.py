"""``--detach``: the same command again, in the background, where neither a closed terminal nor a logout ends it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from agent.errors import EnvironmentProblem
from agent.rundir.directory import RunDirectory, new_tag

DETACHED = "OVERNIGHT_DETACHED"  # in the process that goes on: where it speaks until it has a session.log
LINGER = Path("/var/lib/systemd/linger")  # a file for each user whose processes outlive their logout


def detached() -> bool:
    """Whether this process is the one in the background."""
    return DETACHED in os.environ


def arrived(log: int | None) -> None:
    """The session is at work: what it says from now on, a crash of the interpreter included, goes to its log."""
    if log is not None:
        for stream in (1, 2):
            os.dup2(log, stream)
    Path(os.environ[DETACHED]).unlink(missing_ok=True)


def detach(tag: str, runs: str) -> int:
    """Start it, wait until it is at work or has given up, and say which: a wrong setting is told here and now.

    ``tag`` is that of the settings, wherever they name it; "" where the run is to be named here.

    Returns: 0, or the exit status of a session that did not come to work.
    """
    root = Path(runs)
    words = [w for w in sys.argv[1:] if w != "--detach"]
    if not tag:
        tag = new_tag(root)
        words += ["--tag", tag]
    directory = RunDirectory(root, tag)
    early = root / f".{tag}.{os.getpid()}.starting"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with early.open("w+b") as out:
            child = subprocess.Popen(
                [*own_scope(), sys.executable, "-m", "agent.cli", *words],
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
    print(f"run {tag} goes on in the background: overnight status {tag}; {directory.log}", file=sys.stderr)
    return 0


def own_scope() -> list[str]:
    """The words before a command that put it beside the login session, where systemd is there to do it.

    A systemd that is told to kill what a user leaves behind at logout (KillUserProcesses=yes) kills a session of its
    own too. Its scopes for a user outlive the logout only where lingering is on (``loginctl enable-linger``).
    """
    program = shutil.which("systemd-run")
    user = os.environ.get("USER", "")
    if program is None or not (os.geteuid() == 0 or (user and (LINGER / user).exists())):
        return []
    words = [program, "--scope", "--quiet", "--collect", *([] if os.geteuid() == 0 else ["--user"])]
    try:
        works = subprocess.run([*words, "true"], capture_output=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return words if works.returncode == 0 else []
