"""``overnight init --from``: what is written, copied, committed and refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from targets import TRAIN, git

from agent.cli.entry import main
from agent.target import load_target

SCRIPT = "LR = 0.1\nWIDTH = 64\nprint('val_loss:', LR)\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    return folder


def commit(folder: Path) -> Path:
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Begin")
    return folder


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


def test_copy_of_project_without_git(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, {"__pycache__/x.pyc": "", ".gitignore": "sets/\n*.toml\n", "sets/prepare.sh": "#!/bin/sh\n"})
    (project / "sets/prepare.sh").chmod(0o755)
    with (project / "big.bin").open("wb") as file:
        file.truncate(30 << 20)
    copy = tmp_path / 'a "copy"'
    assert main(["init", str(copy), "--from", str(project)]) == 0
    target, _ = load_target(copy)
    assert (target.metric, target.goal, target.score, target.has_block) == ("val_bpb", "minimize", "stdout", True)
    assert git(copy, "ls-files").split() == [".gitignore", "notes.md", "sets/prepare.sh", "target.toml", "train.py"]
    assert (copy / "sets" / "prepare.sh").stat().st_mode & 0o100
    assert git(copy, "status", "--porcelain") == ""
    assert not (project / "target.toml").exists()
    out, err = capsys.readouterr()
    assert out.strip() == str(copy / "target.toml")
    assert "big.bin" in err
    assert main(["init", str(copy), "--from", str(project)]) == 2


def test_project_in_git_is_described_in_place(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(project), "--from", str(project)]) == 2
    assert "git init" in capsys.readouterr().err
    commit(project)
    assert main(["init", str(project), "--from", str(project / "train.py")]) == 0
    assert git(project, "status", "--porcelain") == "?? notes.md\n?? target.toml"
    assert "git -C" in capsys.readouterr().err
    load_target(project)


def test_ignored_project_is_copied_whole(project: Path, tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "project/\n"})
    commit(tmp_path)
    assert main(["init", str(tmp_path / "copy"), "--from", str(project)]) == 0
    assert git(tmp_path / "copy", "ls-files").split() == ["notes.md", "target.toml", "train.py"]
    assert main(["init", str(project), "--from", str(project)]) == 2


def test_copy_holds_submodules_and_linked_files(project: Path, tmp_path: Path) -> None:
    for name in ("library", "store"):
        write(tmp_path / name, {"base.py": "BASE = 1\n"})
    library = str(commit(tmp_path / "library"))
    git(commit(project), "-c", "protocol.file.allow=always", "submodule", "add", "-q", library, "vendor/library")
    (project / "base.py").symlink_to(tmp_path / "store" / "base.py")
    commit(project)
    copy = tmp_path / "copy"
    assert main(["init", str(copy), "--from", str(project)]) == 0
    assert {"train.py", "base.py", "vendor/library/base.py"} <= set(git(copy, "ls-files").split())
    assert not (copy / "base.py").is_symlink()


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ({"train.py": "def (\n"}, "", "train.py"),
        ({"train.py": "# é\n".encode("latin-1")}, "", "UTF-8"),
        ({"train.ipynb": "{}"}, "train.ipynb", "nbconvert"),
        ({"a.py": SCRIPT, "b.py": SCRIPT}, "", "a.py, b.py"),
        ({"data.txt": ""}, "", "--from FILE.py"),
        ({}, "nowhere", "--from"),
    ],
)
def test_project_without_one_valid_script_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str | bytes], source: str, message: str
) -> None:
    (tmp_path / "project").mkdir()
    write(tmp_path / "project", files)
    assert main(["init", str(tmp_path / "new"), "--from", str(tmp_path / "project" / source)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_files_are_never_overwritten(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "full", {"mine": "mine"})
    assert main(["init", str(tmp_path / "full"), "--from", str(project)]) == 2
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine"]
    assert main(["init", str(tmp_path / "new"), "--from", str(project), "--preset", "demo"]) == 2


@pytest.mark.parametrize(
    ("script", "notes"),
    [
        ("print('done')\n", ["fill in  [target] pattern", "fill in  [[hyperparameters]]", "check    [budget] seconds"]),
        ("LR = 0.1\nprint('loss', LR)\n", ["check    [target] metric", "OVERNIGHT_SEED", "--proposer cma-es"]),
        (
            "import torch\ntorch.manual_seed(7)\n",
            ['line 2: torch.manual_seed(int(os.environ.get("OVERNIGHT_SEED"', "os"],
        ),
        ("data = os.path.expanduser('~/no/such/set')\n", ["[[hyperparameters]]", "--proposer code"]),
    ],
)
def test_notes_list_guesses_and_gaps(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, notes: list[str]
) -> None:
    write(project, {"train.py": script})
    assert main(["init", str(tmp_path / "copy"), "--from", str(project)]) == 0
    err = capsys.readouterr().err
    for note in notes:
        assert note in err


def test_project_is_read_and_not_run(project: Path, tmp_path: Path) -> None:
    write(project, {"train.py": f"open({str(tmp_path / 'ran')!r}, 'w')\nLR = 0.1\nprint('loss', 1.0)\n"})
    assert main(["init", str(tmp_path / "copy"), "--from", str(project)]) == 0
    assert not (tmp_path / "ran").exists()


def test_quotes_and_accents_stay_valid_toml(project: Path, tmp_path: Path) -> None:
    write(project, {"train.py": '# été\nÉPAISSEUR = 3\nNAME = "quo\'te"\nprint(f"it\'s val_loss: {v}")\n'})
    assert main(["init", str(tmp_path / "copy"), "--from", str(project)]) == 0
    target, _ = load_target(tmp_path / "copy")
    assert re.findall(target.pattern, "it's val_loss: 2.5", re.M) == ["2.5"]


def test_imported_modules_are_searched_too(project: Path, tmp_path: Path) -> None:
    write(project, {
        "train.py": "from engine import fit\nimport latin, old\nLR = 0.1\nfit(LR)\n",
        "engine.py": "def fit(lr):\n    print(f'val_loss: {lr}')\n",
        "latin.py": "# -*- coding: latin-1 -*-\nNAME = 'été'\n".encode("latin-1"),
        "old.py": "print 'hello'\n",
    })  # fmt: skip
    assert main(["init", str(tmp_path / "copy"), "--from", str(project)]) == 0
    target, _ = load_target(tmp_path / "copy")
    assert target.metric == "val_loss"
    assert "line 2 of engine.py" in (tmp_path / "copy" / "target.toml").read_text()
