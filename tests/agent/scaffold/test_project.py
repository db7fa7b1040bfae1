"""``overnight init --from``: what is read off a project, and what is written for it."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from targets import TRAIN, git

from agent.cli.entry import main
from agent.scaffold.bounds import bounds, guess_hyperparameters
from agent.scaffold.source_scan import Constant, find_constants, find_metric, find_paths
from agent.space.spec import build
from agent.target import load_target


@pytest.mark.parametrize(
    ("source", "name", "goal", "printed", "value"),
    [
        ('print(f"val_bpb:          {v:.6f}")', "val_bpb", "minimize", "val_bpb:          0.997900", "0.997900"),
        ('print("accuracy:", score(x))', "accuracy", "maximize", "accuracy: 0.93", "0.93"),
        ('print("Test accuracy = %.2f%%" % a)', "test_accuracy", "maximize", "Test accuracy = 93.10%", "93.10"),
        ('print("rmse {:.3e}".format(e))', "rmse", "minimize", "rmse 1.250e-03", "1.250e-03"),
        ('print("epoch", k, "val_acc", a)', "val_acc", "maximize", "epoch 3 val_acc 0.5", "0.5"),
        ('print(f"step {k}: train loss {a:.4f}, val loss {b:.4f}")', "val_loss", "minimize",
         "step 250: train loss 1.9000, val loss 2.0500", "2.0500"),
        ('print("validation loss: " + str(v))', "validation_loss", "minimize", "validation loss: 2.5", "2.5"),
        ("print(val_loss)", "val_loss", "minimize", "2.5", "2.5"),
        ('logger.info(f"final F1 {f1:.2f}")', "f1", "maximize", "12:00 INFO final F1 0.80", "0.80"),
        ('print(f"loss {a}\\nval_loss {b}")', "val_loss", "minimize", "loss 2\nval_loss 3", "3"),
        ('print(f"(auc) {a}")', "auc", "maximize", "(auc) nan", "nan"),
        ('print("loss", a)\nprint("loss", b)', "loss", "minimize", "loss 7", "7"),
        ('print({"step": k, "val_loss": v})', "val_loss", "minimize", "{'step': 3, 'val_loss': 1.25}", "1.25"),
        ('print(json.dumps({"train_loss": a, "val_loss": v}))', "val_loss", "minimize",
         '{"train_loss": 1.0, "val_loss": NaN}', "NaN"),
        ('print(json.dumps(dict(val_loss=v, lr=x)))', "val_loss", "minimize", '{"val_loss": -Infinity, "lr": 1}',
         "-Infinity"),
        ('log.info("round %d: val f1 %.4f", k, f)', "val_f1", "maximize", "12:00 round 7: val f1 0.8125", "0.8125"),
        ('logger.info("round {}: auc {:.2f}", k, f)', "auc", "maximize", "12:00 | round 7: auc 0.81", "0.81"),
        ('print(f"Final accuracy: {a}.")', "accuracy", "maximize", "Final accuracy: 0.93.", "0.93"),
        ('print(f"mean reward: {r:+.2f}")', "mean_reward", "maximize", "mean reward: +3.50", "+3.50"),
        ('print(f"{k} acc={a:.2f} train_acc={b:.2f}")', "acc", "maximize", "7 acc=0.50 train_acc=0.75", "0.50"),
        ('print(f"R^2 = {x}")', "r2", "maximize", "R^2 = 0.7", "0.7"),
        ('print(f"log-likelihood: {x}")', "log_likelihood", "maximize", "log-likelihood: -20.5", "-20.5"),
        ('print(f"negative log-likelihood: {x}")', "negative_log_likelihood", "minimize",
         "negative log-likelihood: 20.5", "20.5"),
        ('print("Error rate: %.2f%%" % e)', "error_rate", "minimize", "Error rate: 6.10%", "6.10"),
        ('print(f"Epoch loss: {x}")', "epoch_loss", "minimize", "Epoch loss: 1E-05", "1E-05"),
        ('print(f"{epoch:6d} {train_loss:10.4f} {val_loss:10.4f} {seconds:8.1f}")', "val_loss", "minimize",
         "     3     1.2500     1.5000      7.0", "1.5000"),
        ('print(f"{epoch},{val_acc},{lr}")', "val_acc", "maximize", "3,0.5,0.1", "0.5"),
        ('print(f"epoch {k}: {metrics[\'val_loss\']:.3f}")', "val_loss", "minimize", "epoch 3: 0.500", "0.500"),
        ('print("loss", a)\nb = math.log(val_loss)\nwandb.log({"val_loss": b})\nself.log("val_loss", b)', "loss",
         "minimize", "loss 7", "7"),
        ('print(f"loss {a}")\nprint(f"{\'val_loss\':>10}")', "loss", "minimize", "loss 7", "7"),
    ],
)  # fmt: skip
def test_the_metric_of_a_script(source: str, name: str, goal: str, printed: str, value: str) -> None:
    metric = find_metric(ast.parse(source))
    assert metric is not None
    assert (metric.name, metric.goal) == (name, goal)
    assert re.findall(metric.pattern, printed, re.M)[-1] == value


@pytest.mark.parametrize("source", ["x = 1", 'print("hello")', 'print(f"step {k}")', 'print(f"total_seconds: {t}")',
                                    'open("loss")', 'print("%d %d" % (a,))', 'print("{".format(a))',
                                    'print("gradient accumulation:", n)', 'print("window", w)', 'print("latest", w)',
                                    "x = np.log(val_loss)", 'wandb.log({"loss": x})', 'print(f"{\'val_acc\':>8}")',
                                    'print(f"val loss: {x:,.2f}")'])  # fmt: skip
def test_no_metric(source: str) -> None:
    assert find_metric(ast.parse(source)) is None


SETTINGS = """
DEPTH = 8
LR: float = 1e-3
BATCH = 2**19
USE_BIAS = False
NAME = "gpt"
WIDTH = DEPTH * 64
TWICE = 1
TWICE = 2
SEED = 42
if LR:
    LATER = 3
    RATE = 2
RATE = 1
def f(DEPTH=1):
    INNER = 5
    global SHARED
SHARED = 3
DROPOUT = 0.1
BETA = 0.95
N_JOBS = 4
SUBSAMPLE = 0.8
ZERO = 0.0
"""


def test_constants_are_assigned_once() -> None:
    found = {c.name: c.value for c in find_constants(ast.parse(SETTINGS))}
    assert found == {"DEPTH": 8, "LR": 1e-3, "BATCH": 2**19, "USE_BIAS": False, "NAME": "gpt", "SEED": 42,
                     "DROPOUT": 0.1, "BETA": 0.95, "N_JOBS": 4, "SUBSAMPLE": 0.8, "ZERO": 0.0}  # fmt: skip


def test_bounds_are_guessed_around_the_value() -> None:
    guesses, left = guess_hyperparameters(find_constants(ast.parse(SETTINGS)))
    found = {guess.constant.name: dict(guess.keys) for guess in guesses}
    assert found == {
        "DEPTH": {"low": "4", "high": "16"},
        "LR": {"low": "0.0001", "high": "0.01", "log": "true"},
        "BATCH": {"low": str(2**17), "high": str(2**21), "power_of_two": "true"},
        "USE_BIAS": {},
        "DROPOUT": {"low": "0.0", "high": "1.0"},
        "BETA": {"low": "0.8", "high": "0.9875"},
        "SUBSAMPLE": {"low": "0.0", "high": "1.0"},
    }
    assert left == ["NAME", "SEED", "N_JOBS", "ZERO"]


@given(st.one_of(st.integers(1, 10**9), st.floats(1e-9, 1e9)), st.sampled_from(["X", "LR", "BETA", "DROPOUT"]))
def test_any_guessed_bounds_make_a_space(value: float, name: str) -> None:
    keys = bounds(Constant(name, value, 1))
    assert keys is not None
    row = {"name": name, **tomllib.loads("\n".join(f"{key} = {text}" for key, text in keys))}
    space = build({"hyperparameters": [row]}, f"{name} = {value!r}\n", "target.toml", "train.py")
    assert space.params[0].default == value


def test_paths_are_read_off_the_source() -> None:
    found = find_paths(
        ast.parse("""
CACHE = os.path.join(os.path.expanduser("~"), ".cache", "autoresearch")
data = os.path.join(CACHE, "data")
other = Path.home() / "sets" / "c4"
dataset = "tiny"
third = os.path.join("data", dataset, unknown())
fourth = os.path.join("data", dataset)
loop = loop + "x"
""")
    )
    assert {"~/.cache/autoresearch", "~/.cache/autoresearch/data", "~/sets/c4", "data/tiny"} <= set(found)


# the command


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    return folder


def test_a_project_without_git_is_copied(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "__pycache__").mkdir()
    (project / "__pycache__" / "x.pyc").write_text("")
    with (project / "big.bin").open("wb") as file:
        file.truncate(30 << 20)
    (project / ".gitignore").write_text("sets/\n*.toml\n")
    (project / "sets").mkdir()
    (project / "sets" / "prepare.sh").write_text("#!/bin/sh\n")
    (project / "sets" / "prepare.sh").chmod(0o755)
    copy = tmp_path / "copy"
    assert main(["init", str(copy), "--from", str(project)]) == 0
    target, _ = load_target(copy)
    assert (target.metric, target.goal, target.score, target.has_block) == ("val_bpb", "minimize", "stdout", True)
    assert git(copy, "ls-files").split() == [".gitignore", "sets/prepare.sh", "target.toml", "train.py"]
    assert (copy / "sets" / "prepare.sh").stat().st_mode & 0o100
    assert git(copy, "status", "--porcelain") == ""
    assert not (project / "target.toml").exists()
    said = capsys.readouterr()
    assert said.out.strip() == str(copy / "target.toml")
    assert "big.bin is large and was not copied" in said.err
    assert main(["init", str(copy), "--from", str(project)]) == 2
    assert "exists, and is left as it is" in capsys.readouterr().err


def test_a_project_in_git_gets_its_file_in_place(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(project), "--from", str(project)]) == 2
    assert "git init" in capsys.readouterr().err
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "Begin")
    assert main(["init", str(project), "--from", str(project / "train.py")]) == 0
    assert git(project, "status", "--porcelain") == "?? target.toml"
    assert "git -C" in capsys.readouterr().err
    load_target(project)


def test_nothing_is_overwritten(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    assert main(["init", str(full), "--from", str(project)]) == 2
    assert [p.name for p in full.iterdir()] == ["mine"]
    assert main(["init", str(tmp_path / "new"), "--from", str(project), "--preset", "demo"]) == 2
    assert main(["init", str(tmp_path / "new"), "--from", str(tmp_path / "nowhere")]) == 2
    (project / "train.py").write_text("def (\n")
    assert main(["init", str(tmp_path / "new"), "--from", str(project)]) == 2
    assert "not valid Python" in capsys.readouterr().err
    (project / "train.py").unlink()
    assert main(["init", str(tmp_path / "new"), "--from", str(project)]) == 2
    assert "not clear what to edit" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_is_missing_is_listed(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "train.py").write_text("print('done')\n")
    assert main(["init", str(tmp_path / "copy"), "--from", str(project)]) == 0
    said = capsys.readouterr().err
    assert "fill in  [target] metric, pattern and goal" in said
    assert "fill in  [[hyperparameters]]" in said
    assert "check    [budget] seconds" in said
    assert main(["run", "--target", str(tmp_path / "copy"), "--proposer", "cma-es"]) == 2
    assert "needs a pattern" in capsys.readouterr().err


def test_the_project_is_not_run(project: Path, tmp_path: Path) -> None:
    (project / "train.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nLR = 0.1\nprint('loss', 1.0)\n")
    assert main(["init", str(tmp_path / "copy"), "--from", str(project)]) == 0
    assert not (tmp_path / "ran").exists()


ODD = """# été
ÉPAISSEUR = 3
NAME = "quo'te"
print(f"it's val_loss: {v}")
"""


def test_odd_texts_stay_toml(project: Path, tmp_path: Path) -> None:
    (project / "train.py").write_text(ODD, encoding="utf-8")
    assert main(["init", str(tmp_path / 'a "copy"'), "--from", str(project)]) == 0
    target, _ = load_target(tmp_path / 'a "copy"')
    assert re.findall(target.pattern, "it's val_loss: 2.5", re.M) == ["2.5"]


# what projects are like


SCRIPT = "LR = 0.1\nWIDTH = 64\nprint('val_loss:', LR)\n"


def commit(folder: Path) -> Path:
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Begin")
    return folder


def adopted(folder: Path, project: Path, capsys: pytest.CaptureFixture[str], status: int = 0) -> str:
    """What is said of a project."""
    capsys.readouterr()
    assert main(["init", str(folder), "--from", str(project)]) == status
    return capsys.readouterr().err


def test_other_files_need_not_be_sound(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "train.py").rename(project / "fit.py")
    (project / "fit.py").write_text("import latin, marked\n" + SCRIPT)
    (project / "latin.py").write_bytes("# -*- coding: latin-1 -*-\nNAME = 'été'\nTIME_BUDGET = 90\n".encode("latin-1"))
    (project / "marked.py").write_text("X = 1\n", encoding="utf-8-sig")
    (project / "old.py").write_text("print 'hello'\n")
    adopted(tmp_path / "copy", project, capsys)
    assert load_target(tmp_path / "copy")[0].budget.amount == 180


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("# été\n".encode("latin-1"), "train.py: not UTF-8 text: save it as UTF-8"),
        (SCRIPT.encode("utf-8-sig"), "train.py begins with a byte order mark: save it as UTF-8 without one"),
    ],
)
def test_the_script_has_to_be_plain_utf_8(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, said: str
) -> None:
    (project / "train.py").write_bytes(data)
    assert said in adopted(tmp_path / "copy", project, capsys, 2)


def with_links(project: Path, tmp_path: Path) -> None:
    for name in ("library", "store"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "base.py").write_text("BASE = 1\n")
    git(commit(project), "-c", "protocol.file.allow=always", "submodule", "add", "-q",
        str(commit(tmp_path / "library")), "vendor/library")  # fmt: skip
    (project / "base.py").symlink_to(tmp_path / "store" / "base.py")
    (project / "data").symlink_to(tmp_path / "store")
    commit(project)


def test_links_and_submodules_are_copied(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_links(project, tmp_path)
    copy = tmp_path / "copy"
    said = adopted(copy, project, capsys)
    assert {"train.py", "base.py", "vendor/library/base.py"} <= set(git(copy, "ls-files").split())
    assert (copy / "base.py").read_text() == "BASE = 1\n"
    assert not (copy / "base.py").is_symlink()
    assert "data is a link to a folder and was not copied" in said
    assert "vendor" not in said


def test_links_and_submodules_in_place_are_told(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_links(project, tmp_path)
    said = adopted(project, project, capsys)
    assert "base.py, data, vendor/library: links and submodules are not there in a trial" in said
    (project / "fit.py").symlink_to("train.py")
    (project / "target.toml").unlink()
    assert "fit.py is a link. Name the file itself: --from " in adopted(project, project / "fit.py", capsys, 2)


def test_a_project_that_the_repository_around_it_ignores(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".gitignore").write_text("project/\n")
    commit(tmp_path)
    adopted(tmp_path / "copy", project, capsys)
    assert git(tmp_path / "copy", "ls-files").split() == ["target.toml", "train.py"]
    assert "is not in a git repository" in adopted(project, project, capsys, 2)


def test_what_is_not_committed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = tmp_path / "mine, all mine"
    project.mkdir()
    (project / "README").write_text("")
    commit(project)
    (project / "train.py").write_text(SCRIPT)
    said = adopted(project, project, capsys)
    assert "check    train.py is not as it was committed, and a trial sees what is: commit it" in said
    assert f"Then: git -C '{project}' add target.toml train.py && git" in said
    assert f"Next: overnight run --target '{project}' --proposer cma-es" in said
    git(project, "add", "train.py")
    git(project, "commit", "-q", "-m", "Add it")
    (project / "target.toml").unlink()
    assert "as it was committed" not in adopted(project, project, capsys)


def test_where_the_script_is_not_clear(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "train.py").unlink()
    for name in ("setup.py", "test_fit.py", "src/fit.py", ".venv/lib/x.py", "explore.ipynb"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(SCRIPT)
    said = adopted(tmp_path / "copy", project, capsys, 2)
    assert "(src/fit.py)" in said
    assert "explore.ipynb is a notebook: make a script of it (jupyter nbconvert --to script)" in said
    assert not (tmp_path / "copy").exists()


def test_what_a_trial_would_lack_is_told(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "sets" / "c4").mkdir(parents=True)
    (project / "helper").mkdir()
    (project / "train.py").write_text(f"""import argparse, os, numpy, pytest, no_such_package, helper
from no_such_other.part import x
from pathlib import Path
try:
    import no_such_extra
except ImportError:
    pass
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--data", required=True)
parser.add_argument("out")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "set"
DATA = "{tmp_path}/sets/c4"
dataset = load_dataset("tiny")
Path("result.json").write_text("x")
print('val_loss:', 1.0)
""")
    said = adopted(tmp_path / "copy", project, capsys)
    assert "train.py imports no_such_other, no_such_package, which is not installed beside `overnight`" in said
    assert "train.py imports pytest: --sandbox bwrap finds it beside `overnight`, but in Docker the image" in said
    assert "[target] train: train.py wants --data, out" in said
    assert f"{tmp_path}/sets/c4 is not there in a trial" in said
    assert "train.py:14 seems to download: a trial has no network" in said
    assert "train.py:15 seems to write files" in said
    assert "mounts: ~/.cache/set is not there yet" in said
    assert "train.py takes settings from its command line: a search sees constants" in said
    assert "Next: overnight run" in said
    assert "--proposer code" in said


@pytest.mark.parametrize(
    ("constant", "seconds"),
    [("TIME_BUDGET = 300", 600), ("MAX_MINUTES = 5", 600), ("train_hours = 0.5", 3600), ("MAX_SECONDS = 10", 70),
     ("LIMIT_TIME = 'long'", 600)],
)  # fmt: skip
def test_the_budget_is_twice_a_constant(project: Path, tmp_path: Path, constant: str, seconds: float) -> None:
    (project / "train.py").write_text(f"{SCRIPT}{constant}\n")
    assert main(["init", str(tmp_path / "copy"), "--from", str(project)]) == 0
    assert load_target(tmp_path / "copy")[0].budget.amount == seconds


def test_what_is_no_script_is_said(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "train.ipynb").write_text('{"cells": [], "nbformat": 4}')
    assert "no Python script. Make a script of the noteb" in adopted(tmp_path / "x", project / "train.ipynb", capsys, 2)


def test_the_metric_may_be_printed_by_another_module(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "train.py").write_text("from engine import fit\nLR = 0.1\nfit(LR)\n")
    (project / "engine.py").write_text("def fit(lr):\n    print(f'val_loss: {lr}')\n")
    assert "val_loss, minimize" in adopted(tmp_path / "copy", project, capsys)
    assert "line 2 of engine.py" in (tmp_path / "copy" / "target.toml").read_text()
