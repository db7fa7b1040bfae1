"""What the user's working trees hold: changed files, filtered files, checked-out branches. They are only read."""

from __future__ import annotations

import os
from pathlib import Path

from agent.repo.repo import Repo

_FILTERS = ("filter", "working-tree-encoding")  # attributes that change the content of a file
_UNSET = ("unspecified", "unset", "")


def differing(repo: Repo) -> tuple[list[str], list[str]]:
    """Files of the target whose bytes differ between HEAD and the working tree.

    Git decides about sparse checkouts and filters. Git runs its clean filters only if there are such files.

    Returns:
        Files that git sees as changed; and unchanged ones that a filter or an encoding of .gitattributes writes in
        another form than git stores.
    """
    files = repo.tree(repo.head()).files
    found = [path for path, data, _ in files if _differs(repo.folder / path, data)]
    if not found:
        return [], []
    words = ("diff", "--name-only", "--no-renames", "--no-ext-diff", "--no-textconv", "-z", "HEAD")
    changed = set(repo.git.run(*words).split("\0"))
    dirty = [path for path in found if f"{repo.prefix}{path}" in changed]
    same = [path for path in found if f"{repo.prefix}{path}" not in changed and (repo.folder / path).exists()]
    names = os.fsencode("\0".join(f"{repo.prefix}{path}" for path in same))
    fields = repo.git.run("check-attr", "-z", "--stdin", *_FILTERS, data=names).split("\0") if same else []
    filtered = {path for path, value in zip(fields[::3], fields[2::3], strict=False) if value not in _UNSET}
    return dirty, [path for path in same if f"{repo.prefix}{path}" in filtered]


def checked_out(repo: Repo, branch: str) -> Path | None:
    """The worktree that has a branch checked out, or None."""
    where: Path | None = None
    for line in repo.git.run("worktree", "list", "--porcelain").split("\n"):
        if line.startswith("worktree "):
            where = Path(line[9:])
        elif line == f"branch refs/heads/{branch}":
            return where
    return None


def _differs(path: Path, kept: bytes) -> bool:
    """Whether a file of the working tree differs from its blob, apart from line ends."""
    try:
        data = path.read_bytes()
    except OSError:
        return True
    return data != kept and data.replace(b"\r\n", b"\n") != kept.replace(b"\r\n", b"\n")
