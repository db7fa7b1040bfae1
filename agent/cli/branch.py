"""``overnight branch``."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from agent.cli.output import say
from agent.cli.runs import existing, load, repo_of
from agent.errors import UsageError
from agent.replay.promoted import held_in
from agent.repo.clean_branch import make_branch
from agent.text import count


def branch(
    tag: str,
    squash: bool,
    pick: list[int] | None,
    only_held: str | None,
    onto: str,
    name: str,
    runs: str,
    target: str | None,
) -> None:
    state, settings = load(existing(runs, tag))
    notes: dict[int, str] = {}
    together = ""
    if only_held is not None:
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
