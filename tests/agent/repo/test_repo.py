"""Git plumbing on real repositories: the checkout stays untouched, hooks and filters never run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from targets import git, make_bowl

from agent.errors import UsageError
from agent.repo.git import scrub_environment
from agent.repo.refs import RefMoved
from agent.repo.repo import Repo
from agent.repo.run_refs import RunRefs
from agent.repo.worktree import differing


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "target")


def test_same_edit_gives_same_commit(target: Path) -> None:
    repo = Repo(target)
    made = [repo.build(repo.head(), {"train.py": "x = 1\n"}, "One\n", 1_700_000_000) for _ in range(2)]
    assert made[0] == made[1]
    assert repo.read(made[0], "train.py") == "x = 1\n"
    assert repo.read(made[0], "target.toml") == (target / "target.toml").read_text()
    assert git(target, "status", "--porcelain") == ""


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from agent.repo.repo import Repo

signal.signal(signal.SIGINT, lambda *_: None)
repo = Repo(Path(sys.argv[1]))
before = repo.read(repo.head(), "train.py")
os.killpg(0, signal.SIGINT)
for _ in range(100):
    assert repo.read(repo.head(), "train.py") == before
"""


def test_ctrl_c_does_not_reach_git(target: Path) -> None:
    """A terminal sends SIGINT to the whole process group."""
    words = [sys.executable, "-c", INTERRUPTED, str(target)]
    done = subprocess.run(words, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 0, done.stderr


def test_missing_commit_is_named(target: Path) -> None:
    repo = Repo(target)
    repo.need([repo.head()], "night")
    for wrong in ("0" * 40, "f" * 40, repo.commit(repo.head()).tree):  # nothing, no object, and no commit
        with pytest.raises(UsageError, match=rf"{wrong[:12]}.*refs/autoresearch/night"):
            repo.need([repo.head(), wrong], "night")


@pytest.mark.parametrize("name", ["", "abc\ndef", "\n"])
def test_odd_name_of_a_commit_is_not_held(target: Path, name: str) -> None:
    repo = Repo(target)
    assert not repo.holds(name)
    with pytest.raises(UsageError, match="is not in"):
        repo.need([repo.head(), name], "night")


def test_target_in_subfolder_is_edited_there(tmp_path: Path) -> None:
    top = make_bowl(tmp_path / "top")
    (top / "sub" / "target").mkdir(parents=True)
    (top / "sub" / "target" / "train.py").write_text("inner = 1\n")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "Sub")
    repo = Repo(top / "sub" / "target")
    commit = repo.build(repo.head(), {"train.py": "inner = 2\n"}, "Two\n", 0)
    assert git(top, "show", f"{commit}:sub/target/train.py") == "inner = 2"
    assert git(top, "show", f"{commit}:train.py") == git(top, "show", "HEAD:train.py")
    repo.tree(commit).write(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*")) == ["train.py"]


def test_build_keeps_other_entries_of_tree(target: Path) -> None:
    for name in (b"\xff\xfe", "Größe 速い".encode(), b'tab\tand "quotes"', b"line\nfeed", b"-z"):
        (target / os.fsdecode(name)).write_text("beside")
    (target / "train.py").chmod(0o755)
    git(target, "add", "-A")
    git(target, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    git(target, "commit", "-q", "-m", "Names")
    repo = Repo(target)
    commit = repo.build(repo.head(), {"train.py": "x = 1\n"}, "One\n", 0)
    assert git(target, "diff", "--raw", "--no-renames", "HEAD", commit).split()[0::5] == [":100755", "train.py"]
    assert git(target, "diff", "--name-only", "HEAD", commit) == "train.py"


def test_build_makes_no_named_temporary_folder(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("a SIGKILL would leave the folder behind")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    repo = Repo(target)
    assert repo.build(repo.head(), {"train.py": "x = 1\n"}, "One\n", 0)


@pytest.mark.parametrize("text", ["", "no line feed at the end", "tab\tand\r\nCRLF\r\n", "ümläut 速い\n", "\udcff\n"])
def test_text_survives_commit_and_export(target: Path, tmp_path: Path, text: str) -> None:
    repo = Repo(target)
    commit = repo.build(repo.head(), {"train.py": text}, "Text\n", 0)
    assert repo.read(commit, "train.py") == text
    repo.tree(commit).write(tmp_path / "out")
    assert (tmp_path / "out" / "train.py").read_bytes() == text.encode("utf-8", "surrogateescape")


def test_export_skips_links_and_submodules(target: Path, tmp_path: Path) -> None:
    (target / "link").symlink_to("/etc/passwd")
    (target / "folder").symlink_to("/etc")
    git(target, "add", "-A")
    other = git(target, "rev-parse", "HEAD")
    git(target, "update-index", "--add", "--cacheinfo", f"160000,{other},module")
    git(target, "commit", "-q", "-m", "Links")
    repo = Repo(target)
    repo.tree(repo.head()).write(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*")) == ["target.toml", "train.py"]


def test_hooks_and_filters_never_run(target: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    command = f"touch {trap}"
    for hook in ("pre-commit", "post-commit", "reference-transaction", "post-checkout", "post-index-change"):
        script = target / ".git" / "hooks" / hook
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{command}\n")
        script.chmod(0o755)
    (target / ".gitattributes").write_text("*.py filter=trap diff=trap\n")
    for key in ("filter.trap.smudge", "filter.trap.clean", "diff.trap.textconv", "diff.external", "core.fsmonitor",
                "core.pager", "core.sshCommand"):  # fmt: skip
        git(target, "config", key, f"{command}; cat")
    repo = Repo(target)
    refs = RunRefs(repo, "night")
    commit = repo.build(repo.head(), {"train.py": "x = 2\n"}, "Two\n", 0)
    repo.refs.move(refs.head_name, commit, None)
    assert refs.mirror(commit, frozenset()) == ""
    repo.tree(commit).write(tmp_path / "out")
    assert differing(repo) == ([], [])
    assert not trap.exists()


def test_move_refuses_unexpected_old_value(target: Path) -> None:
    repo = Repo(target)
    first, second = (repo.build(repo.head(), {"train.py": f"x = {k}\n"}, "x\n", k) for k in (1, 2))
    name = "refs/autoresearch/night/head"
    repo.refs.move(name, first, None)
    repo.refs.move(name, first, None)  # a step repeated after a kill
    with pytest.raises(RefMoved, match=rf"refs/autoresearch/night/head .*fatal: .*{first[:12]}"):
        repo.refs.move(name, second, None)
    repo.refs.move(name, second, first)
    assert repo.refs.get(name) == second


def test_move_names_the_held_lock(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.repo.git.LOCK_SECONDS", 0.2)
    repo = Repo(target)
    lock = target / ".git" / "refs" / "autoresearch" / "night" / "head.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("")
    with pytest.raises(RefMoved, match=r"head\.lock"):
        repo.refs.move("refs/autoresearch/night/head", repo.head(), None)


def test_git_variables_are_scrubbed(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_bowl(tmp_path / "other", train="other = 1\n")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    scrub_environment()
    assert "GIT_DIR" not in os.environ
    assert "RATE" in Repo(target).read(Repo(target).head(), "train.py")


def test_missing_bare_and_empty_repositories_are_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    git(tmp_path, "init", "-q", "empty")
    for folder in (tmp_path, tmp_path / "bare.git", tmp_path / "empty"):
        with pytest.raises(UsageError, match=str(folder)):
            Repo(folder).head()


def test_git_refusal_is_quoted(target: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a repository to another user")
    for path in (target, *target.rglob("*")):
        os.chown(path, 65534, 65534)
    with pytest.raises(UsageError, match=r"fatal: .*dubious ownership"):
        Repo(target).head()


def test_uncommitted_file_is_named(target: Path) -> None:
    repo = Repo(target)
    with pytest.raises(UsageError, match=r"other\.py"):
        repo.read(repo.head(), "other.py")


def test_dirty_lists_changed_tracked_files(target: Path) -> None:
    repo = Repo(target)
    (target / "new.txt").write_text("untracked")
    assert differing(repo) == ([], [])
    (target / "train.py").write_text("x = 1\n")
    (target / "target.toml").unlink()
    assert sorted(differing(repo)[0]) == ["target.toml", "train.py"]
