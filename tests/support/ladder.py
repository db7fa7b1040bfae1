"""A target whose edits add up: a switch for each idea of its bank, and noise by seed that all commits share in part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from targets import TOML, git

SIGMA = 0.002  # standard deviation of a run
WORTH = (3, -2, 0, 2, -3, 0, 4, -2, -2, 3, 0, -4)  # gain of each switch, in SIGMA

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


def source(worth: Sequence[float] = WORTH) -> str:
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
print(f"val_bpb: {{3.0 + {SIGMA} * (noise - sum(a * b for a, b in zip(ON, WORTH))):.6f}}", flush=True)
'''


def make_ladder(folder: Path, worth: Sequence[float] = WORTH, more: Mapping[str, str] | None = None) -> Path:
    """A git repository with the target and its bank: an idea for each switch, in order, then ``more`` (name: diff)."""
    ideas = {f"switch {k}": f"-S{k} = 0  # switch {k}\n+S{k} = 1  # switch {k}" for k in range(len(worth))}
    (folder / "ideas").mkdir(parents=True)
    (folder / "train.py").write_text(source(worth))
    (folder / "target.toml").write_text(TOML.split("[[hyperparameters]]")[0])
    for at, (name, diff) in enumerate({**ideas, **(more or {})}.items()):
        text = _IDEA.format(name=name, expected=f"{0.99 * 0.5**at:.12f}", diff=diff)
        (folder / "ideas" / f"{at:02d}.md").write_text(text)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Begin")
    return folder
