"""What a user can get wrong: one clear message on stderr, the documented exit status, nothing half made."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sessions import start
from targets import TOML, TRAIN, git, make_bowl

from agent.cli.entry import main
from agent.llm import client as llm
from agent.rundir.directory import new_tag

Fails = Callable[..., str]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "target")


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail; its message."""

    def run(*words: str | Path, status: int, runs: bool = True) -> str:
        capsys.readouterr()
        places = ["--runs", str(tmp_path / "runs")] if runs else []
        found = main([str(word) for word in (*words, *places)])
        out, err = capsys.readouterr()
        assert found == status, err
        assert out == ""
        assert err.splitlines()[-1].startswith("overnight: ")
        assert "Traceback" not in err
        return err.splitlines()[-1].removeprefix("overnight: ")

    return run


NOWHERE = ("--llm-base-url", "http://127.0.0.1:9/v1")  # what is wrong is said before a server is asked
CODE = ("--proposer", "code", *NOWHERE)
CENTAUR = ("--proposer", "centaur", *NOWHERE)
SEARCH = ("--proposer", "random", "--sandbox", "process", "--trials", "1", "--policy", "greedy")


def refuses(fails: Fails, target: Path, *words: str | Path, status: int = 2) -> str:
    """``overnight run`` that must not begin: no run directory, no ref."""
    runs = target.parent / "runs"
    message = fails("run", "--target", target, *SEARCH, *words, status=status)
    assert not runs.exists() or not list(runs.iterdir())
    if (target / ".git").is_dir():
        assert git(target, "for-each-ref", "refs/autoresearch/") == ""
    return message


def test_no_target(fails: Fails, tmp_path: Path) -> None:
    message = fails("run", "--target", tmp_path, status=2)
    assert message.startswith(f"{tmp_path} has no target.toml. `overnight init DIR` makes a target")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("editable =", "editble =", "target.toml, [target]: unknown key 'editble'. Did you mean 'editable'?"),
        ("[limits]", "[limit]", "target.toml: unknown table 'limit'. Did you mean 'limits'?"),
        ("seconds = 20", "seconds = 0", "target.toml, [budget]: seconds = 0 must be more than 0."),
        ("seconds = 20", "seconds = inf", "target.toml, [budget]: seconds = inf is no finite number."),
        ("memory_gb = 1", "memory_gb = nan", "target.toml, [limits]: memory_gb = nan is no finite number."),
        ("seconds = 20", "seconds = 2\nsteps = 5", "exactly one of seconds, steps and tokens (found: seconds, steps)"),
        ("seconds = 20", "", "give exactly one of seconds, steps and tokens (found: none)"),
        ("seconds = 20", "seconds = 20\nwall_seconds = 60", "wall_seconds bounds a budget of steps or tokens"),
        ('"stdout"', '"stdin"', "score = 'stdin' is not one of trusted, stdout. Did you mean 'stdout'?"),
        (r"(\S+)", r"\S+", "pattern: needs exactly one (group)"),
        (r"(\S+)", "(", "pattern: missing )"),
        ('["train.py"]', '["../train.py"]', "editable: '../train.py' leads out of the target"),
        ('["train.py"]', '["a.py", "b.py"]', "exactly one file can be edited"),
        ("[target]", "[target", "target.toml: Expected ']'"),
        ('name = "bowl"', "name = 3", "[target]: name must be a text."),
        ("memory_gb = 1", 'memory_gb = "lots"', "[limits]: memory_gb must be a number."),
        ("[budget]", "[run]\nproposr = 1\n[budget]", "[run]: unknown key 'proposr'. Did you mean 'proposer'?"),
    ],
)  # fmt: skip
def test_a_wrong_target_toml(fails: Fails, tmp_path: Path, old: str, new: str, message: str) -> None:
    target = make_bowl(tmp_path / "target", toml=TOML.replace(old, new, 1))
    assert message in refuses(fails, target)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0"], "--trials 0: must be more than 0."),
        (["--hours", "0"], "--hours 0: must be more than 0."),
        (["--hours", "nan"], "command line: hours = nan is no finite number."),
        (["--train-hours", "inf"], "command line: train_hours = inf is no finite number."),
        (["--budget", "1e999s"], "--budget 1e999s: write a positive amount and its unit"),
        (["--until", "25:00"], "--until 25:00: write a time of day such as 07:30."),
        (["--budget", "0s"], "--budget 0s: write a positive amount and its unit"),
        (["--budget", "fast"], "--budget fast: write a positive amount and its unit"),
        (["--budget", "0.5steps"], "--budget 0.5steps: less than one step trains nothing."),
        (["--policy", "lucky"], "policy = 'lucky' is not one of"),
        (["--proposer", "cma"], "proposer = 'cma' is not one of"),
        (["--llm-timeout", "0", *CODE], "--llm-timeout 0: must be more than 0"),
        (["--centaur-share", "2", *CENTAUR], "--centaur-share 2: write auto, or a number from 0 to 1."),
        (["--centaur-share", "-0.1", *CENTAUR], "--centaur-share -0.1: write auto, or a number from 0 to 1."),
        (["--centaur-share", "nan", *CENTAUR], "--centaur-share nan: write auto, or a number from 0 to 1."),
        (["--centaur-share", "much"], "--centaur-share much: write auto, or a number from 0 to 1."),
        (["--on-llm-failure", "cma"], "--on-llm-failure cma belongs to --proposer centaur"),
        (["--tag", "a b"], "--tag 'a b': use letters, digits"),
        (["--tag", "../up"], "--tag '../up': use letters, digits"),
        (["--threads", "-1"], "threads = -1 is negative."),
        (["--threads", "100000"], "--threads 100000: must be at most 4096"),
        (["--workers", "0"], "--workers 0: must be at least 1."),
        (["--workers", "2"], "--workers 2"),
        (["--ray-address", "nonsense"], "--ray-address nonsense: write local, auto or HOST:PORT"),
        (["--ray-address", "host:abc"], "--ray-address host:abc: write local, auto or HOST:PORT"),
        (["--ray-address", "ray://10.0.0.1:10001"], "--ray-address ray://10.0.0.1:10001: write local, auto or HOST"),
        (["--policy", "margin", "--calibrate", "1"], "--calibrate 1: the policy margin needs at least 2 runs"),
        (["--config", "/nowhere.toml"], "--config /nowhere.toml: no such file."),
    ],
)
def test_a_wrong_setting(fails: Fails, target: Path, words: list[str], message: str) -> None:
    assert message in refuses(fails, target, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on-plateau", "3"], "--on-plateau 3 has no effect: only --proposer code looks at it, and this is random."),
        (["--centaur-share", "0.5"], "--centaur-share 0.5 has no effect: only --proposer centaur looks at it"),
        (["--no-screen"], "--no-screen has no effect: only --proposer centaur looks at it"),
    ],
)
def test_a_setting_that_only_another_proposer_looks_at_is_told(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["run", "--target", str(target), "--runs", str(tmp_path / "runs"), *SEARCH, *words]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith(message)
    assert main(["run", "--target", str(target), "--runs", str(tmp_path / "runs"), *SEARCH]) == 0
    assert "has no effect" not in capsys.readouterr().err


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["status"], ["watch"], ["resume", "night"]])
def test_a_folder_of_runs_that_is_not_there(fails: Fails, tmp_path: Path, command: list[str]) -> None:
    message = fails(*command, status=2)
    assert message.startswith(f"--runs {tmp_path / 'runs'}: no such folder.")
    (tmp_path / "runs").write_text("")
    assert fails(*command, status=2).startswith(f"--runs {tmp_path / 'runs'}: no such folder.")


def test_a_demo_that_cannot_begin_is_in_nobodys_way(fails: Fails, tmp_path: Path) -> None:
    assert fails("demo", "--seed", "-1", status=2) == "command line: seed = -1 is negative."
    assert not (tmp_path / "runs").exists()


def test_a_demo_that_was_killed_early_is_in_nobodys_way(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = new_tag(runs, "demo-")
    (runs / "targets" / first).mkdir(parents=True)
    assert new_tag(runs, "demo-") == first
    assert new_tag(runs, "demo-", "targets") == f"{first}-2"


@pytest.mark.parametrize("words", [["--workers", "0"], ["--seeds", "0"], ["--threads", "100000"]])
def test_a_replay_that_cannot_begin_leaves_no_folder(
    fails: Fails, target: Path, tmp_path: Path, words: list[str]
) -> None:
    start(target, tmp_path / "runs", trials=2, policy="greedy", calibrate=1, seed=1)
    assert fails("replay", "night", *words, status=2).startswith(" ".join(words))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["night"]


@pytest.mark.parametrize("words", [["--older-than", "nan"], ["--larger-than", "inf"], ["--older-than", "-1"]])
def test_bounds_of_clean_that_are_none(fails: Fails, target: Path, words: list[str]) -> None:
    assert fails("clean", "night", *words, status=2).endswith("must be a finite number, and cannot be negative.")


def test_the_usual_folder_of_runs_need_not_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    assert "No runs yet." in capsys.readouterr().out


def test_a_wrong_config_file(fails: Fails, target: Path, tmp_path: Path) -> None:
    config = tmp_path / "night.toml"
    config.write_text("trails = 5\n")
    assert refuses(fails, target, "--config", config) == f"{config}: unknown key 'trails'. Did you mean 'trials'?"
    config.write_text('hours = "all"\n')
    assert refuses(fails, target, "--config", config) == f"{config}: hours must be a number, not 'all'."


def test_a_target_outside_of_a_repository(fails: Fails, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "target.toml").write_text(TOML)
    (folder / "train.py").write_text(TRAIN)
    assert "is not in a git repository. Make one" in refuses(fails, folder)


def test_a_dirty_repository(fails: Fails, target: Path) -> None:
    (target / "train.py").write_text(TRAIN + "# mine\n")
    assert "uncommitted changes (train.py). The baseline is a commit: git commit or git stash" in refuses(fails, target)
    assert (target / "train.py").read_text().endswith("# mine\n")


def test_no_cluster(fails: Fails, target: Path) -> None:
    message = refuses(fails, target, "--ray-address", "127.0.0.1:1", status=3)
    assert message.startswith("--ray-address")  # says that Ray is not installed, or that nothing answers


def test_a_file_that_is_not_committed(fails: Fails, tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", toml=TOML.replace('["train.py"]', '["other.py"]'))
    assert "has no file other.py: is it committed?" in refuses(fails, target)


def test_a_block_that_lacks_a_parameter(fails: Fails, tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", TRAIN.replace("DEPTH = 4  # best at 6", "").replace("DEPTH", "4"))
    assert "DEPTH" in refuses(fails, target)


def test_refs_of_an_earlier_run(fails: Fails, target: Path) -> None:
    git(target, "branch", "autoresearch/night")
    message = fails("run", "--target", target, *SEARCH, "--tag", "night", status=2)
    assert message.startswith(
        "refs/heads/autoresearch/night exists from an earlier run. Choose another --tag, or delete"
    )
    assert not (target.parent / "runs" / "night").exists()


def test_a_branch_that_is_checked_out(fails: Fails, target: Path) -> None:
    git(target, "checkout", "-q", "-b", "autoresearch/night")
    assert "exists from an earlier run" in fails("run", "--target", target, *SEARCH, "--tag", "night", status=2)


def test_the_tag_of_an_earlier_run(fails: Fails, target: Path, tmp_path: Path) -> None:
    start(target, tmp_path / "runs", trials=1, policy="greedy", calibrate=1)
    message = fails("run", "--target", target, *SEARCH, "--tag", "night", status=2)
    assert message.endswith("exists. `overnight resume night` goes on with it; another --tag starts a new run.")


def test_no_model_server(fails: Fails, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "CONNECT_PATIENCE", 0.5)
    words = ("--proposer", "code", "--llm-base-url", "http://127.0.0.1:9/v1")
    message = refuses(fails, target, *words, status=3)
    assert "http://127.0.0.1:9/v1" in message


def test_code_of_a_model_is_refused_where_nothing_protects(
    fails: Fails, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm, "CONNECT_PATIENCE", 0.5)
    toml = target / "target.toml"
    toml.write_text(toml.read_text() + '\n[run]\nproposer = "code"\nsandbox = "process"\n')
    git(target, "commit", "-qam", "By name is asked for")
    message = fails("run", "--target", target, "--llm-base-url", "http://127.0.0.1:9/v1", status=3)
    assert "127.0.0.1:9" in message, "named in target.toml, the sandbox is accepted and the server is looked for"


def test_no_such_gpu(fails: Fails, target: Path) -> None:
    assert "no such GPU. There are:" in refuses(fails, target, "--device", "GPU-1234", status=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.write_text(""), "corpus.txt holds no text."),
        (lambda p: p.write_text("One short line.\n"), "training, validation and test need at least 12 in all"),
        (lambda p: p.mkdir(), "holds no .txt, .jsonl or .parquet file"),
    ],
)
def test_a_corpus_that_is_none(fails: Fails, tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    assert main(["init", str(tmp_path / "gpt"), "--preset", "demo"]) == 0
    corpus = tmp_path / "corpus.txt"
    make(corpus)
    words = ("prepare", "--target", tmp_path / "gpt", "--data", corpus, "--cache", tmp_path / "cache")
    assert message in fails(*words, status=2)
    made = [p for p in (tmp_path / "cache" / "data").iterdir() if p.name != "lock"]
    assert made == []


def test_init_leaves_a_folder_with_files_alone(fails: Fails, target: Path) -> None:
    before = sorted(target.iterdir())
    assert fails("init", target, status=2, runs=False) == f"{target} is not empty. Name a new folder."
    assert sorted(target.iterdir()) == before


def test_init_names_a_file_that_is_no_folder(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    assert fails("init", tmp_path / "notes", status=2, runs=False) == (
        f"{tmp_path / 'notes'} is a file. Name a new folder."
    )
    assert (tmp_path / "notes").read_text() == "mine"


@pytest.mark.parametrize("command", ["status", "log", "report", "resume", "stop"])
def test_a_run_that_is_not_there(fails: Fails, target: Path, tmp_path: Path, command: str) -> None:
    start(target, tmp_path / "runs", tag="jun12", trials=1, policy="greedy", calibrate=1)
    assert fails(command, "jun21", status=2) == f"no run 'jun21' in {tmp_path / 'runs'}. Nearest: jun12."


@pytest.mark.parametrize("command", ["status", "resume"])
def test_settings_of_a_run_that_are_not_there(fails: Fails, target: Path, tmp_path: Path, command: str) -> None:
    directory = start(target, tmp_path / "runs", trials=1, policy="greedy", calibrate=1)
    before = directory.ledger.read_bytes()
    directory.settings.write_text("seed = 3\n")
    assert "run.toml has no table [run]" in fails(command, "night", status=2)
    assert directory.ledger.read_bytes() == before


def test_a_trial_that_is_not_there(fails: Fails, target: Path, tmp_path: Path) -> None:
    start(target, tmp_path / "runs", trials=1, policy="greedy", calibrate=1)
    assert fails("show", "night", "7", status=2) == "run night has no trial 7: it has 1 to 1."
    ledger = tmp_path / "runs" / "night" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
    assert fails("show", "night", "1", status=2) == "run night has no trial 1: nothing has been tried yet."


def test_stopping_what_does_not_run(fails: Fails, target: Path, tmp_path: Path) -> None:
    start(target, tmp_path / "runs", trials=1, policy="greedy", calibrate=1)
    assert fails("stop", "night", status=2) == "run night is not going on; there is nothing to stop."


def test_an_unknown_command_or_flag_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for words, hint in (
        (["rnu"], "run"),
        (["run", "--trials", "x"], "--trials"),
    ):
        with pytest.raises(SystemExit) as found:
            main(words)
        assert found.value.code == 2
        assert hint in capsys.readouterr().err


def test_an_unknown_flag_names_the_nearest(fails: Fails) -> None:
    assert fails("run", "--trails", "5", status=2) == "run does not know --trails. Did you mean --trials?"
    assert fails("run", "--xyzzy", status=2) == "run does not know --xyzzy. `overnight run --help` lists what there is."


def test_no_disk(target: Path, tmp_path: Path) -> None:
    """A run directory on a full file system: said before anything begins."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    words = [sys.executable, "-m", "agent.cli", "run", "--target", str(target), "--runs", str(small / "runs"), *SEARCH]
    script = f'mount -t tmpfs -o size=16k tmpfs {small} && head -c 20k /dev/zero >{small}/fill; exec "$@"'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *words], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["resume night --trials 2", "clean night", "replay night --seeds 1"])
def test_a_read_only_disk(target: Path, tmp_path: Path, command: str) -> None:
    """A command that writes says which file it cannot write."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder read-only for itself")
    runs = tmp_path / "runs"
    start(target, runs, trials=1)
    words = [sys.executable, "-m", "agent.cli", *command.split(), "--runs", str(runs)]
    script = f'mount --bind {runs} {runs} && mount -o remount,bind,ro {runs}; exec "$@"'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *words], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")
    assert done.returncode == 3, done.stderr
    assert re.fullmatch(rf"overnight: {runs}/\S+: Read-only file system\.", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


def test_settings_of_the_shell_do_not_reach_the_session(target: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "GIT_DIR": str(tmp_path / "elsewhere"), "OVERNIGHT_SEED": "7"}
    words = ["run", "--target", str(target), "--runs", str(tmp_path / "runs"), "--tag", "a", *SEARCH]
    done = subprocess.run([sys.executable, "-m", "agent.cli", *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
