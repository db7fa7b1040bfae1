"""``overnight serve``."""

from __future__ import annotations

from agent.cli.options import Commands, add_command
from agent.cli.output import say
from agent.cli.runs import folder_of_runs
from agent.errors import EnvironmentProblem, UsageError
from sandbox.packages import install_command


def add(commands: Commands) -> None:
    parser = add_command(commands, "serve", serve, "runs")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8765, metavar="N", help="port; 0: any free one (default: 8765)")
    parser.add_argument("--token", default="", help="secret that a browser must know; needed beyond this machine")


def serve(host: str, port: int, token: str, runs: str) -> int:
    """Show all runs of a folder on a live, read-only page."""
    try:
        from agent.web import app
    except ImportError:
        raise EnvironmentProblem(f"the live page needs Starlette: {install_command('overnight[web]')}") from None
    if not app.is_loopback(host) and not token:
        raise UsageError(f"--host {host}: others can reach this address. Add --token SECRET.")
    folder = folder_of_runs(runs)
    say("Ctrl-C ends the server; sessions do not need it.")
    try:
        app.serve(folder, host, port, token)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--host {host} --port {port}: {error}. Choose another with --port.") from None
    return 0
