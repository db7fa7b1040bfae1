"""The command line: parses, dispatches, and turns every error into one message and the documented exit status.

Only the standard library is imported here; each command loads what it needs when it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from agent import __version__
from agent.settings import Settings

Command = Callable[[str, str, str], argparse.ArgumentParser]  # name, help, function to a parser

EPILOG = """exit status: 0 done, 1 failed, 2 usage or configuration, 3 environment (no daemon, no model server),
130 interrupted; data goes to stdout, progress to stderr"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="overnight",
        description="Runs a code-editing research agent through the night, and keeps only edits that hold up.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"overnight {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str, function: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        sub.set_defaults(function=function)
        return sub

    demo = command("demo", "a complete short session on a CPU: no Docker, no model server", "agent.cli.run:demo")
    demo.add_argument("--trials", type=int, default=24, help="trials to run (default: 24)")
    demo.add_argument(
        "--sandbox", choices=("auto", "bwrap", "process"), default="auto", help="default: bwrap, else process"
    )
    demo.add_argument("--seed", type=int, default=0, help="seed of the session (default: 0)")
    add_places(demo)

    init = command(
        "init",
        "a fresh git repository with the nanoGPT target, or a target.toml for a project that exists",
        "agent.cli.init:init",
    )
    init.add_argument("directory", type=Path, metavar="DIR")
    init.add_argument("--preset", choices=("demo", "cpu", "gpu"), help="size of model and budget; default: by hardware")
    init.add_argument(
        "--from", dest="project", type=Path, metavar="PROJECT",
        help="write target.toml for this folder or script instead; DIR is the folder itself, or a new one for a copy",
    )  # fmt: skip

    prepare = command("prepare", "prepare data and tokenizer of a target", "agent.cli.init:prepare")
    prepare.add_argument("--target", default=".", help="folder with a target.toml (default: .)")
    prepare.add_argument("--data", help="a txt, jsonl or parquet file, a folder of them, or hub:OWNER/NAME")
    prepare.add_argument("--verify", action="store_true", help="check the hash of every prepared file")
    add_places(prepare)

    add_sessions(command)
    add_reading(command)
    add_replay(command)
    add_llm(command)
    watch = command("watch", "a session as it works; q quits, and the session goes on", "agent.cli.watch:watch")
    watch.add_argument("tag", metavar="TAG", nargs="?")
    add_places(watch, cache=False)
    judge = command("judge", "which keeps of a published results.tsv would have stood", "agent.cli.judge:judge")
    judge.add_argument("file", type=Path, metavar="FILE.tsv")
    judge.add_argument("--noise-sd", type=float, required=True, help="standard deviation between runs of one commit")
    judge.add_argument("--policy", default="confirm", help="confirm, margin or greedy (default: confirm)")
    judge.add_argument("--json", action="store_true", help="for programs")

    doctor = command("doctor", "checks of GPU, Docker, model server, disk, git, data", "agent.cli.doctor:doctor")
    doctor.add_argument(
        "--sandbox", action="store_true", help="also run the contract suite against this machine's sandbox"
    )
    doctor.add_argument("--llm-base-url", default="http://127.0.0.1:8000/v1", help="model server to look for")
    doctor.add_argument("--json", action="store_true", help="for programs")
    add_places(doctor)
    return parser


def add_sessions(command: Command) -> None:
    """The commands that start sessions, go on with them, end them, and tidy up behind them."""
    run = command("run", "start a session", "agent.cli.run:run")
    add_settings(run)
    resume = command("resume", "continue a run after any interruption", "agent.cli.run:resume")
    resume.add_argument("tag", metavar="TAG")
    add_settings(resume, leave_out=("tag", "runs", "config", "budget"))  # values under two budgets cannot be compared
    add_places(resume, cache=False)
    stop = command("stop", "end a session after its running trial", "agent.cli.run:stop")
    stop.add_argument("tag", metavar="TAG")
    stop.add_argument("--now", action="store_true", help="end at once; the trial runs again at the next resume")
    add_places(stop)

    clean = command(
        "clean", "remove bulky files of a run: checkpoints, logs, traces, transcripts", "agent.cli.clean:clean"
    )
    clean.add_argument("tag", metavar="TAG")
    for flag, unit, what in (("--older-than", "DAYS", "age"), ("--larger-than", "MB", "size")):
        clean.add_argument(flag, type=float, default=0.0, metavar=unit, help=f"only files of that {what} (default: 0)")
    clean.add_argument("--dry-run", action="store_true", help="list what would go, and remove nothing")
    add_places(clean, cache=False)

    compare = command("compare", "methods × seeds under one budget: a table with tests", "agent.cli.compare:compare")
    compare.add_argument("--methods", metavar="A,B,…", help="who competes (default: cma-es,tpe,random)")
    compare.add_argument("--seeds", type=int, metavar="N", help="sessions of each method (default: 3)")
    compare.add_argument("--tag", default="", help="name of the comparison; an existing one goes on")
    compare.add_argument("--json", action="store_true", help="for programs; schema in docs/reference")
    compare.add_argument("--csv", action="store_true", help="a line for each session")
    add_settings(compare, leave_out=("tag", "proposer", "seed", "hours", "until", "detach"))


def add_replay(command: Command) -> None:
    replay = command(
        "replay", "run the commits of a branch again: recorded against replayed", "agent.cli.replay:replay"
    )
    replay.add_argument(
        "what", metavar="TAG|BRANCH|A..B", help="a run, or a branch or range of the target's repository"
    )
    replay.add_argument("--seeds", type=int, help="runs of each commit (default: 3; with --exact 1)")
    replay.add_argument(
        "--exact", action="store_true", help="follow the recorded schedule, seed and threads: same bits"
    )
    replay.add_argument(
        "--ablate", action="store_true", help="also leave out each edit; make TAG-minimal of what holds"
    )
    replay.add_argument("--check", action="store_true", help="exit with 1 if the branch does not reproduce")
    replay.add_argument("--name", default="", help="name of the replay's folder (default: replay-TAG)")
    replay.add_argument("--results", type=Path, metavar="FILE.tsv", help="recorded values of a branch without trailers")
    replay.add_argument(
        "--workers", type=int, default=1, metavar="K", help="run K commits beside each other, each on a GPU of its own"
    )
    replay.add_argument("--yes", action="store_true", help="start without asking on a terminal")
    replay.add_argument("--json", action="store_true", help="for programs; schema in docs/reference")
    add_fields(replay, ("target", "sandbox", "image", "device", "threads", "seed", "budget"))
    add_places(replay)


def add_llm(command: Command) -> None:
    llm = command("llm", "a vLLM server for this machine's sessions: started, kept up, stopped", "agent.cli.llm:serve")
    llm.usage = "overnight llm serve MODEL [flags] [-- FLAGS OF VLLM]"
    llm.add_argument("action", choices=("serve",), metavar="serve")
    llm.add_argument("model", metavar="MODEL", help="name on the hub, or a folder")
    llm.add_argument("--vllm", metavar="PATH", help="the executable of vLLM (default: OVERNIGHT_VLLM, else on PATH)")
    llm.add_argument("--port", type=int, default=8000, help="default: 8000")
    llm.add_argument("--host", default="127.0.0.1", help="an address of the loopback (default: 127.0.0.1)")
    llm.add_argument(
        "--gpu-memory-utilization", type=float, metavar="SHARE",
        help="of the GPU's memory (default: 0.9; 0.3 without sleep mode)",
    )  # fmt: skip
    llm.add_argument("--max-model-len", type=int, metavar="TOKENS", help="context window (default: the model's)")
    llm.add_argument(
        "--sleep", action=argparse.BooleanOptionalAction, help="vLLM's sleep mode (default: if nvidia-smi lists a GPU)"
    )
    llm.add_argument("--log", type=Path, metavar="FILE", help="what vLLM says (default: CACHE/llm/vllm-PORT.log)")
    llm.add_argument("--cache", default="~/.cache/overnight", help="folder of the log")


def add_reading(command: Command) -> None:
    """The commands that show what a run left."""
    for name, text in (
        ("list", "the runs"),
        ("status", "one run at a glance"),
        ("log", "accepted edits of a run"),
        ("show", "one attempt: diff, reason, curve, failure"),
        ("report", "write report.html and progress.png of a run"),
    ):
        sub = command(name, text, f"agent.cli.review:{name}_")
        if name != "list":
            sub.add_argument("tag", metavar="TAG", nargs="?", help="name of the run; default: the newest")
        if name == "show":
            sub.add_argument("number", type=int, metavar="N", help="number of the trial")
        if name == "log":
            sub.add_argument("--all", action="store_true", help="every attempt, not only kept ones; filters imply it")
            sub.add_argument("--status", default="", help="attempts with this status or decision: ok, revert, oom, …")
            sub.add_argument("--source", default="", help="attempts from this source: llm, cma, tpe, …")
            sub.add_argument("--text", default="", help="attempts with these words in subject, reason or changed lines")
        if name != "report":
            sub.add_argument("--json", action="store_true", help="for programs; schema in docs/reference")
        add_places(sub)
    diff = command("diff", "two attempts of a run: their values, and what differs", "agent.cli.review:diff")
    diff.add_argument("tag", metavar="TAG")
    for name in "ab":
        diff.add_argument(name, metavar=name.upper(), help="number of a trial, baseline, or head")
    diff.add_argument("--json", action="store_true", help="for programs; schema in docs/reference")
    branch = command("branch", "a clean branch of the kept edits, for a pull request", "agent.cli.review:branch")
    branch.add_argument("tag", metavar="TAG")
    branch.add_argument("--squash", action="store_true", help="one commit")
    branch.add_argument("--pick", type=int, nargs="+", metavar="N", help="only these trials (default: every kept one)")
    branch.add_argument("--onto", default="", metavar="REF", help="start here (default: the baseline of the run)")
    branch.add_argument("--name", default="", help="name of the branch (default: autoresearch/TAG-clean)")
    export = command("export", "the record of a run for other programs", "agent.cli.review:export")
    export.add_argument("tag", metavar="TAG", nargs="?")
    export.add_argument("--format", choices=("tsv", "csv", "json"), default="tsv", help="default: tsv")
    export.add_argument("--output", type=Path, metavar="FILE", help="default: stdout")
    for sub in (diff, branch):
        sub.add_argument("--target", help="folder of the target, if it has moved since the run")
    for sub in (diff, branch, export):
        add_places(sub, cache=False)


def add_places(parser: argparse.ArgumentParser, cache: bool = True) -> None:
    parser.add_argument("--runs", default="runs", help="folder of the run directories (default: runs)")
    if cache:
        parser.add_argument("--cache", default="~/.cache/overnight", help="folder of prepared data")


def add_settings(parser: argparse.ArgumentParser, leave_out: Sequence[str] = ()) -> None:
    """One flag for each field of ``Settings``; a flag that is not given stays out of the namespace."""
    if "config" not in leave_out:
        parser.add_argument("--config", type=Path, help="TOML file with any of these settings")
    add_fields(parser, [item.name for item in dataclasses.fields(Settings) if item.name not in leave_out])


def add_fields(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    hints = get_type_hints(Settings)
    for item in dataclasses.fields(Settings):
        if item.name not in names:
            continue
        flag = "--" + item.name.replace("_", "-")
        default = f" (default: {item.default})" if item.default not in (None, "", False) else ""
        options: dict[str, Any] = {"help": item.metadata["help"] + default, "default": argparse.SUPPRESS}
        if hints[item.name] is bool:
            on = item.default is False
            name = flag if on else "--no-" + item.name.replace("_", "-")
            text = options["help"] if on else f"not: {item.metadata['help']}"
            parser.add_argument(
                name, dest=item.name, action="store_true" if on else "store_false", default=argparse.SUPPRESS, help=text
            )
            continue
        kind = plain_type(hints[item.name])
        choices = item.metadata["choices"]
        metavar = "|".join(choices) if 0 < len(choices) < 5 else "NAME" if choices else kind.__name__.upper()
        if metavar == "NAME":
            options["help"] = f"{item.metadata['help']}: {', '.join(choices)}{default}"
        parser.add_argument(flag, type=kind, metavar=metavar, **options)


def plain_type(hint: Any) -> Callable[[str], Any]:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(a for a in get_args(hint) if a is not type(None))
    return hint  # type: ignore[no-any-return]
