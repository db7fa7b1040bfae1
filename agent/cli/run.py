"""``overnight run``, ``resume`` and ``stop``: start, continue and end a session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from agent.cli.options import Commands, add_command, add_settings
from agent.cli.output import live_view, say
from agent.cli.runs import existing, is_replay, load, repo_of
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.rundir.directory import RunDirectory

EXAMPLES = """examples:
  overnight run --target gpt --proposer cma-es --trials 20
      numeric search over the hyperparameter block; needs no model server
  overnight run --target gpt --llm-base-url http://gpu-box:8000/v1 --until 07:30 --detach
      a model edits train.py until the morning, in the background
  overnight run --target gpt --proposer centaur --hours 8 --workers 2
      points of a model and of cma-es compete; two trials in parallel, each on its own GPU"""


def add(commands: Commands) -> None:
    usage = "overnight run [OPTIONS]"
    parser = add_command(commands, "run", run, "", usage=usage, epilog=EXAMPLES)
    add_settings(parser)
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, and start nothing")
    usage = "overnight resume TAG [OPTIONS]"
    # no --budget: values measured under two budgets cannot be compared
    add_settings(add_command(commands, "resume", resume, "tag runs", usage=usage), ("tag", "runs", "config", "budget"))
    parser = add_command(commands, "stop", stop, "tag runs -cache")
    parser.add_argument("--now", action="store_true", help="end at once; the next resume repeats the running trial")


def run(config: Path | None = None, dry_run: bool = False, **flags: Any) -> int:
    """Start a session."""
    from agent.rundir.detach import detach, detached
    from agent.session import setup
    from agent.settings import Settings, make_settings
    from agent.target import load_target

    target_run = load_target(Path(flags.get("target", Settings.target)))[1]
    settings = make_settings(flags, config, target_run)
    if dry_run:
        from agent.session.preview import preview

        for name, words in preview(settings, say):
            print(f"{name:<9} {words}")
        return 0
    if settings.detach and not detached():
        return detach(settings.tag, settings.runs)
    return finish(setup.start(settings, live_view(), say))


def resume(tag: str, runs: str, **changes: Any) -> int:
    """Continue a session after any interruption."""
    from agent.rundir.detach import detach
    from agent.session import setup

    directory = existing(runs, tag)
    if changes.pop("detach", False):
        return detach(tag, runs)
    if nothing := _nothing_left(directory, changes):
        say(nothing)
        return 0
    setup.resume(Path(runs), tag, changes, live_view(), say)
    return finish(directory)


def _nothing_left(directory: RunDirectory, changes: Mapping[str, Any]) -> str:
    """Why a resume would do nothing; "" if it would do anything. It needs neither sandbox nor model server."""
    state, settings = load(directory)
    planned, done = changes.get("trials", state.session.trials), len(state.finished)
    if not changes.keys() <= {"trials"} or state.ended is None or state.open or planned is None or done < planned:
        return ""
    if repo_of(settings, None).refs.get(f"refs/heads/autoresearch/{directory.tag}") != state.head:
        return ""  # the branch waits
    return f"no trial is left to run ({done} done). For more: {_more(directory, done)}"


def _more(directory: RunDirectory, done: int) -> str:
    return directory.command("resume", "--trials", str(done + 10))


def stop(tag: str, now: bool, runs: str) -> int:
    """End a session, replay or promotion after its running trial."""
    say(ask_to_stop(existing(runs, tag, replays=True), now))
    return 0


def ask_to_stop(directory: RunDirectory, now: bool) -> str:
    """Ask a session to end. Returns what it will do. Raises ``UsageError`` if it is not running."""
    tag = directory.tag
    if not directory.running():
        more = "The command that started it" if is_replay(directory) else f"`{directory.command('resume')}`"
        raise UsageError(f"session {tag} is not running. {more} continues it.")
    directory.ask_to_stop(now)
    return f"session {tag} ends {'at once' if now else 'after its running trial'}"


def finish(directory: RunDirectory) -> int:
    """Print the result of a session that ended and the next commands.

    Returns:
        130 for a session that was stopped at once, else 0.
    """
    from agent.review.data.runs import row
    from agent.session.stopping import AT_ONCE

    row(directory, say)  # the cached row makes the next `overnight list` fast
    state, settings = load(directory)
    tag = directory.tag
    say(f"session {tag}: {state.ended}; {len(state.kept)} of {len(state.finished)} edits kept.")
    branch = f"git -C {quote(str(settings['run']['target']))} log autoresearch/{tag}"
    done = len(state.finished)
    resume = _more(directory, done) if state.session.trials in range(done + 1) else directory.command("resume")
    say(" · ".join([resume, directory.command("log"), directory.command("report"), branch]))
    return 130 if state.ended == AT_ONCE else 0
