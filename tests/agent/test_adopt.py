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

from agent.cli import main
from agent.config import load_target
from agent.guessing import bounds, guess_hyperparameters
from agent.looking import Constant, find_constants, find_metric, find_paths
from agent.space import SearchSpace


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
    ],
)  # fmt: skip
def test_the_metric_of_a_script(source: str, name: str, goal: str, printed: str, value: str) -> None:
    metric = find_metric(ast.parse(source))
    assert metric is not None
    assert (metric.name, metric.goal) == (name, goal)
    assert re.findall(metric.pattern, printed, re.M)[-1] == value


@pytest.mark.parametrize("source", ["x = 1", 'print("hello")', 'print(f"step {k}")', 'print(f"total_seconds: {t}")',
                                    'open("loss")', 'print("%d %d" % (a,))', 'print("{".format(a))'])  # fmt: skip
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
ZERO = 0.0
"""


def test_constants_are_assigned_once() -> None:
    found = {c.name: c.value for c in find_constants(ast.parse(SETTINGS))}
    assert found == {"DEPTH": 8, "LR": 1e-3, "BATCH": 2**19, "USE_BIAS": False, "NAME": "gpt", "SEED": 42,
                     "DROPOUT": 0.1, "BETA": 0.95, "ZERO": 0.0}  # fmt: skip


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
    }
    assert left == ["NAME", "SEED", "ZERO"]


@given(st.one_of(st.integers(1, 10**9), st.floats(1e-9, 1e9)), st.sampled_from(["X", "LR", "BETA", "DROPOUT"]))
def test_any_guessed_bounds_make_a_space(value: float, name: str) -> None:
    keys = bounds(Constant(name, value, 1))
    assert keys is not None
    row = {"name": name, **tomllib.loads("\n".join(f"{key} = {text}" for key, text in keys))}
    space = SearchSpace.from_parts({"hyperparameters": [row]}, f"{name} = {value!r}\n", "target.toml", "train.py")
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
    copy = tmp_path / "copy"
    assert main(["init", str(copy), "--from", str(project)]) == 0
    target, _ = load_target(copy)
    assert (target.metric, target.goal, target.score, target.has_block) == ("val_bpb", "minimize", "stdout", True)
    assert git(copy, "ls-files").split() == ["target.toml", "train.py"]
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
