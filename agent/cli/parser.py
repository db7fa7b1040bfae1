"""Every command of the command line with its options. The module of a command loads when the command runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent import __version__
from agent.cli.options import Parser, command, option, settings, settings_without
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

# options of several commands
TAG = option("tag", metavar="TAG", help="name of the session")
NEWEST = option("tag", metavar="TAG", nargs="?", help="name of the session; default: the newest")
JSON = option("--json", action="store_true", help="print JSON; schema in docs/reference/json.md")
RUNS = option("--runs", metavar="DIR", default=Settings.runs, help="folder of the run directories (default: runs)")
CACHE = option(
    "--cache", metavar="DIR", default=Settings.cache, help=f"folder of prepared data (default: {Settings.cache})"
)
MOVED = option("--target", metavar="DIR", help="folder of the target, if it moved since the session")
YES = option("--yes", action="store_true", help="start without asking on a terminal")
# accepted without effect: scripts may pass them, since earlier versions offered them
NO_RUNS = option("--runs", dest="unused", help=argparse.SUPPRESS)
NO_CACHE = option("--cache", dest="unused", help=argparse.SUPPRESS)
# settings of a replay or promotion: those of the session by default, and others
AGAIN, ALSO = ("target", "sandbox", "image", "device", "threads"), ("seed", "workers", "ray_address")

COMMANDS = (  # in the order of the help
    command(
        "demo", "demo:demo", "run a complete short session on a CPU, without Docker or a model server", RUNS, CACHE,
        option("--trials", type=int, default=24, help="trials to run (default: 24)"),
        option("--sandbox", choices=("auto", "bwrap", "process"), default="auto", help="default: bwrap, else process"),
        option("--seed", type=int, default=0, help="seed of the session (default: 0)"),
    ),
    command(
        "init", "init:init", "make a git repository with the nanoGPT target, or a target.toml for an existing project",
        option("directory", type=Path, metavar="DIR", help="a new folder"),
        option("--preset", choices=("demo", "cpu", "gpu"), help="size of model and budget; default: by hardware"),
        option(
            "--from", dest="project", type=Path, metavar="PROJECT",
            help="write target.toml for this folder or script; DIR is the folder itself, or a new one for a copy",
        ),
    ),
    command(
        "trust", "init:trust",
        "let a target.toml or a copied run directory choose sandbox, model server, mounts and other protected settings",
        option("directory", type=Path, metavar="DIR", help="folder with a target.toml, or a run directory"),
    ),
    command(
        "prepare", "init:prepare", "prepare data and tokenizer of a target", CACHE, NO_RUNS,
        option("--target", default=".", help="folder with a target.toml (default: .)"),
        option("--data", help="a txt, jsonl or parquet file, a folder of them, or hub:OWNER/NAME"),
        option("--verify", action="store_true", help="check the hash of every prepared file"),
    ),
    command(
        "run", "run:run", "start a session",
        settings(settings_without(), config=True),
        option("--dry-run", action="store_true", help="check everything, print the plan, and start nothing"),
        usage="overnight run [OPTIONS]", epilog=EXAMPLES,
    ),
    command(
        "resume", "run:resume", "continue a session after any interruption", TAG, RUNS,
        settings(settings_without("tag", "runs", "budget")),
        usage="overnight resume TAG [OPTIONS]",
    ),
    command(
        "stop", "stop:stop", "end a session, replay or promotion after its running trial", TAG, RUNS, NO_CACHE,
        option("--now", action="store_true", help="end at once; the next resume repeats the running trial"),
    ),
    command("list", "review:list_runs", "list the sessions", JSON, RUNS, NO_CACHE),
    command("status", "review:status", "show one session at a glance", NEWEST, JSON, RUNS, NO_CACHE),
    command(
        "log", "review:log", "list the kept edits of a session", NEWEST, JSON, RUNS, NO_CACHE,
        option("--all", action="store_true", help="list every trial; implied by the filters below"),
        option("--status", default="", help="trials with this status or decision: ok, revert, oom, …"),
        option("--source", default="", help="trials from this source: llm, cma, tpe, …"),
        option("--text", default="", help="trials with this text in subject, reason or changed lines"),
    ),
    command(
        "show", "review:show_attempt", "show one trial: diff, reason, loss curve, failure",
        NEWEST, JSON, RUNS, NO_CACHE,
        option("number", type=int, metavar="N", help="number of the trial"),
    ),
    command(
        "diff", "review:diff", "compare two trials of a session: values and changed lines", TAG, JSON, MOVED, RUNS,
        *(option(name, metavar=name.upper(), help="number of a trial, baseline, or head") for name in "ab"),
    ),
    command(
        "report", "report:report",
        "write report.html and progress.png of a session, or the page of a replay or promotion",
        NEWEST, RUNS, NO_CACHE,
    ),
    command("watch", "watch:watch", "show a session, replay or promotion live; q quits and it continues", NEWEST, RUNS),
    command(
        "serve", "watch:serve", "show all sessions of a folder on a live, read-only page", RUNS,
        option("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"),
        option("--port", type=int, default=8765, metavar="N", help="port; 0: any free one (default: 8765)"),
        option("--token", default="", help="secret that a browser must know; needed beyond this machine"),
    ),
    command("mcp", "mcp:serve", "let an agent in an editor read sessions and stop them (MCP over stdio)", RUNS),
    command(
        "branch", "branch:branch", "make a clean branch of the kept edits, for a pull request", TAG, MOVED, RUNS,
        option("--squash", action="store_true", help="one commit for all edits"),
        option("--pick", type=int, nargs="+", metavar="N", help="only these trials (default: every kept one)"),
        option(
            "--only-held", nargs="?", const="", metavar="NAME",
            help="only the edits that held in a promotion (default: promote-TAG); both gains in the messages",
        ),
        option("--onto", default="", metavar="REF", help="commit to start from (default: the baseline)"),
        option("--name", default="", help="name of the branch (default: autoresearch/TAG-clean)"),
    ),
    command(
        "export", "export:export",
        "print the trials of a session as tsv, csv or json, write a file for Optuna or Parquet, or send them to a "
        "tracker",
        NEWEST, RUNS,
        option("--format", choices=("tsv", "csv", "json", "optuna", "parquet"), default="tsv", help="default: tsv"),
        option("--output", type=Path, metavar="FILE", help="default: stdout; needed for optuna and parquet"),
        settings(["track"]),
    ),
    command(
        "ideas", "ideas:ideas", "list the idea bank, or show one idea", JSON,
        option("name", metavar="NAME", nargs="?", help="show this idea; default: list all"),
        option("--target", metavar="DIR", help="folder with a target.toml (default: . if it has one)"),
    ),
    command(
        "replay", "replay:replay", "train the commits of a branch again and compare with the recorded values",
        JSON, RUNS, CACHE,
        option("what", metavar="TAG|BRANCH|A..B", help="a session, or a branch or range of the target's repository"),
        option("--seeds", type=int, help="runs per commit (default: 3; with --exact 1)"),
        option("--exact", action="store_true", help="use the recorded schedule, seed and threads: same bits"),
        option(
            "--ablate", action="store_true",
            help="also measure without each edit; put the edits that hold on TAG-minimal",
        ),
        option("--check", action="store_true", help="exit with 1 if the branch does not reproduce"),
        option("--name", default="", help="name of the replay's folder (default: replay-TAG)"),
        option("--results", type=Path, metavar="FILE.tsv", help="recorded values of a branch without trailers"),
        YES,
        settings(ALSO, own=(*AGAIN, "python", "budget")),
        usage="overnight replay TAG|BRANCH|A..B [OPTIONS]",
    ),
    command(
        "promote", "replay:promote", "train the kept edits at a larger size or budget, and show which of them hold",
        TAG, JSON, RUNS, CACHE,
        option("edits", nargs="*", metavar="COMMIT", help="kept edits, by commit or trial (default: all)"),
        option(
            "--set", action="append", default=[], dest="values", metavar="NAME=VALUE[,VALUE]",
            help="value of the hyperparameter block; several values are several settings",
        ),
        option(
            "--budget", default="", dest="budgets", metavar="BUDGET[,BUDGET]",
            help="training per run (default: the session's)",
        ),
        option("--seeds", type=int, default=8, help="pairs of runs for each edit at most (default: 8)"),
        option("--ablate", action="store_true", help="compare the branch with and without each edit"),
        option("--max-hours", type=float, help="start no run after this number of hours"),
        option("--name", default="", help="name of the promotion's folder (default: promote-TAG)"),
        YES,
        settings(ALSO, own=AGAIN),
    ),
    command(
        "compare", "compare:compare", "compare methods over several seeds under one budget, with significance tests",
        JSON,
        option("--methods", metavar="A,B,…", help="methods to compare (default: cma-es,tpe,random)"),
        option("--seeds", type=int, metavar="N", help="sessions per method (default: 3)"),
        option("--tag", default="", help="name of the comparison; an existing comparison continues"),
        option("--csv", action="store_true", help="print CSV, one line per session"),
        settings(settings_without("tag", "proposer", "seed", "hours", "until", "detach"), config=True),
        usage="overnight compare [OPTIONS]",
    ),
    command(
        "judge", "judge:judge", "apply an acceptance policy to the keeps of a published results.tsv", JSON,
        option("file", type=Path, metavar="FILE.tsv"),
        option("--noise-sd", type=float, required=True, help="standard deviation between runs of one commit"),
        option("--policy", default="confirm", choices=("confirm", "margin", "greedy"), help="default: confirm"),
    ),
    command(
        "llm", "llm:serve", "run a vLLM server for this machine's sessions and restart it if it fails", CACHE,
        option("action", choices=("serve",), metavar="serve"),
        option("model", metavar="MODEL", help="name on the hub, or a folder"),
        option("--vllm", metavar="PATH", help="executable of vLLM (default: OVERNIGHT_VLLM, else on PATH)"),
        option("--port", type=int, default=8000, help="default: 8000"),
        option("--host", default="127.0.0.1", help="a loopback address (default: 127.0.0.1)"),
        option(
            "--gpu-memory-utilization", type=float, metavar="SHARE",
            help="share of the GPU's memory (default: 0.9; 0.3 without sleep mode)",
        ),
        option("--max-model-len", type=int, metavar="TOKENS", help="context window (default: the model's)"),
        option(
            "--sleep", action=argparse.BooleanOptionalAction,
            help="vLLM's sleep mode (default: if nvidia-smi lists a GPU)",
        ),
        option("--log", type=Path, metavar="FILE", help="vLLM's output (default: CACHE/llm/vllm-PORT.log)"),
        usage="overnight llm serve MODEL [OPTIONS] [-- OPTIONS OF VLLM]",
    ),
    command(
        "clean", "clean:clean", "remove bulky files of a session: checkpoints, logs, schedules, transcripts", TAG, RUNS,
        option(
            "--older-than", type=float, default=0.0, metavar="DAYS",
            help="only files of at least this age (default: 0)",
        ),
        option(
            "--larger-than", type=float, default=0.0, metavar="MB",
            help="only files of at least this size (default: 0)",
        ),
        option("--dry-run", action="store_true", help="list the files and remove nothing"),
    ),
    command(
        "doctor", "doctor:doctor", "check GPU, Docker, model server, disk and git of this machine", JSON, RUNS, CACHE,
        option("--sandbox", action="store_true", help="also test the isolation of this machine's sandbox"),
        option(
            "--llm-base-url", default=Settings.llm_base_url,
            help=f"model server to check (default: {Settings.llm_base_url})",
        ),
        option("--target", type=Path, metavar="DIR", help="also check the imports of this target"),
        option("--python", default="", metavar="PATH", help="interpreter of trials (default: as in a session)"),
    ),
)  # fmt: skip


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
    for add_to in COMMANDS:
        add_to(commands)
    return parser


def commands_of(parser: Parser) -> dict[str, Parser]:
    """The parser of each command by its name."""
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)
