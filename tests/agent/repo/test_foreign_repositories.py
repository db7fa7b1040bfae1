"""Repositories as users have them: object formats, sparse checkouts, filters, odd paths, refs in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sessions import start, state_of
from targets import git, make_bowl

from agent.cli.init import adopt
from agent.errors import EnvironmentProblem, UsageError
from agent.repo.refs import RefMoved
from agent.repo.repo import Repo
from agent.repo.run_refs import RunRefs
from agent.repo.worktree import differing
from agent.session.setup import check_repository


def test_sha256_repository_runs_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    target = make_bowl(tmp_path / "target")
    assert len(git(target, "rev-parse", "HEAD")) == 64
    state = state_of(start(target, tmp_path / "runs", trials=2))
    assert state.ended == "all 2 trials done"
    repo = Repo(target)
    repo.need([repo.head(), state.head], "night")
    assert [commit.sha for commit in repo.history("HEAD")] == [repo.head()]
    with pytest.raises(UsageError, match="f" * 12):
        repo.need(["f" * 64], "night")


def test_missing_commit_object_is_not_called_first_commit(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    head = git(target, "rev-parse", "HEAD")
    (target / ".git" / "objects" / head[:2] / head[2:]).unlink()
    with pytest.raises(UsageError, match=rf"{head[:12]}.*git fsck") as found:
        Repo(target).head()
    assert "first commit" not in str(found.value)


def test_sparse_checkout_is_clean(tmp_path: Path) -> None:
    origin = make_bowl(tmp_path / "origin")
    (origin / "docs").mkdir()
    (origin / "docs" / "a.txt").write_text("x")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "docs")
    git(tmp_path, "clone", "-q", "--sparse", str(origin), "sparse")
    assert not (tmp_path / "sparse" / "docs").exists()
    check_repository(Repo(tmp_path / "sparse"), "night")


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
def test_ignored_change_is_clean(tmp_path: Path, flag: str) -> None:
    target = make_bowl(tmp_path / "target")
    (target / "local.cfg").write_text("1")
    git(target, "add", "-A")
    git(target, "commit", "-qm", "cfg")
    git(target, "update-index", flag, "local.cfg")
    (target / "local.cfg").write_text("2")
    assert git(target, "status", "--short") == ""
    check_repository(Repo(target), "night")


def with_attributes(folder: Path, attributes: str, content: bytes) -> Path:
    """A target with a file a.dat that git stores in another form."""
    target = make_bowl(folder)
    git(target, "config", "filter.lfs.clean", "sed s/secret/PTR/")
    git(target, "config", "filter.lfs.smudge", "sed s/PTR/secret/")
    (target / ".gitattributes").write_text(f"*.dat {attributes}\n")
    (target / "a.dat").write_bytes(content)
    git(target, "add", "-A")
    git(target, "commit", "-qm", "a.dat")
    (target / "a.dat").unlink()
    git(target, "checkout", "-q", "a.dat")
    assert git(target, "status", "--short") == ""
    return target


@pytest.mark.parametrize("attributes", ["ident", "text eol=crlf"])
def test_harmless_attribute_is_clean(tmp_path: Path, attributes: str) -> None:
    check_repository(Repo(with_attributes(tmp_path / "target", attributes, b"$Id$\n")), "night")


@pytest.mark.parametrize(
    ("attributes", "content"),
    [("filter=lfs", b"secret\n"), ("text working-tree-encoding=UTF-16", "hi\n".encode("utf-16"))],
)
def test_file_behind_filter_is_refused(tmp_path: Path, attributes: str, content: bytes) -> None:
    repo = Repo(with_attributes(tmp_path / "target", attributes, content))
    assert differing(repo)[0] == []
    with pytest.raises(UsageError, match=r"a\.dat.*mounts"):
        check_repository(repo, "night")


def test_changed_file_behind_filter_is_dirty(tmp_path: Path) -> None:
    target = with_attributes(tmp_path / "target", "filter=lfs", b"secret\n")
    (target / "a.dat").write_text("other\n")
    assert differing(Repo(target))[0] == ["a.dat"]


@pytest.mark.parametrize("name", ["with $HOME", "$x", "~", "Größe 速い", "a b'c\"d"])
def test_odd_path_is_a_target(tmp_path: Path, name: str) -> None:
    repo = Repo(make_bowl(tmp_path / name))
    assert "RATE" in repo.read(repo.head(), "train.py")


def test_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / os.fsdecode(b"lat\xfcin"))
    with pytest.raises(UsageError, match="UTF-8"):
        start(target, tmp_path / "runs", trials=1)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("branch", ["autoresearch/night", "autoresearch", "autoresearch/night/mine"])
def test_branch_in_the_way_is_kept(tmp_path: Path, branch: str) -> None:
    target = make_bowl(tmp_path / "target")
    git(target, "branch", branch)
    with pytest.raises(UsageError, match=branch) as caught:
        check_repository(Repo(target), "night")
    for word in ("update-ref -d", "branch -D", "delete it", "--force"):
        assert word not in str(caught.value)


def test_conflict_of_ref_prefixes_is_named(tmp_path: Path) -> None:
    repo = Repo(make_bowl(tmp_path / "target"))
    git(repo.top, "branch", "autoresearch")
    message = RunRefs(repo, "night").mirror(repo.head(), frozenset())
    assert "cannot create" in message
    assert "disk" not in message
    with pytest.raises(RefMoved, match="Rename"):
        repo.refs.move("refs/heads/autoresearch/x", repo.head(), None)


def test_advice_for_a_ref_in_the_way_works(tmp_path: Path) -> None:
    repo = Repo(make_bowl(tmp_path / "target"))
    git(repo.top, "update-ref", "refs/autoresearch", "HEAD")
    assert "git branch" not in RunRefs(repo, "night").obstacle()
    git(repo.top, "update-ref", "-d", "refs/autoresearch")
    git(repo.top, "branch", "autoresearch")
    assert "git branch -m autoresearch NEW-NAME" in RunRefs(repo, "night").obstacle()


def test_missing_object_of_partial_clone_is_named(tmp_path: Path) -> None:
    origin = make_bowl(tmp_path / "origin")
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", origin.as_uri(), "partial")
    repo = Repo(tmp_path / "partial")
    for read in (repo.tree, lambda commit: repo.read(commit, "train.py")):
        with pytest.raises(EnvironmentProblem, match=r"partial"):
            read(repo.head())
    git(tmp_path / "partial", "fetch", "-q", "--refetch", "--no-filter")
    assert "RATE" in repo.read(repo.head(), "train.py")


def test_worktree_is_a_target(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    git(target, "worktree", "add", "-q", str(tmp_path / "tree"))
    check_repository(Repo(tmp_path / "tree"), "night")


def test_refusal_of_git_is_not_called_missing_repository(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    (target / "target.toml").unlink()
    with (target / ".git" / "config").open("a") as config:
        config.write("[core\n  x\n")
    with pytest.raises(EnvironmentProblem, match="bad config line"):
        adopt(target, target)
    with pytest.raises(UsageError, match="bad config line") as caught:
        Repo(target).head()
    assert "commit" not in str(caught.value)
