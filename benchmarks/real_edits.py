"""A table of real values for benchmarks.night: recipes of the idea bank and their combinations on preset demo.

    python -m benchmarks.real_edits FILE.jsonl [--recipe-seeds 8] [--combination-seeds 4] [--combinations 80]

Each line of FILE is one training run: the recipes in their order, the seed's index, value, status and loss curve. A
second call goes on where the first one ended. Half of the combinations are drawn from all recipes, half from the
better third: a branch holds such edits. Training is real: about 5 s a run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import runpy
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.attention.flex_attention

from agent.cli.init import make_target
from agent.curves import read_curve, thin
from agent.errors import NoEffect, PatchRejected
from agent.patch.apply import apply_reply
from agent.proposers.ideas.bank import Idea, load_bank
from agent.settings import make_settings
from agent.trial.seeds import session_seed
from agent.workers.runtime import workplace
from benchmarks.look_ahead import reads
from nanogpt_target import harness, scorer  # noqa: F401
from nanogpt_target.look_ahead import CUTS, LN2
from nanogpt_target.prepare import release, stage_before

Keys = tuple[str, ...]  # recipes, in the order in which they are applied
FIRST_SEEDS = 2  # of everything, so that a table that is not finished yet can be used


def forked(work: Callable[[], object], folder: Path, env: Mapping[str, str]) -> int:
    """Exit status of ``work`` in a fork that has PyTorch loaded: loading it takes most of the time of such a run."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        os.chdir(folder)
        os.environ.update(env)
        log = os.open("log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        work()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def train_and_score(prepared: Path, splits: Sequence[str]) -> None:
    """Run train.py of the working directory, then score its checkpoint as pass A of the trusted scorer does."""
    load = runpy.run_path("train.py", run_name="__main__")["load"]
    model = load(".", "cpu")

    def ask(ids: np.ndarray) -> scorer.Read:
        return reads(model(torch.from_numpy(ids)).float().numpy())

    for split in splits:
        Path(f"{split}.value").write_text(repr(score(prepared, split, ask)))


def score(prepared: Path, split: str, ask: scorer.Ask) -> float:
    """Bits per byte."""
    rows, token_bytes, _ = scorer.read_split(prepared, split)
    ids, targets, vocab = rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64), len(token_bytes)
    batch = max(1, min(len(rows), CUTS, scorer.BATCH_BYTES // (ids.shape[1] * vocab * 4)))
    order = np.random.default_rng(0).permutation(len(ids))
    found = np.empty(ids.shape, np.float64)
    found[order] = scorer.run(ids[order], targets[order], ask, batch, vocab)
    size = token_bytes[targets]
    return float(-found[size > 0].sum()) / LN2 / int(size.sum())


class Bench:
    """Runs recipes on the unchanged target of preset demo: the same training and scoring as in a session."""

    def __init__(self, root: Path, ideas: Mapping[str, Idea]) -> None:
        self.ideas = ideas
        settings = {"target": str(root / "target"), "threads": 1, "device": "cpu", "sandbox": "process"}
        place = workplace(make_settings({**settings, "proposer": "random"}, None), lambda _text: None)
        self.prepared: Any = place.prepared
        self.target = place.target
        self.source = (root / "target/train.py").read_text()

    def text(self, keys: Keys) -> str | None:
        """The source with these recipes; None if one does not apply to the text before it."""
        text = self.source
        for key in keys:
            try:
                text = apply_reply(text, self.ideas[key].reply, "train.py")
            except (NoEffect, PatchRejected):
                return None
        return text

    def run(self, keys: Keys, seed: int, splits: Sequence[str] = ("validation",)) -> dict[str, Any]:
        """One run; the value, of the last split, is None if training or scoring failed."""
        with tempfile.TemporaryDirectory() as name:
            code, data = Path(name) / "code", Path(name) / "data"
            code.mkdir()
            data.mkdir()
            (code / "train.py").write_text(self.text(keys) or "")
            stage_before(self.prepared, data)
            release(self.prepared, data)
            env = {
                "OVERNIGHT_DATA": str(data),
                "OVERNIGHT_OUT": str(code),
                "OVERNIGHT_BUDGET": self.target.budget.encoded,
                "OVERNIGHT_SEED": str(session_seed(0, seed)),
                "OVERNIGHT_DEVICE": "cpu",
                "OVERNIGHT_THREADS": "1",
            }
            status = forked(lambda: train_and_score(self.prepared.directory, splits), code, env)
            values = [float((code / f"{split}.value").read_text()) for split in splits if status == 0]
            summary = json.loads((code / "summary.json").read_text()) if status == 0 else {}
            log = "" if status == 0 else (code / "log").read_text()[-300:]
            curve = [(point.progress, point.loss) for point in thin(read_curve(code / "curve.jsonl"), 64)]
        found = {"keys": keys, "seed": seed, "value": values[-1] if values else None, "status": status, "log": log}
        return {**found, "curve": curve, "initial_hash": summary.get("initial_hash", ""), "values": values}


def combinations(bench: Bench, keys: Sequence[str], count: int) -> list[Keys]:
    """Random combinations of 2 to 6 recipes that apply together."""
    draw, found = random.Random(0), list[Keys]()
    while len(found) < count:
        drawn = tuple(draw.sample(keys, draw.randint(2, 6)))
        if bench.text(drawn) is not None and drawn not in found:
            found.append(drawn)
    return found


def missing(rows: Sequence[Mapping[str, Any]], wanted: Sequence[Keys], seeds: range) -> Iterator[tuple[Keys, int]]:
    """Runs that are not in the table; what failed once is not run again."""
    done = {(tuple(row["keys"]), row["seed"]) for row in rows}
    failed = {tuple(row["keys"]) for row in rows if row["value"] is None}
    for seed in seeds:
        yield from ((keys, seed) for keys in wanted if (keys, seed) not in done and keys not in failed)


def values_of(rows: Sequence[Mapping[str, Any]], keys: Keys) -> list[float]:
    """By seed, under the first seeds; NaN for a failed run."""
    found = {row["seed"]: row["value"] for row in rows if tuple(row["keys"]) == keys}
    return [math.nan if found[seed] is None else found[seed] for seed in range(FIRST_SEEDS) if seed in found]


def better_third(rows: Sequence[Mapping[str, Any]], singles: Sequence[Keys]) -> list[str]:
    """The recipes with the best mean under the first seeds."""
    means = {key: fmean(values_of(rows, (key,))) for (key,) in singles}
    worked = [key for key, mean in means.items() if not math.isnan(mean)]
    return sorted(worked, key=lambda key: means[key])[: len(singles) // 3]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--recipe-seeds", type=int, default=8)
    parser.add_argument("--combination-seeds", type=int, default=4)
    parser.add_argument("--combinations", type=int, default=80)
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.file.read_text().splitlines()] if given.file.exists() else []
    with tempfile.TemporaryDirectory() as name, given.file.open("a") as file:
        root = Path(name)
        make_target(root / "target", "demo")
        bench = Bench(root, {idea.key: idea for idea in load_bank(root / "target") if idea.recipe})
        singles: list[Keys] = [(key,) for key in bench.ideas if bench.text((key,)) is not None]

        def make(wanted: Sequence[Keys], seeds: range) -> None:
            for keys, seed in missing(rows, wanted, seeds):
                rows.append(bench.run(keys, seed))
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()

        make([(), *singles], range(FIRST_SEEDS))
        half = given.combinations // 2
        chosen = combinations(bench, [key for (key,) in singles], half)
        chosen += [keys for keys in combinations(bench, better_third(rows, singles), half) if keys not in chosen]
        make([()], range(given.recipe_seeds))
        make(chosen, range(FIRST_SEEDS))
        make(chosen, range(given.combination_seeds))
        make(singles, range(given.recipe_seeds))


if __name__ == "__main__":
    main()
