"""The refs of a repository. They move by compare-and-swap."""

from __future__ import annotations

from agent.errors import EnvironmentProblem
from agent.repo.git import Git


class RefMoved(EnvironmentProblem):
    """Another process moved a ref since it was read, or holds its lock."""


class Refs:
    """Reads and moves refs, named in full: ``refs/heads/main``."""

    def __init__(self, git: Git):
        self._git = git

    def below(self, prefix: str) -> dict[str, str]:
        """Refs below ``prefix``: name and hash."""
        text = self._git.run("for-each-ref", "--format=%(refname) %(objectname)", prefix)
        return dict(line.split(" ", 1) for line in text.split("\n") if line)

    def get(self, name: str) -> str | None:
        return self._git.attempt("rev-parse", "--verify", "--quiet", name)

    def point(self, name: str, commit: str) -> None:
        """Create a ref, or move it from where it is now. Errors: see ``move``."""
        if (now := self.get(name)) != commit:
            self.move(name, commit, now)

    def move(self, name: str, new: str, old: str | None) -> None:
        """Compare-and-swap of a ref. ``old`` is None for a ref that must not exist yet.

        Raises:
            RefMoved: the ref is elsewhere, or its lock is held; quotes git.
        """
        try:
            self._git.run("update-ref", "--create-reflog", "-m", "overnight", name, new, old or "")
        except EnvironmentProblem as error:
            now = self.get(name)
            if now == new:
                return
            if "cannot create" in str(error):
                advice = "Git cannot keep a ref beside a longer one that starts with its name. Rename one of the two."
            elif now == old:
                advice = "Free some disk space, or remove the lock if no git process runs."
            else:
                advice = f"The ref is at {(now or 'nothing')[:12]}, expected {(old or 'nothing')[:12]}."
            raise RefMoved(f"cannot move {name} to {new[:12]}: {error} {advice}") from None
