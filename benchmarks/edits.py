"""Decisions of greedy and confirm about real edits of the nanoGPT target: python -m benchmarks.edits [--rounds 4]

Twelve edits change the syntax tree but no computed bit; six have a large, known effect. Preset demo, 65,536 tokens, one
thread. ``judge`` compares each edit with the unchanged baseline on real runs, under both policies, which share the
screening run. Every round has fresh seeds. The known effects are measured separately, over ``--truth`` runs per side.
"""

from __future__ import annotations

import argparse
import ast
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import beta

from agent.cli import init as commands
from agent.judge.noise import pooled_noise
from agent.judge.paired_runs import PairedRuns
from agent.judge.policy import History, MeasureNext, Policy, judge, policy_from
from agent.ledger.events import Candidate, Event, Measured, SessionStarted
from agent.patch.normal_form import normal_form
from agent.repo.repo import Repo
from agent.settings import make_settings
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.trial.seeds import session_seed
from agent.types import Measurement, Role, Verdict
from agent.workers.runtime import workplace

Edit = tuple[tuple[str, str], ...]  # (old, new) pairs; every occurrence is replaced

NOTHING: Mapping[str, Edit] = {
    "names of the halves": (
        ("a, b = x.chunk", "u, w = x.chunk"),
        ("(a * cos + b * sin, b * cos - a * sin)", "(u * cos + w * sin, w * cos - u * sin)")),
    "order of independent lines": ((
        "    a, b = x.chunk(2, dim=-1)\n    cos, sin = cos.to(x.dtype), sin.to(x.dtype)\n",
        "    cos, sin = cos.to(x.dtype), sin.to(x.dtype)\n    a, b = x.chunk(2, dim=-1)\n"),),
    "name of the angle": (("angle", "phase"),),
    "name and order in the mask": ((
        "back = position[:, None] - position[None, :]\n    return (back >= 0) & (back < window)",
        "past = position[:, None] - position[None, :]\n    return (past < window) & (past >= 0)"),),
    "name of the rows": (
        ("rows, length, width = x.shape", "batch, length, width = x.shape"),
        ("view(rows, length,", "view(batch, length,"), ("reshape(rows, length,", "reshape(batch, length,")),
    "name of the first stream": (("first = x\n", "embedded = x\n"), ("* first\n", "* embedded\n")),
    "comparison turned round": (("tall = x.size(-2) > x.size(-1)", "tall = x.size(-1) < x.size(-2)"),),
    "betas one by one": ((
        "        b1, b2 = self.betas\n", "        b1 = self.betas[0]\n        b2 = self.betas[1]\n"),),
    "argument by name": (("learning_rate_share(progress)\n", "learning_rate_share(progress=progress)\n"),),
    "a name for the hidden layer": ((
        "        return self.down(F.relu(self.up(x)).square())",
        "        hidden = F.relu(self.up(x))\n        return self.down(hidden.square())"),),
    "order of two zeros": ((
        "nn.init.zeros_(block.attention.out.weight)\n            nn.init.zeros_(block.mlp.down.weight)",
        "nn.init.zeros_(block.mlp.down.weight)\n            nn.init.zeros_(block.attention.out.weight)"),),
    "maximum turned round": (("max(0.0, 1 - progress)", "max(1 - progress, 0.0)"),),
}  # fmt: skip
FASTER_HEAD = ("UNEMBEDDING_LR = 0.004", "UNEMBEDDING_LR = 0.012")
SMALLER_BATCH = ("TOTAL_BATCH_SIZE = 2048", "TOTAL_BATCH_SIZE = 1024")
KNOWN: Mapping[str, Edit] = {
    "faster head and smaller batch": (FASTER_HEAD, SMALLER_BATCH),
    "faster head": (FASTER_HEAD,),
    "smaller batch": (SMALLER_BATCH,),
    "matrices sixteen times slower": (("MATRIX_LR = 0.04", "MATRIX_LR = 0.0025"),),
    "logits squashed to 2": (("SOFTCAP = 15.0", "SOFTCAP = 2.0"),),
    "one block": (("DEPTH = 2", "DEPTH = 1"),),
}
CALIBRATION = 4  # runs of the baseline in each round


@dataclass
class Bench:
    """Runs of edits. Each run is made once and shared by the policies."""

    repo: Repo
    experiment: Experiment
    source: str
    baseline: str
    scratch: Path
    runs: dict[tuple[str, int], Measurement] = field(default_factory=dict)  # by commit and seed
    made: int = 0

    def commit(self, name: str, edit: Edit) -> str:
        text = edited(self.source, edit)
        return self.repo.build(self.baseline, {"train.py": text}, f"{name}\n", 1_700_000_000)

    def run(self, commit: str, seed: int) -> Measurement:
        """The run of a commit under a seed."""
        if (commit, seed) not in self.runs:
            folder = self.scratch / f"{commit[:10]}-{seed}"
            order = Order(0, commit, "screen", seed, "")
            self.runs[commit, seed] = self.experiment.measure(order, folder, lambda _phase, _info: None)
            self.made += 1
        return self.runs[commit, seed]

    def verdict(self, batch: int, commit: str, policy: Policy) -> tuple[Verdict, int]:
        """The verdict of a policy on an edit in a session with seed ``batch``, and the number of runs it requested."""
        seeds = [session_seed(batch, k) for k in range(100)]
        before = [with_role(self.run(self.baseline, seed), "calibrate") for seed in seeds[:CALIBRATION]]
        after: list[Measurement] = []
        events: list[Event] = [SessionStarted(baseline=self.baseline)]
        events += [Measured(trial=0, measurement=run) for run in before]
        events += [Candidate(trial=1, commit=commit, parent=self.baseline)]
        beliefs = PairedRuns(partial(session_seed, batch))
        while True:
            noise = pooled_noise([run.value for run in runs if run.value is not None] for runs in (before, after))
            made = len(before) + len(after) - CALIBRATION
            belief = beliefs.catch_up(events).of(before[0].device_type, 1) if after else None
            step = judge(
                History(
                    "minimize", self.baseline, commit, tuple(before), tuple(after), noise,
                    trial=1, runs=made, belief=belief, seeds=beliefs.window(0),
                ),
                policy,
            )  # fmt: skip
            if isinstance(step, Verdict):
                return step, made
            assert isinstance(step, MeasureNext)
            side = after if step.commit == commit else before
            seed = step.seed if step.seed is not None else seeds[len(side)]
            side.append(with_role(self.run(step.commit, seed), step.role))
            events.append(Measured(trial=1, measurement=side[-1]))


def with_role(run: Measurement, role: Role) -> Measurement:
    return replace(run, role=role)


def edited(source: str, edit: Edit) -> str:
    for old, new in edit:
        assert old in source, f"train.py has no {old!r}"
        source = source.replace(old, new)
    ast.parse(source)
    return source


def interval(hits: int, of: int, level: float = 0.95) -> str:
    """A share with its confidence interval. Source: Clopper and Pearson 1934."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, of - hits + 1))
    high = 1.0 if hits == of else float(beta.ppf(1 - tail, hits + 1, of - hits))
    return f"{hits} of {of} ({low:.0%} to {high:.0%})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edits", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--truth", type=int, default=6)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        commands.make_target(root / "target", "demo")
        settings = {"target": str(root / "target"), "threads": 1, "device": "cpu", "sandbox": "bwrap"}
        place = workplace(make_settings({**settings, "proposer": "random"}, None), lambda _words: None)
        (experiment,) = place.experiments("benchmark", lambda: False, 1)
        head = place.repo.head()
        source = place.repo.read(head, "train.py")
        bench = Bench(place.repo, experiment, source, head, root / "runs")
        nothing = {label: bench.commit(label, edit) for label, edit in NOTHING.items()}
        known = {label: bench.commit(label, edit) for label, edit in KNOWN.items()}
        same(bench, nothing, source)
        print(
            f"{len(nothing)} edits without effect: other syntax trees, the same value as the baseline to the last bit"
        )
        truth(bench, known, given.truth)
        for policy in (policy_from("greedy"), policy_from("confirm")):
            decide(bench, policy, nothing, known, given.rounds)
        print(f"training runs: {bench.made}")
    return 0


def same(bench: Bench, nothing: Mapping[str, str], source: str) -> None:
    """Check that each edit changes the syntax tree and leaves the value the same to the last bit."""
    repo, value = bench.repo, None
    for label, commit in {"baseline": bench.baseline, **nothing}.items():
        assert commit == bench.baseline or normal_form(repo.read(commit, "train.py")) != normal_form(source), label
        folder = bench.scratch / f"same-{commit[:10]}"
        run = bench.experiment.measure(Order(0, commit, "screen", 1, ""), folder, lambda _phase, _info: None)
        assert run.value is not None, (label, run.reason)
        assert value in (None, run.value), f"{label}: {run.value!r} where the baseline has {value!r}"
        value = run.value


def truth(bench: Bench, known: Mapping[str, str], count: int) -> None:
    batch = 10_000  # its seeds occur in no round
    before = [
        run.value
        for k in range(2 * count)
        if (run := bench.run(bench.baseline, session_seed(batch, k))).value is not None
    ]
    sd = stdev(before)
    print(f"baseline {fmean(before):.4f}, sd between seeds {sd:.4f} ({len(before)} runs)")
    for label, commit in known.items():
        after = [
            run.value for k in range(count) if (run := bench.run(commit, session_seed(batch, k))).value is not None
        ]
        se = (stdev(after) ** 2 / len(after) + sd**2 / len(before)) ** 0.5
        gain = fmean(before) - fmean(after)
        print(f"  {label:34} gain {gain:+.4f} ± {se:.4f} ({gain / sd:+.1f} σ)", flush=True)


def decide(bench: Bench, policy: Policy, nothing: Mapping[str, str], known: Mapping[str, str], rounds: int) -> None:
    print(f"policy {policy.name}")
    found = [bench.verdict(batch, commit, policy) for batch in range(rounds) for commit in nothing.values()]
    kept = [verdict.gain or 0.0 for verdict, _ in found if verdict.decision == "keep"]
    gains = f", reported gains {', '.join(f'{gain:+.4f}' for gain in kept)}" if kept else ""
    cost = fmean(runs for _, runs in found)
    print(f"  without effect: kept {interval(len(kept), len(found))}, {cost:.2f} runs each{gains}", flush=True)
    for label, commit in known.items():
        found = [bench.verdict(batch, commit, policy) for batch in range(rounds)]
        count = sum(verdict.decision == "keep" for verdict, _ in found)
        print(f"  {label:34} kept {count} of {rounds}, {fmean(runs for _, runs in found):.2f} runs each", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
