"""Share of a night that is not training, with a remote model that answers after 30 s: python -m benchmarks.waiting

Training and the model run 60 times faster than in the simulated night: the trainer sleeps 5 s, the model 0.5 s. Their
times are multiplied by 60; the time of the agent is counted once. Measured with and without asking ahead. The goal:
waiting plus overhead at most 3 % of the night.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean

from agent.ledger.events import Observed
from agent.ledger.journal import Ledger, read
from agent.ledger.state import fold
from agent.llm.chat import Answers, Message
from agent.observers.protocol import Observer
from agent.patch.apply import unified_diff
from agent.proposers.code.proposer import CodeProposer
from agent.rundir.directory import RunDirectory
from agent.rundir.stop import Stopper
from agent.session import setup as launch
from agent.session.parts import assemble
from agent.settings import make_settings
from agent.workers.runtime import find_workers
from benchmarks.idle_target import TRAIN, make_target

SPEED = 60.0  # simulated seconds per second
TRAINING, ANSWER = 300.0, 30.0  # simulated seconds
NAP = f"import time\n\ntime.sleep({TRAINING / SPEED})\n"


def answer_of(source: str) -> Callable[[Sequence[Message]], str]:
    """Replies with worse and worse edits, each after the answer time: nothing is kept, as in most trials."""
    rates = itertools.count(1.0)

    def answer(_messages: Sequence[Message]) -> str:
        time.sleep(ANSWER / SPEED)
        rate = next(rates)
        diff = unified_diff(source, source.replace("RATE = 0.01", f"RATE = {rate:g}"), "train.py")
        return f"Category: optimiser\nSubject: Raise the rate to {rate:g}\nRationale: None.\n\n```diff\n{diff}```\n"

    return answer


class RemoteModel(Answers):
    """A model on another machine, so that a request does not slow the trial down."""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return 1000


def night(root: Path, trials: int, ahead: str) -> tuple[float, float, float]:
    """Simulated seconds per trial: training, waiting for the model, and the agent's own time."""
    target = make_target(root / f"target-{ahead}", TRAIN + NAP)
    given = {"target": str(target), "runs": str(root / "runs"), "tag": ahead, "trials": trials, "sandbox": "process",
             "device": "cpu", "policy": "greedy", "calibrate": 1, "proposer": "random"}  # fmt: skip
    parts = assemble(make_settings(given, None), lambda _words: None)
    settings = dataclasses.replace(parts.settings, proposer="code", ask_ahead=ahead)
    proposer = CodeProposer(RemoteModel(answer_of(TRAIN + NAP)))
    parts = dataclasses.replace(parts, settings=settings, proposer=proposer, ahead=ahead == "on")
    directory = RunDirectory(root / "runs", ahead)
    directory.create(launch.record_of(parts))
    stopper = Stopper(directory)
    workers = find_workers(parts, str(directory.path.resolve()), stopper.now)
    with directory.lock(), Ledger(directory.ledger) as ledger, closing(workers):
        ledger.append(launch.session_event(parts, directory))
        launch.run(parts, workers, stopper, ledger, Observer())
    events = read(directory.ledger)
    ended = {event.trial: event.time for event in events if isinstance(event, Observed)}
    records = fold(events).finished
    counted = records[2:]  # the first trial always waits for its idea
    whole = (ended[records[-1].number] - ended[records[1].number]) / len(counted)
    asking = fmean(record.asking for record in counted)
    agent = whole - asking - TRAINING / SPEED
    return TRAINING, asking * SPEED, agent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting", description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for ahead in ("off", "on"):
            training, waiting, agent = night(Path(name), given.trials, ahead)
            share = (waiting + agent) / (training + waiting + agent)
            print(
                f"asking ahead {ahead:3}  waiting {waiting:5.1f} s   agent, python included, {agent:.2f} s   "
                f"together {share:.1%} of the night",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
