"""Every command of the command line with its options. The module of a command loads when the command runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from agent import __version__
from agent.cli.options import SHARED, Parser, add_settings, settings_without
from agent.settings import Settings

EPILOG = """exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 missing or broken environment
(Docker, model server, disk), 130 interrupted. Data goes to stdout, progress to stderr."""
EXAMPLES = """examples:
  overnight run --target gpt --proposer cma-es --trials 20
      numeric search over the hyperparameter block; needs no model server
  overnight run --target gpt --llm-base-url http://gpu-box:8000/v1 --until 07:30 --detach
      a model edits train.py until the morning, in the background
  overnight run --target gpt --proposer centaur --hours 8 --workers 2
      points of a model and of cma-es compete; two trials in parallel, each on its own GPU"""
COMMANDS = {  # in the order of the help: function, options of ``SHARED``, help text
    "demo": ("demo:demo", "runs cache", "run a complete short session on a CPU, without Docker or a model server"),
    "init": (
        "init:init", "",
        "make a git repository with the nanoGPT target, or a target.toml for an existing project",
    ),
    "trust": (
        "init:trust", "",
        "let a target.toml or a copied run directory choose sandbox, model server, mounts and other protected settings",
    ),
    "prepare": ("init:prepare", "cache -runs", "prepare data and tokenizer of a target"),
    "run": ("run:run", "", "start a session"),
    "resume": ("run:resume", "tag runs", "continue a session after any interruption"),
    "stop": ("stop:stop", "tag runs -cache", "end a session, replay or promotion after its running trial"),
    "list": ("review:list_runs", "json runs -cache", "list the sessions"),
    "status": ("review:status", "newest json runs -cache", "show one session at a glance"),
    "log": ("review:log", "newest json runs -cache", "list the kept edits of a session"),
    "show": ("review:show_attempt", "newest json runs -cache", "show one trial: diff, reason, loss curve, failure"),
    "diff": ("review:diff", "tag json moved runs", "compare two trials of a session: values and changed lines"),
    "report": (
        "report:report", "newest runs -cache",
        "write report.html and progress.png of a session, or the page of a replay or promotion",
    ),
    "watch": ("watch:watch", "newest runs", "show a session, replay or promotion live; q quits and it continues"),
    "serve": ("watch:serve", "runs", "show all sessions of a folder on a live, read-only page"),
    "mcp": ("mcp:serve", "runs", "let an agent in an editor read sessions and stop them (MCP over stdio)"),
    "branch": ("branch:branch", "tag moved runs", "make a clean branch of the kept edits, for a pull request"),
    "export": (
        "export:export", "newest runs",
        "print the trials of a session as tsv, csv or json, write a file for Optuna or Parquet, or send them to a "
        "tracker",
    ),
    "ideas": ("ideas:ideas", "json", "list the idea bank, or show one idea"),
    "replay": (
        "replay:replay", "json runs cache",
        "train the commits of a branch again and compare with the recorded values",
    ),
    "promote": (
        "replay:promote", "tag json runs cache",
        "train the kept edits at a larger size or budget, and show which of them hold",
    ),
    "compare": (
        "compare:compare", "json",
        "compare methods over several seeds under one budget, with significance tests",
    ),
    "judge": ("judge:judge", "json", "apply an acceptance policy to the keeps of a published results.tsv"),
    "llm": ("llm:serve", "cache", "run a vLLM server for this machine's sessions and restart it if it fails"),
    "clean": ("clean:clean", "tag runs", "remove bulky files of a session: checkpoints, logs, schedules, transcripts"),
    "doctor": ("doctor:doctor", "json runs cache", "check GPU, Docker, model server, disk and git of this machine"),
}  # fmt: skip


def build_parser() -> Parser:
    """The parser of the command line. Each command stores the name of its function under ``function``."""
    parser = Parser(
        prog="overnight",
        description="Runs a code-editing research agent overnight and keeps edits whose gain exceeds the noise.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"overnight {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (function, shared, text) in COMMANDS.items():
        command = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.set_defaults(function=f"agent.cli.{function}")
        for key in shared.split():
            flag, keywords = SHARED[key]
            command.add_argument(flag, **keywords)
    for add_options in (_targets, _sessions, _views, _branches, _train_again, _comparisons, _machine):
        add_options(commands.choices)
    return parser


def commands_of(parser: Parser) -> dict[str, Parser]:
    """The parser of each command by its name."""
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def _targets(commands: Mapping[str, Parser]) -> None:
    demo = commands["demo"]
    demo.add_argument("--trials", type=int, default=24, help="trials to run (default: 24)")
    sandboxes = ("auto", "bwrap", "process")
    demo.add_argument("--sandbox", choices=sandboxes, default="auto", help="default: bwrap, else process")
    demo.add_argument("--seed", type=int, default=0, help="seed of the session (default: 0)")

    init = commands["init"]
    init.add_argument("directory", type=Path, metavar="DIR", help="a new folder")
    presets = ("demo", "cpu", "gpu")
    init.add_argument("--preset", choices=presets, help="size of model and budget; default: by hardware")
    init.add_argument(
        "--from", dest="project", type=Path, metavar="PROJECT",
        help="write target.toml for this folder or script; DIR is the folder itself, or a new one for a copy",
    )  # fmt: skip

    trust = commands["trust"]
    trust.add_argument("directory", type=Path, metavar="DIR", help="folder with a target.toml, or a run directory")

    prepare = commands["prepare"]
    prepare.add_argument("--target", default=".", help="folder with a target.toml (default: .)")
    prepare.add_argument("--data", help="a txt, jsonl or parquet file, a folder of them, or hub:OWNER/NAME")
    prepare.add_argument("--verify", action="store_true", help="check the hash of every prepared file")


def _sessions(commands: Mapping[str, Parser]) -> None:
    run = commands["run"]
    run.usage, run.epilog = "overnight run [OPTIONS]", EXAMPLES
    add_settings(run, settings_without(), config=True)
    run.add_argument("--dry-run", action="store_true", help="check everything, print the plan, and start nothing")

    resume = commands["resume"]
    resume.usage = "overnight resume TAG [OPTIONS]"
    # no --budget: values measured under two budgets cannot be compared
    add_settings(resume, settings_without("tag", "runs", "budget"))

    stop = commands["stop"]
    stop.add_argument("--now", action="store_true", help="end at once; the next resume repeats the running trial")


def _views(commands: Mapping[str, Parser]) -> None:
    log = commands["log"]
    log.add_argument("--all", action="store_true", help="list every trial; implied by the filters below")
    log.add_argument("--status", default="", help="trials with this status or decision: ok, revert, oom, …")
    log.add_argument("--source", default="", help="trials from this source: llm, cma, tpe, …")
    log.add_argument("--text", default="", help="trials with this text in subject, reason or changed lines")

    show = commands["show"]
    show.add_argument("number", type=int, metavar="N", help="number of the trial")

    diff = commands["diff"]
    for name in "ab":
        diff.add_argument(name, metavar=name.upper(), help="number of a trial, baseline, or head")

    serve = commands["serve"]
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8765, metavar="N", help="port; 0: any free one (default: 8765)")
    serve.add_argument("--token", default="", help="secret that a browser must know; needed beyond this machine")


def _branches(commands: Mapping[str, Parser]) -> None:
    branch = commands["branch"]
    branch.add_argument("--squash", action="store_true", help="one commit for all edits")
    branch.add_argument("--pick", type=int, nargs="+", metavar="N", help="only these trials (default: every kept one)")
    branch.add_argument(
        "--only-held", nargs="?", const="", metavar="NAME",
        help="only the edits that held in a promotion (default: promote-TAG); both gains in the messages",
    )  # fmt: skip
    branch.add_argument("--onto", default="", metavar="REF", help="commit to start from (default: the baseline)")
    branch.add_argument("--name", default="", help="name of the branch (default: autoresearch/TAG-clean)")

    export = commands["export"]
    formats = ("tsv", "csv", "json", "optuna", "parquet")
    export.add_argument("--format", choices=formats, default="tsv", help="default: tsv")
    export.add_argument("--output", type=Path, metavar="FILE", help="default: stdout; needed for optuna and parquet")
    add_settings(export, ["track"])

    ideas = commands["ideas"]
    ideas.add_argument("name", metavar="NAME", nargs="?", help="show this idea; default: list all")
    ideas.add_argument("--target", metavar="DIR", help="folder with a target.toml (default: . if it has one)")


def _train_again(commands: Mapping[str, Parser]) -> None:
    also = ("seed", "workers", "ray_address")  # settings that do not come from the session
    replay = commands["replay"]
    replay.usage = "overnight replay TAG|BRANCH|A..B [OPTIONS]"
    replay.add_argument(
        "what", metavar="TAG|BRANCH|A..B", help="a session, or a branch or range of the target's repository"
    )
    replay.add_argument("--seeds", type=int, help="runs per commit (default: 3; with --exact 1)")
    replay.add_argument("--exact", action="store_true", help="use the recorded schedule, seed and threads: same bits")
    replay.add_argument(
        "--ablate", action="store_true", help="also measure without each edit; put the edits that hold on TAG-minimal"
    )
    replay.add_argument("--check", action="store_true", help="exit with 1 if the branch does not reproduce")
    replay.add_argument("--name", default="", help="name of the replay's folder (default: replay-TAG)")
    replay.add_argument("--results", type=Path, metavar="FILE.tsv", help="recorded values of a branch without trailers")
    replay.add_argument("--yes", action="store_true", help="start without asking on a terminal")
    replayed = ("target", "sandbox", "image", "python", "device", "threads", "budget")
    add_settings(replay, (*replayed, *also), replayed)

    promote = commands["promote"]
    promote.add_argument("edits", nargs="*", metavar="COMMIT", help="kept edits, by commit or trial (default: all)")
    promote.add_argument(
        "--set", action="append", default=[], dest="values", metavar="NAME=VALUE[,VALUE]",
        help="value of the hyperparameter block; several values are several settings",
    )  # fmt: skip
    promote.add_argument(
        "--budget", default="", dest="budgets", metavar="BUDGET[,BUDGET]",
        help="training per run (default: the session's)",
    )  # fmt: skip
    promote.add_argument("--seeds", type=int, default=8, help="pairs of runs for each edit at most (default: 8)")
    promote.add_argument("--ablate", action="store_true", help="compare the branch with and without each edit")
    promote.add_argument("--max-hours", type=float, help="start no run after this number of hours")
    promote.add_argument("--name", default="", help="name of the promotion's folder (default: promote-TAG)")
    promote.add_argument("--yes", action="store_true", help="start without asking on a terminal")
    promoted = ("target", "sandbox", "image", "device", "threads")
    add_settings(promote, (*promoted, *also), promoted)


def _comparisons(commands: Mapping[str, Parser]) -> None:
    compare = commands["compare"]
    compare.usage = "overnight compare [OPTIONS]"
    compare.add_argument("--methods", metavar="A,B,…", help="methods to compare (default: cma-es,tpe,random)")
    compare.add_argument("--seeds", type=int, metavar="N", help="sessions per method (default: 3)")
    compare.add_argument("--tag", default="", help="name of the comparison; an existing comparison continues")
    compare.add_argument("--csv", action="store_true", help="print CSV, one line per session")
    add_settings(compare, settings_without("tag", "proposer", "seed", "hours", "until", "detach"), config=True)

    judge = commands["judge"]
    judge.add_argument("file", type=Path, metavar="FILE.tsv")
    judge.add_argument("--noise-sd", type=float, required=True, help="standard deviation between runs of one commit")
    judge.add_argument("--policy", default="confirm", choices=("confirm", "margin", "greedy"), help="default: confirm")


def _machine(commands: Mapping[str, Parser]) -> None:
    llm = commands["llm"]
    llm.usage = "overnight llm serve MODEL [OPTIONS] [-- OPTIONS OF VLLM]"
    llm.add_argument("action", choices=("serve",), metavar="serve")
    llm.add_argument("model", metavar="MODEL", help="name on the hub, or a folder")
    llm.add_argument("--vllm", metavar="PATH", help="executable of vLLM (default: OVERNIGHT_VLLM, else on PATH)")
    llm.add_argument("--port", type=int, default=8000, help="default: 8000")
    llm.add_argument("--host", default="127.0.0.1", help="a loopback address (default: 127.0.0.1)")
    llm.add_argument(
        "--gpu-memory-utilization", type=float, metavar="SHARE",
        help="share of the GPU's memory (default: 0.9; 0.3 without sleep mode)",
    )  # fmt: skip
    llm.add_argument("--max-model-len", type=int, metavar="TOKENS", help="context window (default: the model's)")
    llm.add_argument(
        "--sleep", action=argparse.BooleanOptionalAction, help="vLLM's sleep mode (default: if nvidia-smi lists a GPU)"
    )
    llm.add_argument("--log", type=Path, metavar="FILE", help="vLLM's output (default: CACHE/llm/vllm-PORT.log)")

    clean = commands["clean"]
    for flag, unit, what in (("--older-than", "DAYS", "age"), ("--larger-than", "MB", "size")):
        text = f"only files of at least this {what} (default: 0)"
        clean.add_argument(flag, type=float, default=0.0, metavar=unit, help=text)
    clean.add_argument("--dry-run", action="store_true", help="list the files and remove nothing")

    doctor = commands["doctor"]
    doctor.add_argument("--sandbox", action="store_true", help="also test the isolation of this machine's sandbox")
    url = Settings.llm_base_url
    doctor.add_argument("--llm-base-url", default=url, help=f"model server to check (default: {url})")
    doctor.add_argument("--target", type=Path, metavar="DIR", help="also check the imports of this target")
    doctor.add_argument("--python", default="", metavar="PATH", help="interpreter of trials (default: as in a session)")
