"""Kill a session again and again: python -m benchmarks.kills [--kills 100] [--seed 1]

A session over a target without noise is started and resumed by the command line. Each time it is killed with SIGKILL,
after a random number of new lines in the ledger and a random delay. Kinds of kills:

- ``agent``: the agent alone, as by the out-of-memory killer;
- ``all``: the agent and every process below it, as in a power loss;
- ``torn``: the agent; the last line of the ledger is repeated in part, as a torn line;
- ``trainer``: the training process alone, so that its trial is a crash; then the agent.

In the end the session may finish. It is compared with an undisturbed session: the ledger without the fields that
tests/support/whole.py calls volatile, the branch and the attempts must be equal. (Trainers that were killed kill
themselves there.) Ledger, refs, branch and table must agree, and no process, folder or control group may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.ledger.events import name_of
from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.rundir.directory import RunDirectory
from benchmarks.idle_target import make_target
from sandbox.layout import label
from tests.support.whole import check_whole, essence, refs_of

KINDS = ("agent", "all", "torn", "trainer")
SHARES = (5, 2, 2, 1)
STARTING = 0.15  # share of kills during start-up
PATIENCE = 120.0  # seconds without progress that fail the benchmark
# It has no noise, runs long enough to be killed, and kills itself at the rates in the file ``unlucky``.
TRAIN = """import os
import pathlib
import signal
import time

# --- hyperparameters ---
RATE = 0.01
# --- end of hyperparameters ---
time.sleep(0.15)
if repr(RATE) in pathlib.Path(UNLUCKY).read_text().split():
    os.kill(os.getpid(), signal.SIGKILL)
print(f"val_bpb: {3.0 + abs(RATE - 0.1):.9f}")
"""


@dataclass
class Found:
    """What happened to one session."""

    kills: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)  # the last event on the disk at each kill
    trials: int = 0
    kept: int = 0
    lost: int = 0
    crashes: int = 0
    left: list[str] = field(default_factory=list)  # processes, temporary folders, control groups


class Night:
    """One session, its target, and a temporary folder of its own, so that what it leaves can be counted."""

    def __init__(self, root: Path, name: str, seed: int, trials: int):
        self.root, self.seed, self.trials = root, seed, trials
        self.target, self.scratch = root / f"{name}-target", root / f"{name}-tmp"
        self.scratch.mkdir()
        self.directory = RunDirectory(root / f"{name}-runs", "night")

    def live(self) -> subprocess.Popen[bytes]:
        """Start the session, or go on with it."""
        if self.directory.settings.exists():
            words = ["resume", "night", "--target", self.target]
        else:
            shutil.rmtree(self.directory.path, ignore_errors=True)  # killed before it wrote run.toml
            words = ["run", "--tag", "night", "--target", self.target, "--proposer", "cma-es", "--sandbox", "process"]
            words += ["--policy", "greedy", "--calibrate", "1", "--device", "cpu", "--threads", "1"]
            words += ["--seed", self.seed, "--trials", self.trials]
        return subprocess.Popen(
            [sys.executable, "-m", "agent.cli", *map(str, words), "--runs", self.directory.path.parent],
            env={**os.environ, "TMPDIR": str(self.scratch)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.root / "complaints").open("ab"),
        )

    def finish(self) -> None:
        status = self.live().wait()
        assert status == 0, f"exit status {status}: {(self.root / 'complaints').read_text()[-2000:]}"

    def lines(self) -> int:
        return self.directory.ledger.read_bytes().count(b"\n") if self.directory.ledger.exists() else 0

    def left(self) -> list[str]:
        """Processes, temporary folders and control groups of this session."""
        owner = label(str(self.directory.path.resolve()))
        groups = Path("/sys/fs/cgroup").glob(f"**/overnight-{owner}-*")
        return [*map(str, self.scratch.iterdir()), *map(str, groups), *_processes_of(self.root)]


def kill_often(night: Night, kills: int, draw: random.Random) -> Found:
    found = Found()
    while sum(found.kills.values()) < kills:
        kind = draw.choices(KINDS, SHARES)[0]
        agent = night.live()
        begun, lines = time.monotonic(), 0 if draw.random() < STARTING else draw.randint(1, 9)
        wanted, moment = night.lines() + lines, draw.uniform(0.0, 0.2 if lines else 1.0)
        while night.lines() < wanted and agent.poll() is None:
            assert time.monotonic() - begun < PATIENCE, "the session makes no progress"
            time.sleep(0.003)
        time.sleep(moment)
        if kind == "trainer":
            kill_trainer(night, agent)
            time.sleep(moment)
        below = _below(agent.pid) if kind == "all" else []
        agent.kill()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if agent.wait() != -signal.SIGKILL:
            said = (night.root / "complaints").read_text()[-2000:]
            raise AssertionError(f"the session ended by itself after {sum(found.kills.values())} kills: {said}")
        events = read(night.directory.ledger)
        if kind == "torn" and events:
            last = night.directory.ledger.read_bytes().splitlines()[-1]
            with night.directory.ledger.open("ab") as file:
                file.write(last[: draw.randrange(1, len(last))])
        found.kills[kind] += 1
        found.after[name_of(events[-1]) if events else "nothing"] += 1
    return found


def kill_trainer(night: Night, agent: subprocess.Popen[bytes]) -> None:
    """Kill the trainer of a trial. Without a baseline the session would end."""
    end = time.monotonic() + PATIENCE
    while agent.poll() is None:
        assert time.monotonic() < end, "no trainer was started"
        trainers = [pid for pid in _below(agent.pid) if _command(pid).endswith("train.py")]
        if trainers and fold(read(night.directory.ledger)).records:
            with contextlib.suppress(ProcessLookupError):
                os.kill(trainers[0], signal.SIGKILL)
            return
        time.sleep(0.003)


def compare(night: Night, calm: Night, found: Found) -> None:
    """Compare a killed session with an undisturbed one. Raises AssertionError if they differ."""
    check_whole(night.directory, night.target, night.trials)
    events = read(night.directory.ledger)
    state = fold(events)
    crashed = [record for record in state.records if record.status != "ok" and not record.proposal.ending]
    assert all(r.status == "crash" and r.runs[0].reason == "killed by signal 9" for r in crashed), crashed
    assert len(crashed) <= found.kills["trainer"], "a kill of the agent counts against an idea"
    (night.root / "unlucky").write_text(" ".join(repr(r.proposal.params["RATE"]) for r in crashed if r.proposal.params))
    calm.finish()
    check_whole(calm.directory, calm.target, calm.trials)
    mine, theirs = essence(events), essence(read(calm.directory.ledger))
    for one, other in zip(mine, theirs, strict=True):
        assert one == other, f"killed:    {json.dumps(one)}\nundisturbed: {json.dumps(other)}"
    assert _messages(night.target) == _messages(calm.target)
    assert sorted(refs_of(night.target)) == sorted(refs_of(calm.target))
    found.trials, found.kept, found.crashes = len(state.records), len(state.kept), len(crashed)
    found.lost = state.lost


def soak(root: Path, kills: int, seed: int) -> Found:
    """Kill a session ``kills`` times, let it finish and check it. Raises AssertionError."""
    unlucky = root / "unlucky"
    unlucky.write_text("")
    # a trial has six steps, and about three are done between two kills: the trials last longer than the kills
    night, calm = (Night(root, name, seed, trials=kills) for name in ("killed", "calm"))
    make_target(night.target, TRAIN.replace("UNLUCKY", repr(str(unlucky))))
    shutil.copytree(night.target, calm.target)
    found = kill_often(night, kills, random.Random(seed))
    night.finish()
    compare(night, calm, found)
    end = time.monotonic() + 10  # a supervisor notices the death of its agent after a moment
    while (left := night.left()) and time.monotonic() < end:
        time.sleep(0.1)
    found.left = left
    return found


def _messages(target: Path) -> str:
    words = ["git", "-C", str(target), "log", "--format=%T %B", "autoresearch/night"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _below(pid: int) -> list[int]:
    """All processes below one, nearest first."""
    found, todo = [], [pid]
    while todo:
        try:
            threads = list(Path(f"/proc/{todo.pop(0)}/task").iterdir())
            children = [int(word) for t in threads for word in (t / "children").read_text().split()]
        except OSError:
            continue
        found += children
        todo += children
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _processes_of(root: Path) -> Iterator[str]:
    """Processes with this folder in their command or as working directory."""
    for place in Path("/proc").glob("[0-9]*"):
        pid = int(place.name)
        with contextlib.suppress(OSError):
            where = str((place / "cwd").readlink())
            if pid != os.getpid() and (str(root) in _command(pid) or where.startswith(str(root))):
                yield f"process {pid}: {_command(pid)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and keep the files")
    given = parser.parse_args()
    began = time.monotonic()
    with contextlib.nullcontext(given.keep) if given.keep else tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.mkdir(parents=True, exist_ok=True)
        try:
            found = soak(root.resolve(), given.kills, given.seed)
        except AssertionError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    print(f"kills         {sum(found.kills.values())}: {_counts(found.kills)}")
    print(f"last event    {_counts(found.after)}")
    print(f"trials        {found.trials}, of them {found.kept} kept, {found.crashes} whose trainer was killed")
    print(f"runs lost     {found.lost}, and run again")
    print(f"seconds       {time.monotonic() - began:.0f}")
    print("the ledger, the branch and the attempts equal those of an undisturbed session")
    print(f"left behind   {len(found.left) or 'nothing'}", *found.left[:5], sep="\n  " if found.left else "")
    return 1 if found.left else 0


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


if __name__ == "__main__":
    raise SystemExit(main())
