"""``overnight branch``."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from agent.cli.options import Commands, add_command
from agent.cli.output import say
from agent.cli.runs import existing, load, repo_of
from agent.errors import UsageError


def add(commands: Commands) -> None:
    parser = add_command(commands, "branch", branch, "tag moved runs")
    parser.add_argument("--squash", action="store_true", help="one commit for all edits")
    parser.add_argument("--pick", type=int, nargs="+", metavar="N", help="only these trials (default: every kept one)")
    parser.add_argument(
        "--only-held", nargs="?", const="", metavar="NAME",
        help="only the edits that held in a promotion (default: promote-TAG); both gains in the messages",
    )  # fmt: skip
    parser.add_argument("--onto", default="", metavar="REF", help="commit to start from (default: the baseline)")
    parser.add_argument("--name", default="", help="name of the branch (default: autoresearch/TAG-clean)")


def branch(
    tag: str,
    squash: bool,
    pick: list[int] | None,
    only_held: str | None,
    onto: str,
    name: str,
    runs: str,
    target: str | None,
) -> int:
    """Make a clean branch of the kept edits, for a pull request."""
    from agent.repo.clean_branch import make_branch
    from agent.text import count

    state, settings = load(existing(runs, tag))
    notes: dict[int, str] = {}
    together = ""
    if only_held is not None:
        from agent.replay.promoted import held_in

        if pick:
            raise UsageError("--only-held cannot be combined with --pick.")
        notes, together = held_in(Path(runs), only_held or f"promote-{tag}", tag)
        pick, name = list(notes), name or f"autoresearch/{tag}-held"
    repo = repo_of(settings, target)
    made = make_branch(state, repo, tag, name=name, squash=squash, pick=pick or (), onto=onto, notes=notes)
    if together:
        say(together)
    print(made.name)
    size = f"{count(made.edits, 'edit')} in {count(made.commits, 'commit')}"
    say(f"{size}: git -C {quote(str(repo.top))} log {made.base[:10]}..{made.name}")
    return 0
