"""Live views of sessions, replays and promotions: ``overnight watch`` on a terminal, ``overnight serve`` as a page.

They only read files of the run directory, so a session does not notice them.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live

from agent.cli.output import say
from agent.cli.runs import existing, folder_of_runs, is_replay
from agent.errors import EnvironmentProblem, UsageError
from agent.llm.client import is_loopback
from agent.observers.watched import Watched
from agent.replay.recorded import WatchedReplay
from sandbox.packages import install_command

REFRESH = 0.5  # seconds
QUIT = ("q", "Q", "\x03", "\x1b")


def watch(tag: str | None, runs: str) -> None:
    """Show it live; once where stdout is no terminal."""
    directory = existing(runs, tag, replays=True)
    watched = WatchedReplay(directory) if is_replay(directory) else Watched(directory)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    if console.is_terminal and not console.is_dumb_terminal and directory.running():
        screen = Live(console=console, screen=True, auto_refresh=False)
        with suppress(KeyboardInterrupt), keys() as pressed, screen:
            while directory.running():
                screen.update(watched.picture(*console.size), refresh=True)
                if pressed(REFRESH) in QUIT:
                    break
    picture = watched.picture(console.width, 0)
    for problem in watched.damage:
        say(problem)
    console.print(picture)


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """A function that waits up to so many seconds for a key; it returns "" without a key or a keyboard."""
    keyboards = []
    with suppress(OSError, ValueError, termios.error):
        before = termios.tcgetattr(sys.stdin.fileno())
        keyboards.append(sys.stdin.fileno())

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select(keyboards, [], [], seconds)
        return os.read(ready[0], 1).decode(errors="replace") if ready else ""

    try:
        for keyboard in keyboards:
            tty.setcbreak(keyboard)
        yield pressed
    finally:
        for keyboard in keyboards:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def serve(host: str, port: int, token: str, runs: str) -> None:
    try:
        from agent.web import app
    except ImportError:
        raise EnvironmentProblem(f"the live page needs Starlette: {install_command('overnight[web]')}") from None
    if not is_loopback(f"//{app.shown(host)}") and not token:
        raise UsageError(f"--host {host}: others can reach this address. Add --token SECRET.")
    folder = folder_of_runs(runs)
    say("Ctrl-C ends the server; sessions continue without it.")
    try:
        app.serve(folder, host, port, token)
    except (OSError, OverflowError) as error:
        problem = str(error).rstrip(".")
        raise UsageError(f"--host {host} --port {port}: {problem}. Choose another with --port.") from None
