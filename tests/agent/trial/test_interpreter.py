"""Which Python runs a trial, which packages that Python sees, and how a trial receives its seed."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from sandboxes import working
from sessions import start, state_of
from targets import TOML, make_bowl

from agent.cli.entry import main
from agent.errors import UsageError
from agent.rundir.directory import RunDirectory
from agent.target import load_target
from agent.trust import trust

FAST = {"trials": 1, "policy": "greedy", "calibrate": 1}
BLOCK = "# --- hyperparameters ---\nRATE = 0.01\nDEPTH = 4\n# --- end of hyperparameters ---\n"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the packages `agent` and, by a .pth file, `elsewhere`."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    (site / "agent").mkdir()
    (site / "agent" / "__init__.py").write_text("VALUE = 1.25\n")
    (folder / "source").mkdir()
    (folder / "source" / "elsewhere.py").write_text("VALUE = 0.25\n")
    (site / "project.pth").write_text(f"{folder / 'source'}\n")
    folder.chmod(0o755)
    return folder / "venv" / "bin" / "python"


def values(directory: RunDirectory) -> list[float | None]:
    return [run.value for run in state_of(directory).baseline_runs]


@pytest.mark.parametrize("sandbox", ["process", "bwrap"])
def test_python_option_uses_that_environment(environment: Path, sandbox: str, tmp_path: Path) -> None:
    working(sandbox)
    train = f"{BLOCK}import agent, elsewhere\nprint('val_bpb:', agent.VALUE + elsewhere.VALUE)\n"
    target = make_bowl(tmp_path / "target", train)
    run = start(target, tmp_path / "runs", sandbox=sandbox, python=str(environment), **FAST)
    assert values(run) == [1.5]
    assert run.read_settings()["run"]["python"] == str(environment)


def test_python_in_target_needs_trust(environment: Path, tmp_path: Path) -> None:
    toml = TOML.replace("[target]", f'[target]\npython = "{environment}"')
    target = make_bowl(tmp_path / "target", f"{BLOCK}import agent\nprint('val_bpb:', agent.VALUE)\n", toml)
    with pytest.raises(UsageError, match="python"):
        load_target(target)
    trust(target)
    assert values(start(target, tmp_path / "runs", **FAST)) == [1.25]


def test_missing_interpreter_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = make_bowl(tmp_path / "target")
    for path in (tmp_path / "none", Path("/bin/true")):
        words = ["run", "--target", str(target), "--proposer", "cma-es", "--runs", str(tmp_path / "runs")]
        assert main([*words, "--python", str(path)]) == 2
        assert "--python" in capsys.readouterr().err


def test_interpreter_of_host_excludes_docker(
    environment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    working("bwrap")
    target = make_bowl(tmp_path / "target", f"{BLOCK}print('val_bpb: 1')\n")
    words = ["run", "--target", str(target), "--proposer", "cma-es", "--python", str(environment), "--dry-run"]
    assert main([*words, "--sandbox", "docker"]) == 2
    assert "--python" in capsys.readouterr().err
    assert main(words) == 0
    assert "bwrap" in capsys.readouterr().out


@pytest.mark.parametrize("sandbox", ["process", "bwrap"])
def test_own_packages_are_hidden_from_trials(sandbox: str, tmp_path: Path) -> None:
    working(sandbox)
    train = (
        f"{BLOCK}import sys\nfrom agent.model import VALUE\n"
        "for name in ('sandbox', 'prompts'):\n"
        "    try:\n        __import__(name)\n        sys.exit(f'{name} is visible')\n"
        "    except ModuleNotFoundError:\n        pass\n"
        "print('val_bpb:', VALUE)\n"
    )
    target = make_bowl(tmp_path / "target", train)
    (target / "agent").mkdir()  # without __init__.py: the installed package would win
    (target / "agent" / "model.py").write_text("VALUE = 7.5\n")
    subprocess.run(["git", "-C", target, "add", "-A"], check=True)
    commit = ["-c", "user.name=U", "-c", "user.email=u@e", "commit", "-qm", "Add"]
    subprocess.run(["git", "-C", target, *commit], check=True)
    assert values(start(target, tmp_path / "runs", sandbox=sandbox, **FAST)) == [7.5]


SEEDS = {
    'seed_env = "MY_SEED"': "import os\nseed = os.environ['MY_SEED']\n",
    'seed_arg = "--seed"': "import sys\nassert sys.argv[1] == '--seed'\nseed = sys.argv[2]\n",
    'seed_arg = "seed="': "import sys\nseed = sys.argv[1].removeprefix('seed=')\n",
}


@pytest.mark.parametrize("key", SEEDS)
def test_target_receives_seed_as_named(key: str, tmp_path: Path) -> None:
    train = f"{BLOCK}{SEEDS[key]}print('val_bpb:', int(seed) % 1000 + 1)\n"
    target = make_bowl(tmp_path / "target", train, TOML.replace("[target]", f"[target]\n{key}"))
    runs = state_of(start(target, tmp_path / "runs", **FAST)).baseline_runs
    assert [run.value for run in runs] == [run.seed % 1000 + 1 for run in runs]


@pytest.mark.parametrize("wrong", ['seed_env = "A=B"', 'seed_arg = "--seed"\nscore = "trusted"', "python = 3"])
def test_wrong_keys_are_refused(wrong: str, tmp_path: Path) -> None:
    toml = TOML.replace("[target]", f"[target]\n{wrong}")
    toml = re.sub(r'\nscore = "stdout"\npattern.*', "", toml) if "trusted" in wrong else toml
    target = make_bowl(tmp_path / "target", toml=toml)
    with pytest.raises(UsageError, match=wrong.split(" ")[0]):
        load_target(target)
