"""Synthetic run directories, without training: `python tests/support/nights.py DIR --trials 60`.

A night is a random walk with true effects and noise between runs. Its events are written by ``Ledger``, in the order
of a session. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import random
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from agent.ledger.events import Asked, Candidate, Ended, Judged, Measured, Moved, Observed, RunStarted, SessionStarted
from agent.ledger.journal import Ledger
from agent.types import Decision, Measurement, Proposal, Verdict

BLOCK = {
    "DEPTH": 8, "ASPECT_RATIO": 64, "MATRIX_LR": 0.04, "EMBEDDING_LR": 0.6, "WEIGHT_DECAY": 0.2, "WARMDOWN_RATIO": 0.5,
    "WINDOW_PATTERN": "SSSL",
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {  # arguments of write_night
    "plain": {},
    "nothing kept": {"keeps": False},
    "nothing tried": {"trials": 0},
    "not begun": {"trials": 0, "calibration": 0},
    "all failed": {"failures": 1.0, "unran": 0.0, "trials": 6},
    "never ran": {"unran": 1.0, "trials": 6},
    "maximize": {"goal": "maximize", "metric": "accuracy"},
    "no noise": {"sd": 0.0},
    "measured once": {"calibration": 1, "keeps": False},
    "self-reported": {"self_reported": True},
    "at work": {"ended": False},
}
BODY = """
def norm(x):
    return F.rms_norm(x, (x.size(-1),))


class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        return self.down(F.relu(self.up(x)).square())
"""
CODE_EDITS = (
    ("activation", "Use GELU in the MLP", "F.relu(self.up(x)).square()", "F.gelu(self.up(x))"),
    ("architecture", "Widen the MLP to 5x", "4 * width", "5 * width"),
    ("normalisation", "Give the norm an epsilon", "(x.size(-1),))", "(x.size(-1),), eps=1e-5)"),
    ("architecture", "Gate the MLP with its own input", ".square())", ".square() * torch.sigmoid(x))"),
    ("initialisation", "Scale the down projection", "super().__init__()", "super().__init__()\n        self.g = 0.5"),
)
FAILURES = (
    ("crash", "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4096x640 and 512x2560)"),
    ("oom", "out of memory (limit 32 GB)"),
    ("diverged", "the loss was not finite at step 143"),
    ("timeout", "training took more than 360 s"),
    ("invalid", "seed pinned: equal weights under different seeds"),
)
ENDINGS = (
    ("patch_rejected", "hunk 1 does not apply: no line 'self.mlp = MLP(width)'"),
    ("no_effect", "the program stays the same"),
    ("duplicate", "the same edit as trial 2"),
)
TRACEBACK = """step 12 loss 4.8127
Traceback (most recent call last):
  File "/code/train.py", line 212, in main
    loss = model(ids)
  File "/code/train.py", line 61, in forward
    return self.down(F.relu(self.up(x)).square())
{reason}
"""


@dataclass
class Night:
    """Parameters of a synthetic night. ``effect`` scales the true effects, ``sd`` is the noise between runs."""

    trials: int = 60
    seed: int = 0
    goal: str = "minimize"
    metric: str = "val_bpb"
    sd: float = 0.0012
    effect: float = 0.004
    keeps: bool = True
    failures: float = 0.12
    unran: float = 0.06
    self_reported: bool = False
    hostile: str = ""  # added to every text from a model or a log
    ended: bool = True
    tag: str = "jun12"
    calibration: int = 4
    seconds: float = 300.0
    start: float = 1_780_000_000.0
    _now: float = field(default=0.0, repr=False)

    def clock(self) -> float:
        self._now += 0.05
        return self.start + self._now


def write_night(directory: Path, trials: int = 60, seed: int = 0, **knobs: Any) -> Path:
    """Write ``directory`` as ``runs/<tag>`` after a night, or during one with ended=False."""
    directory.mkdir(parents=True, exist_ok=True)
    night = Night(trials=trials, seed=seed, **knobs)
    _Writer(directory, night).write()
    return directory


class _Writer:
    def __init__(self, directory: Path, night: Night):
        self.directory, self.night = directory, night
        self.random = random.Random(night.seed)
        self.sign = 1 if night.goal == "maximize" else -1
        self.base = self.commit("baseline")
        self.params: dict[str, Any] = dict(BLOCK)
        self.head = self.incumbent = self.base
        self.true = {self.base: 0.62 if night.goal == "maximize" else 1.0712}
        self.values: dict[str, list[float]] = {}
        self.count = 0  # runs of the present trial

    def write(self) -> None:
        night = self.night
        (self.directory / "run.toml").write_text(run_toml(night))
        with Ledger(self.directory / "ledger.jsonl", night.clock) as self.ledger:
            self.ledger.append(SessionStarted(tag=night.tag, baseline=self.base, metric=night.metric, goal=night.goal,
                               proposer="centaur", sandbox="bwrap", policy="confirm", seed=night.seed,
                               budget=f"{night.seconds:g}s", trials=night.trials, device="cuda", target="nanogpt",
                               self_reported=night.self_reported))  # fmt: skip
            for _ in range(night.calibration):
                self.measure(0, self.base, "calibrate")
            if night.calibration:
                self.test(0, self.base)
                self.ledger.append(Observed(trial=0))
            for trial in range(1, night.trials + 1):
                self.trial(trial, half=not night.ended and trial == night.trials)
            if night.ended:
                self.ledger.append(Ended(reason=f"all {night.trials} trials done"))

    def trial(self, number: int, half: bool) -> None:
        self.count = 0
        night, draw = self.night, self.random.random()
        proposal, effect = self.propose(number)
        night._now += 4 + 20 * self.random.random()
        folder = self.directory / "trials" / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "proposal.diff").write_text(proposal.diff)
        self.ledger.append(Asked(trial=number, started=night.clock() - 4, proposal=proposal))
        if proposal.ending:
            self.ledger.append(Observed(trial=number))
            return
        commit = self.commit(f"trial {number}")
        self.true[commit] = self.true[self.incumbent] + self.sign * effect
        self.ledger.append(Candidate(trial=number, commit=commit, ref=f"refs/autoresearch/{night.tag}/{number:04d}"))
        if half:
            trace = f"trials/{number:04d}/run-1"
            self.ledger.append(RunStarted(trial=number, commit=commit, role="screen", seed=1, trace=trace))
            return
        if draw < night.failures:
            status, reason = self.random.choice(FAILURES)
            self.measure(number, commit, "screen", status, reason + night.hostile)
            self.judge(number, commit)
            return
        self.measure(number, commit, "screen")
        if night.keeps and self.ahead(commit) > 1.5 * night.sd:
            self.measure(number, commit, "confirm")
            self.measure(number, self.incumbent, "incumbent")
            self.measure(number, commit, "confirm")
        self.judge(number, commit)

    def propose(self, number: int) -> tuple[Proposal, float]:
        """An edit and its true effect (positive is better)."""
        draw, night = self.random, self.night
        hostile, effect = night.hostile, draw.gauss(-0.5, 1.0) * night.effect
        usage = {"calls": 1, "tokens_in": 5200.0, "tokens_out": 640.0, "seconds": 6.5}
        common: dict[str, Any] = {"proposer": "centaur", "parent": self.head, "model": "qwen3-27b"}
        if draw.random() < night.unran:
            ending, reason = draw.choice(ENDINGS)
            return Proposal(diff="", source="llm", subject=f"Reorder the blocks{hostile}", ending=ending,
                            reason=reason + hostile, usage=usage, **common), effect  # fmt: skip
        if draw.random() < 0.35:
            category, subject, old, new = draw.choice(CODE_EDITS)
            before = render(self.params)
            diff = unified(before, before.replace(old, new + (f"  # {hostile}" if hostile else "")))
            rationale = (
                f"{subject}: at this width the gradient through the MLP is the narrowest path, and the last three "
                f"keeps all loosened it.\n\nExpected gain about {abs(effect):.3f}.{hostile}"
            )
            return Proposal(diff=diff, source="llm", subject=subject + hostile, rationale=rationale, category=category,
                            usage=usage, **common), effect  # fmt: skip
        params = dict(self.params)
        for name in draw.sample(["MATRIX_LR", "EMBEDDING_LR", "WEIGHT_DECAY", "WARMDOWN_RATIO"], 2):
            params[name] = round(min(1.0, max(0.005, params[name] * math.exp(draw.gauss(0, 0.25)))), 4)
        if draw.random() < 0.2:
            params["DEPTH"] = draw.randint(6, 12)
        changed = [f"{k} {self.params[k]} → {v}" for k, v in params.items() if self.params[k] != v]
        source = "llm" if draw.random() < 0.3 else "cma"
        step = 0.1 * 0.98**number
        search = {"generation": float(number // 11), "step": step, "longest": 1.4 * step, "shortest": 0.6 * step,
                  "model_share": 0.3 + 0.2 * math.sin(number / 9)}  # fmt: skip
        return Proposal(diff=unified(render(self.params), render(params)), source=source, params=params,
                        subject=", ".join(changed)[:90] or "the same point", category="hyperparameters",
                        rationale="" if source == "cma" else f"Move along the best direction so far.{hostile}",
                        usage=usage if source == "llm" else {}, search=search, **common), effect  # fmt: skip

    def measure(self, trial: int, commit: str, role: str, status: str = "ok", reason: str = "") -> None:
        night, draw = self.night, self.random
        self.count += 1
        trace = f"trials/{trial:04d}/run-{self.count}"
        seed = draw.randrange(1 << 31)
        self.ledger.append(RunStarted(trial=trial, commit=commit, role=role, seed=seed, trace=trace))
        ok = status == "ok"
        value = round(self.true[commit] + draw.gauss(0, 1) * night.sd, 6) if ok else None
        trained = night.seconds if ok or status == "invalid" else night.seconds * draw.random()
        seconds = {"startup": round(11 + 3 * draw.random(), 3), "training": round(trained, 3)}
        if ok:
            seconds["scoring"] = round(13 + 2 * draw.random(), 3)
            self.values.setdefault(commit, []).append(float(value or 0.0))
        night._now += sum(seconds.values())
        folder = self.directory / trace
        folder.mkdir(parents=True, exist_ok=True)
        self.write_curve(folder / "curve.jsonl", value, trained / night.seconds)
        log = TRACEBACK.format(reason=reason) if status == "crash" else f"step 140 loss 3.2\n{reason}\n"
        (folder / "train.log").write_text("step 1 loss 9.01\n" * 5 + ("" if ok else log))
        self.ledger.append(Measured(trial=trial, measurement=Measurement(
            commit, role, seed, "cuda", status, value, metrics={"steps": 900, "tokens": 118e6},
            seconds=seconds, peak_memory_gb=round(21 + 8 * draw.random(), 2), reason=reason,
            log_tail="" if ok else log, self_reported=night.self_reported, trace=trace)))  # fmt: skip

    def test(self, trial: int, commit: str) -> None:
        if self.night.self_reported:
            return
        value = round(self.true[commit] * 1.012 + self.random.gauss(0, 1) * self.night.sd, 6)
        trace = f"trials/{trial:04d}/run-1"
        run = Measurement(commit, "test", 1, "cuda", "ok", value, seconds={"training": 300.0}, trace=trace)
        self.ledger.append(Measured(trial=trial, measurement=run))

    def judge(self, number: int, commit: str) -> None:
        mine, theirs = self.values.get(commit, []), self.values.get(self.incumbent, [])
        best = fmean(theirs) if theirs else None
        if not mine:
            verdict = Verdict("revert", None, best, None, None, 0, len(theirs), 0, "it failed")
        else:
            gain = self.ahead(commit)
            se = self.night.sd * math.sqrt(1 / len(mine) + 1 / max(1, len(theirs)))
            keep = self.night.keeps and len(mine) > 2 and gain > 1.7 * se
            why = "the gain is real" if keep else "no better than the noise allows"
            decision: Decision = "keep" if keep else "revert"
            dof = self.night.calibration - 1
            verdict = Verdict(decision, fmean(mine), best, gain, round(se, 6), len(mine), len(theirs), dof, why)
        if verdict.decision == "keep":
            self.test(number, commit)
        self.ledger.append(Judged(trial=number, verdict=verdict))
        if verdict.decision == "keep":
            self.incumbent, self.head = commit, self.commit(f"accepted {number}")
            self.ledger.append(Moved(trial=number, commit=self.head))
            record = self.ledger.state.records[-1]
            self.params = {**self.params, **(record.proposal.params or {})}
        self.ledger.append(Observed(trial=number))

    def ahead(self, commit: str) -> float:
        theirs = self.values.get(self.incumbent) or [self.true[self.incumbent]]
        return round(self.sign * (fmean(self.values[commit]) - fmean(theirs)), 6)

    def write_curve(self, path: Path, value: float | None, reach: float, points: int = 120) -> None:
        end = (value if value is not None and value > 0.5 else 1.08) * 2.9
        with path.open("w") as file:
            for k in range(1, max(2, round(points * reach)) + 1):
                progress = k / points
                loss = end + 6.0 * math.exp(-7 * progress) + self.random.gauss(0, 0.02)
                point = {"step": k * 8, "progress": round(progress, 4), "loss": round(loss, 5), "seconds": k * 2.5}
                file.write(json.dumps(point) + "\n")

    def commit(self, name: str) -> str:
        return f"{random.Random(f'{self.night.seed}/{name}').getrandbits(160):040x}"


def render(params: dict[str, Any]) -> str:
    lines = [f"{name} = {value!r}" for name, value in params.items()]
    return "import torch\n\n# hyperparameters\n" + "\n".join(lines) + "\n# end of hyperparameters\n" + BODY


def unified(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), "a/train.py", "b/train.py")
    return re.sub(r"^(---|\+\+\+) (\S+)\t?$", r"\1 \2", "".join(lines), flags=re.M)


def run_toml(night: Night) -> str:
    return f"""started = "2026-06-12T22:04:11+0000"

[run]
tag = "{night.tag}"
target = "/home/user/nanogpt"
proposer = "centaur"
sandbox = "bwrap"
policy = "confirm"
trials = {night.trials}
seed = {night.seed}
calibrate = {night.calibration}

[target]
name = "nanogpt"
metric = "{night.metric}"
goal = "{night.goal}"
editable = ["train.py"]

[versions]
python = "3.12.4"
overnight = "0.1.0"
torch = "2.13.0"
numpy = "2.4.6"

[hardware]
machine = "x86_64"
cores = 26
gpus = ["NVIDIA H200"]

[data]
hash = "5f0c1ab2d4e8"
train = 118000000
validation = 2100000
test = 2100000
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the run directory of a synthetic night.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--goal", choices=("minimize", "maximize"), default="minimize")
    parser.add_argument("--sd", type=float, default=0.0012)
    parser.add_argument("--self-reported", action="store_true")
    parser.add_argument("--no-keeps", action="store_true")
    parser.add_argument("--unfinished", action="store_true")
    given = parser.parse_args()
    if (given.directory / "ledger.jsonl").exists():
        sys.exit(f"{given.directory} holds a run already.")
    write_night(given.directory, given.trials, given.seed, goal=given.goal, sd=given.sd, keeps=not given.no_keeps,
                self_reported=given.self_reported, ended=not given.unfinished)  # fmt: skip


if __name__ == "__main__":
    main()
