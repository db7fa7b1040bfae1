"""What the user's working trees hold: changed files, filtered files, checked-out branches. They are only read."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from agent.repo.repo import Repo

_FILTERS = ("filter", "working-tree-encoding")  # attributes that change the content of a file
_UNSET = ("unspecified", "unset", "")


def dirty(repo: Repo) -> list[PurePosixPath]:
    """Files of HEAD that git sees as changed in the working tree."""
    return [path for path, changed in _raw_differences(repo).items() if changed]


def filtered(repo: Repo) -> list[PurePosixPath]:
    """Unchanged files that a filter or an encoding of .gitattributes writes in another form than git stores."""
    names = "\0".join(f"{repo.prefix}{path}" for path, changed in _raw_differences(repo).items() if not changed)
    if not names:
        return []
    fields = repo.git.run("check-attr", "-z", "--stdin", *_FILTERS, data=os.fsencode(names)).split("\0")
    named = (path for path, value in zip(fields[::3], fields[2::3], strict=False) if value not in _UNSET)
    return [PurePosixPath(path[len(repo.prefix) :]) for path in dict.fromkeys(named)]


def _raw_differences(repo: Repo) -> dict[PurePosixPath, bool]:
    """Files whose bytes differ between HEAD and the working tree, and whether git sees a change.

    Git decides about sparse checkouts and filters. Git runs its clean filters only if there are such files.
    """
    files = repo.tree(repo.head()).files
    differing = [PurePosixPath(path) for path, data, _ in files if _differs(repo.folder / path, data)]
    if not differing:
        return {}
    words = ("diff", "--name-only", "--no-renames", "--no-ext-diff", "--no-textconv", "-z", "HEAD")
    changed = set(repo.git.run(*words).split("\0"))
    present = [path for path in differing if f"{repo.prefix}{path}" in changed or (repo.folder / path).exists()]
    return {path: f"{repo.prefix}{path}" in changed for path in present}


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
