"""Wrong input: one message on stderr, the documented exit status, no files or refs left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sessions import start, state_of
from targets import TOML, TRAIN, git, make_bowl

from agent.cli.entry import main
from agent.rundir.directory import RunDirectory, new_tag

Fails = Callable[..., str]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "target")


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail with ``status``; returns its message."""

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


NO_SERVER = ("--llm-base-url", "http://127.0.0.1:9/v1")
CODE = ("--proposer", "code", *NO_SERVER)
CENTAUR = ("--proposer", "centaur", *NO_SERVER)
SEARCH = ("--proposer", "random", "--sandbox", "process", "--trials", "1", "--policy", "greedy")
ONE_TRIAL = {"trials": 1, "policy": "greedy", "calibrate": 1}


def refuses(fails: Fails, target: Path, *words: str | Path, status: int = 2) -> str:
    """``overnight run`` that must not start: no run directory, no ref."""
    runs = target.parent / "runs"
    message = fails("run", "--target", target, *SEARCH, *words, status=status)
    assert not runs.exists() or not list(runs.iterdir())
    if (target / ".git").is_dir():
        assert git(target, "for-each-ref", "refs/autoresearch/") == ""
    return message


def test_missing_target_toml_is_usage_error(fails: Fails, tmp_path: Path) -> None:
    assert "target.toml" in fails("run", "--target", tmp_path, status=2)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("editable =", "editble =", ["[target]", "'editble'", "'editable'"]),
        ("[limits]", "[limit]", ["'limit'", "'limits'"]),
        ("seconds = 20", "seconds = 0", ["[budget]", "seconds", "above 0", "not 0"]),
        ("seconds = 20", "seconds = inf", ["[budget]", "seconds", "finite", "not inf"]),
        ("memory_gb = 1", "memory_gb = nan", ["[limits]", "memory_gb", "finite", "not nan"]),
        ("memory_gb = 1", "memory_gb = 1\nprocesses = 1.5", ["[limits]", "processes", "whole number", "not 1.5"]),
        ("seconds = 20", "seconds = 20\nsteps = -1", ["[budget]", "found: seconds, steps"]),
        ('"stdout"', "true", ["score", "one of trusted, stdout", "not True"]),
        ('["train.py"]', "[1]", ["[target]", "editable", "list of strings"]),
        ('["train.py"]', "[]", ["[target]", "editable is empty"]),
        ("seconds = 20", "seconds = 2\nsteps = 5", ["[budget]", "found: seconds, steps"]),
        ("seconds = 20", "", ["[budget]", "found: none"]),
        ("seconds = 20", "seconds = 20\nwall_seconds = 60", ["[budget]", "wall_seconds"]),
        ('"stdout"', '"stdin"', ["score = 'stdin'", "'stdout'"]),
        (r"(\S+)", r"\S+", ["pattern", "(group)"]),
        (r"(\S+)", "(", ["pattern"]),
        ('["train.py"]', '["../train.py"]', ["editable", "../train.py"]),
        ('["train.py"]', '["a.py", "b.py"]', ["editable"]),
        ("[target]", "[target", ["target.toml"]),
        ('name = "bowl"', "name = 3", ["[target]", "name"]),
        ('editable = ["train.py"]', "", ["[target]", "editable is missing"]),
        ('train = ["python", "train.py"]', "", ["[target]", "train is missing"]),
        ('score = "stdout"', 'score = "stdout"\nmetric = ""', ["[target]", "metric = ''"]),
        ('score = "stdout"', 'score = "stdout"\nmetric = "a\\nb"', ["[target]", "metric ="]),
        ("memory_gb = 1", 'memory_gb = "lots"', ["[limits]", "memory_gb"]),
        ("[budget]", "[run]\nproposr = 1\n[budget]", ["[run]", "'proposr'", "'proposer'"]),
    ],
)
def test_wrong_target_toml_names_table_and_key(
    fails: Fails, tmp_path: Path, old: str, new: str, parts: list[str]
) -> None:
    target = make_bowl(tmp_path / "target", toml=TOML.replace(old, new, 1))
    message = refuses(fails, target)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    "words",
    [
        ["--max-cost", "5"],
        ["--until", "25:00"],
        ["--budget", "1e999s"],
        ["--budget", "0s"],
        ["--budget", "fast"],
        ["--budget", "0.5steps"],
        ["--centaur-share", "2", *CENTAUR],
        ["--centaur-share", "-0.1", *CENTAUR],
        ["--centaur-share", "nan", *CENTAUR],
        ["--centaur-share", "much"],
        ["--on-llm-failure", "cma"],
        ["--tag", "a b"],
        ["--tag", "../up"],
        ["--threads", "100000"],
        ["--workers", "0"],
        ["--workers", "2"],
        ["--ray-address", "nonsense"],
        ["--ray-address", "host:abc"],
        ["--ray-address", "ray://10.0.0.1:10001"],
        ["--calibrate", "1", "--policy", "margin"],
        ["--config", "/nowhere.toml"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_wrong_value_names_the_option(fails: Fails, target: Path, words: list[str]) -> None:
    message = refuses(fails, target, *words)
    assert words[0] in message
    assert words[1] in message


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--hours", "nan"], "hours = nan"),
        (["--hours", "0"], "more than 0"),
        (["--gpu-hours", "-1"], "gpu_hours = -1 must be a finite number, more than 0"),
        (["--max-tokens-total", "0"], "max_tokens_total = 0"),
        (["--llm-timeout", "0", *CODE], "llm_timeout = 0"),
        (["--train-hours", "inf"], "train_hours = inf"),
        (["--threads", "-1"], "threads = -1"),
        (["--trials", "-1"], "trials = -1"),
        (["--policy", "lucky"], "policy = 'lucky'"),
        (["--proposer", "cma"], "proposer = 'cma'"),
    ],
)
def test_value_outside_the_domain_names_the_setting(fails: Fails, target: Path, words: list[str], key: str) -> None:
    message = refuses(fails, target, *words)
    assert "command line" in message
    assert key in message


@pytest.mark.parametrize("words", [["--on-plateau", "3"], ["--centaur-share", "0.5"], ["--no-screen"]])
def test_option_of_another_proposer_is_reported(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["run", "--target", str(target), "--runs", str(tmp_path / "runs"), *SEARCH, *words]) == 0
    assert capsys.readouterr().err.splitlines()[0].startswith(" ".join(words))


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["status"], ["watch"], ["resume", "night"]])
def test_missing_folder_of_runs_is_usage_error(fails: Fails, tmp_path: Path, command: list[str]) -> None:
    assert fails(*command, status=2).startswith(f"--runs {tmp_path / 'runs'}")
    (tmp_path / "runs").write_text("")
    assert fails(*command, status=2).startswith(f"--runs {tmp_path / 'runs'}")


def test_default_folder_of_runs_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    assert capsys.readouterr().out


def test_demo_with_wrong_seed_writes_nothing(fails: Fails, tmp_path: Path) -> None:
    assert "seed = -1" in fails("demo", "--seed", "-1", status=2)
    assert not (tmp_path / "runs").exists()


def test_new_tag_avoids_target_of_killed_demo(tmp_path: Path) -> None:
    first = new_tag(tmp_path, "demo-")
    (tmp_path / "targets" / first).mkdir(parents=True)
    assert new_tag(tmp_path, "demo-") == first
    assert new_tag(tmp_path, "demo-", "targets") == f"{first}-2"


@pytest.mark.parametrize("words", [["--workers", "0"], ["--seeds", "0"], ["--threads", "100000"]])
def test_wrong_replay_option_leaves_no_folder(fails: Fails, target: Path, tmp_path: Path, words: list[str]) -> None:
    start(target, tmp_path / "runs", **ONE_TRIAL)
    assert fails("replay", "night", *words, status=2).startswith(" ".join(words))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["night"]


@pytest.mark.parametrize("words", [["--older-than", "nan"], ["--larger-than", "inf"], ["--older-than", "-1"]])
def test_wrong_bound_of_clean_names_the_option(fails: Fails, words: list[str]) -> None:
    assert fails("clean", "night", *words, status=2).startswith(" ".join(words))


def test_wrong_config_file_names_file_and_key(fails: Fails, target: Path, tmp_path: Path) -> None:
    config = tmp_path / "night.toml"
    for text, parts in (("trails = 5\n", ["'trails'", "'trials'"]), ('hours = "all"\n', ["hours", "'all'"])):
        config.write_text(text)
        message = refuses(fails, target, "--config", config)
        assert all(part in message for part in (str(config), *parts)), message


def test_target_outside_of_a_repository_is_refused(fails: Fails, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "target.toml").write_text(TOML)
    (folder / "train.py").write_text(TRAIN)
    assert str(folder) in refuses(fails, folder)


def test_uncommitted_changes_are_refused_and_kept(fails: Fails, target: Path) -> None:
    (target / "train.py").write_text(TRAIN + "# mine\n")
    assert "train.py" in refuses(fails, target)
    assert (target / "train.py").read_text().endswith("# mine\n")


def test_unreachable_cluster_is_environment_error(fails: Fails, target: Path) -> None:
    assert refuses(fails, target, "--ray-address", "127.0.0.1:1", status=3).startswith("--ray-address")


def test_uncommitted_editable_file_is_named(fails: Fails, tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", toml=TOML.replace('["train.py"]', '["other.py"]'))
    assert "other.py" in refuses(fails, target)


def test_editable_file_that_is_a_link_is_named(fails: Fails, tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    (target / "train.py").rename(target / "real.py")
    (target / "train.py").symlink_to("real.py")
    git(target, "add", "-A")
    git(target, "commit", "-qm", "Link")
    message = refuses(fails, target)
    assert "train.py is a link" in message


def test_target_toml_in_another_encoding_is_named(fails: Fails, tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    (target / "target.toml").write_bytes(TOML.encode() + b"# \xe4\n")
    assert all(word in refuses(fails, target) for word in ("target.toml", "0xe4", "UTF-8"))


def test_parameter_missing_in_block_is_named(fails: Fails, tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", TRAIN.replace("DEPTH = 4  # best at 6", "").replace("DEPTH", "4"))
    assert "DEPTH" in refuses(fails, target)


@pytest.mark.parametrize("command", [["branch"], ["checkout", "-q", "-b"]])
def test_branch_of_earlier_run_is_named(fails: Fails, target: Path, command: list[str]) -> None:
    git(target, *command, "autoresearch/night")
    message = fails("run", "--target", target, *SEARCH, "--tag", "night", status=2)
    assert "refs/heads/autoresearch/night" in message
    assert not (target.parent / "runs" / "night").exists()


def test_tag_of_earlier_run_offers_resume(fails: Fails, target: Path, tmp_path: Path) -> None:
    start(target, tmp_path / "runs", **ONE_TRIAL)
    assert "overnight resume night" in fails("run", "--target", target, *SEARCH, "--tag", "night", status=2)


def test_unreachable_model_server_is_environment_error(fails: Fails, target: Path) -> None:
    assert NO_SERVER[1] in refuses(fails, target, *CODE, status=3)


def test_sandbox_process_in_target_toml_is_accepted(fails: Fails, target: Path) -> None:
    toml = target / "target.toml"
    toml.write_text(toml.read_text() + '\n[run]\nproposer = "code"\nsandbox = "process"\n')
    git(target, "commit", "-qam", "Name the sandbox")
    assert main(["trust", str(target)]) == 0
    message = fails("run", "--target", target, *NO_SERVER, status=3)
    assert "127.0.0.1:9" in message, "the sandbox passed, the model server is missing"


def test_unknown_gpu_is_named(fails: Fails, target: Path) -> None:
    assert "GPU-1234" in refuses(fails, target, "--device", "GPU-1234", status=3)


@pytest.mark.parametrize(
    "make",
    [lambda p: None, lambda p: p.write_text(""), lambda p: p.write_text("One short line.\n"), lambda p: p.mkdir()],
    ids=["missing", "empty", "too short", "empty folder"],
)
def test_unusable_corpus_is_named(fails: Fails, tmp_path: Path, make: Callable[[Path], object]) -> None:
    assert main(["init", str(tmp_path / "gpt"), "--preset", "demo"]) == 0
    corpus = tmp_path / "corpus.txt"
    make(corpus)
    words = ("prepare", "--target", tmp_path / "gpt", "--data", corpus, "--cache", tmp_path / "cache")
    assert str(corpus) in fails(*words, status=2)
    assert [p for p in (tmp_path / "cache" / "data").iterdir() if p.name != "lock"] == []


def test_init_refuses_file_and_folder_with_files(fails: Fails, target: Path) -> None:
    before = sorted(target.iterdir())
    for place in (target, target / "train.py"):
        assert str(place) in fails("init", place, status=2, runs=False)
    assert sorted(target.iterdir()) == before
    assert (target / "train.py").read_text() == TRAIN


@pytest.mark.parametrize("command", [["status"], ["log"], ["show", "jun21", "1"], ["report"], ["resume"], ["stop"]])
def test_unknown_tag_names_the_nearest(fails: Fails, tmp_path: Path, command: list[str]) -> None:
    run = tmp_path / "runs" / "jun12"
    run.mkdir(parents=True)
    (run / "run.toml").write_text("[run]\n")
    message = fails(*(command if command[1:] else [*command, "jun21"]), status=2)
    assert "'jun21'" in message
    assert "jun12" in message


@pytest.mark.parametrize("command", ["status", "resume"])
def test_damaged_run_toml_is_named(fails: Fails, target: Path, tmp_path: Path, command: str) -> None:
    directory = start(target, tmp_path / "runs", **ONE_TRIAL)
    before = directory.ledger.read_bytes()
    directory.settings.write_text("seed = 3\n")
    assert "run.toml" in fails(command, "night", status=2)
    assert directory.ledger.read_bytes() == before


def test_unknown_trial_lists_valid_numbers(fails: Fails, target: Path, tmp_path: Path) -> None:
    directory = start(target, tmp_path / "runs", **ONE_TRIAL)
    assert "1 to 1" in fails("show", "night", "7", status=2)
    directory.ledger.write_bytes(directory.ledger.read_bytes().splitlines(keepends=True)[0])
    assert "no trial 1" in fails("show", "night", "1", status=2)


def test_stop_of_ended_run_is_usage_error(fails: Fails, target: Path, tmp_path: Path) -> None:
    start(target, tmp_path / "runs", **ONE_TRIAL)
    assert "overnight resume night" in fails("stop", "night", status=2)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rnu"], "run"),
        (["statsu", "night"], "status"),
        (["xyzzy"], "overnight --help"),
        (["--xyzzy"], "overnight --help"),
        (["--verison"], "--version"),
        (["show", "1", "2", "3"], "overnight show --help"),
        (["run", "extra"], "overnight run --help"),
        (["run", "--trails", "5"], "--trials"),
        (["run", "--xyzzy"], "overnight run --help"),
        (["run", "--trials", "x"], "--trials"),
        (["export", "--format", "xls"], "--format"),
        (["show"], "overnight show --help"),
        (["resume", "night", "--config", "x.toml"], "--config"),
    ],
    ids=" ".join,
)
def test_unknown_word_is_answered_with_a_hint(fails: Fails, words: list[str], hint: str) -> None:
    message = fails(*words, status=2, runs=False)
    assert hint in message.removeprefix(words[0])


def test_no_command_prints_first_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(f"overnight {command}" in err for command in ("demo", "init", "run"))


def mounted(script: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in its own mount namespace, after a script that mounts."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["unshare", "-m", "sh", "-c", f'{script}; exec "$@"', "sh", *words],
                          capture_output=True, text=True)  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("more", [[], ["--detach"]], ids=str)
def test_full_disk_is_environment_error(target: Path, tmp_path: Path, more: list[str]) -> None:
    small = tmp_path / "small"
    small.mkdir()
    words = [sys.executable, "-m", "agent.cli", "run", "--target", str(target), "--runs", str(small / "runs"), *SEARCH]
    words += more
    done = mounted(f"mount -t tmpfs -o size=16k tmpfs {small} && head -c 20k /dev/zero >{small}/fill", words)
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("command", ["resume night --trials 2", "clean night", "replay night --seeds 1"])
def test_read_only_disk_names_the_file(target: Path, tmp_path: Path, command: str) -> None:
    runs = tmp_path / "runs"
    start(target, runs, **ONE_TRIAL)
    words = [sys.executable, "-m", "agent.cli", *command.split(), "--runs", str(runs)]
    done = mounted(f"mount --bind {runs} {runs} && mount -o remount,bind,ro {runs}", words)
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"overnight: {runs}/")


@pytest.mark.parametrize("command", ["run --tag a", "run --tag a --dry-run", "resume night --trials 2"])
def test_read_only_repository_is_refused_before_any_run(target: Path, tmp_path: Path, command: str) -> None:
    runs, repository = tmp_path / "runs", target / ".git"
    start(target, runs, **ONE_TRIAL)
    name, *more = command.split()
    words = [sys.executable, "-m", "agent.cli", name, *more, "--runs", str(runs)]
    words += ["--target", str(target), *SEARCH] if name == "run" else []
    done = mounted(f"mount --bind {repository} {repository} && mount -o remount,bind,ro {repository}", words)
    assert done.returncode == 3, done.stderr
    assert str(repository) in done.stderr.splitlines()[-1]
    assert not (runs / "a").exists()
    assert len(state_of(RunDirectory(runs, "night")).records) == 1


def test_git_variables_of_the_shell_are_ignored(target: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "GIT_DIR": str(tmp_path / "elsewhere"), "OVERNIGHT_SEED": "7"}
    words = ["run", "--target", str(target), "--runs", str(tmp_path / "runs"), "--tag", "a", *SEARCH]
    done = subprocess.run([sys.executable, "-m", "agent.cli", *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
