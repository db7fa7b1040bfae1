"""A target whose edits add up: a switch for each idea of its bank, and noise by seed that all commits share in part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sessions import refs_of
from targets import TOML, git

from agent.ledger.events import Asked, Measured, Observed, Published
from agent.ledger.journal import read
from agent.ledger.state import State, fold
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory

SIGMA = 0.002  # standard deviation of a run
WORTH = (4, -3, 3, 0, -4, 5, -3)  # gain of each switch, in SIGMA
SETTINGS: dict[str, Any] = {"policy": "stacked", "proposer": "ideas", "calibrate": 5, "seed": 3, "trials": len(WORTH)}
GAINS = [k + 1 for k, worth in enumerate(WORTH) if worth > 0]

_IDEA = """+++
name = "{name}"
category = "optimiser"
applies = "always"
cost = "none"
interactions = []
source = "test"
expected = {expected}
+++
Turn a switch.

```diff
--- a/train.py
+++ b/train.py
@@ @@
{diff}
```
"""


def source(worth: Sequence[float] = WORTH, noise: float = SIGMA) -> str:
    """The program, with every switch off."""
    switches = "\n\n".join(f"S{k} = 0  # switch {k}" for k in range(len(worth)))
    names = ", ".join(f"S{k}" for k in range(len(worth)))
    return f'''"""A ladder of switches."""

import os
import random

{switches}

ON = [{names}]
WORTH = {list(worth)}
seed = os.environ["OVERNIGHT_SEED"]
noise = 0.8 * random.Random(seed).gauss(0, 1) + 0.6 * random.Random(f"{{seed}} {{ON}}").gauss(0, 1)
print(f"val_bpb: {{3.0 + {noise} * noise - {SIGMA} * sum(a * b for a, b in zip(ON, WORTH)):.6f}}", flush=True)
'''


def make_ladder(
    folder: Path, worth: Sequence[float] = WORTH, more: Mapping[str, str] | None = None, noise: float = SIGMA
) -> Path:
    """A git repository with the target and its bank: an idea for each switch, in order, then ``more`` (name: diff)."""
    ideas = {f"switch {k}": f"-S{k} = 0  # switch {k}\n+S{k} = 1  # switch {k}" for k in range(len(worth))}
    (folder / "ideas").mkdir(parents=True)
    (folder / "train.py").write_text(source(worth, noise))
    (folder / "target.toml").write_text(TOML.split("[[hyperparameters]]")[0])
    for at, (name, diff) in enumerate({**ideas, **(more or {})}.items()):
        text = _IDEA.format(name=name, expected=f"{0.99 * 0.5**at:.12f}", diff=diff)
        (folder / "ideas" / f"{at:02d}.md").write_text(text)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Begin")
    return folder


def check_stacked(directory: RunDirectory, target: Path, trials: int) -> State:
    """Assert that ledger, refs and results agree, and that every tree the head pointed at has run."""
    events = read(directory.ledger)
    state = fold(events)
    asked = [e.trial for e in events if isinstance(e, Asked)]
    observed = [e.trial for e in events if isinstance(e, Observed)]
    assert asked == list(range(1, trials + 1))
    assert sorted(observed) == [0, *asked]
    assert not state.started
    assert list(state.moved) == list(state.keeps)
    planned = [(stack.commit, stack.seed) for stack in state.stacks]
    measured = [(e.measurement.commit, e.measurement.seed) for e in events if isinstance(e, Measured)]
    assert sorted(planned) == sorted(pair for pair in measured if pair in planned), "a planned run is lost or doubled"
    found = refs_of(target)
    assert found["head"] == found["refs/heads/autoresearch/night"] == state.head
    repo = Repo(target)
    for record in state.records:
        suffix = f".r{record.revision}" if record.revision else ""
        assert found[f"{record.number:04d}{suffix}"] == record.candidate
    for number, stack in enumerate(state.stacks, start=1):
        assert found[f"stack/{number:04d}"] == stack.commit
    ran = {repo.commit(commit).tree for commit in state.runs}
    for event in events:
        if isinstance(event, Published):
            assert repo.commit(event.commits[-1]).tree in ran
    commits = repo.history(f"{state.baseline}..{state.head}")
    assert [commit.sha for commit in commits] == [record.accepted for record in state.kept]
    assert len(directory.results.read_text().splitlines()) == 2 + trials
    return state
