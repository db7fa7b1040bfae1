"""Compare search methods on synthetic objectives: ``python -m benchmarks.search --seeds 10 --trials 100``.

Seeds are paired: each seed gives every method the same instance of the objective and the same noise at each trial. The
table shows the *true* value of the incumbent (chosen by its noisy value), mean and 95 % interval over seeds; the
paired difference to ``cma-es`` (``--against``); and the share of failed trials. ``--save FOLDER`` stores every search
and reuses stored ones.

``centaur`` and ``hparams`` use a simulated adviser. ``helpful`` knows a noisy direction to the optimum and moves some
values of the best configuration that way. ``useless`` draws uniformly, and half of its points fail. ``cliff`` seeks the
border of the region that fails. ``sober`` stays close to the best without a direction. ``repeating`` answers with the
best configuration. ``fading`` is helpful for 40 trials, then useless.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from agent.files import replace_file
from agent.llm.chat import Message, ModelInfo, Reply
from agent.proposers import make_proposer
from agent.proposers.search.base import Method, NoPoint
from agent.space.space import SearchSpace
from agent.types import Value
from benchmarks.objectives import KINDS, Objective, paper_space

FIRST = 60  # trials over which the incumbent is averaged
FADES = 40  # trials after which a fading adviser is useless
ADVISERS = ("helpful", "useless", "cliff", "sober", "repeating", "fading")
METHODS = ("random", "optuna-cma", "tpe", "cma-es", "cma-gp", "hparams-helpful", *(f"centaur-{a}" for a in ADVISERS))


@dataclass
class Adviser:
    """A simulated model that answers with JSON. It knows the objective and ignores the prompt."""

    objective: Objective
    kind: str
    random: np.random.Generator
    best: Mapping[str, Value] = field(default_factory=dict)
    trial: int = 0

    def complete(self, messages: Sequence[Message], n: int = 1, **options: Any) -> Reply:
        choices = tuple(json.dumps({**self._point(), "rationale": "simulated"}) for _ in range(n))
        return Reply(choices[0], model=self.kind, choices=choices)

    def _point(self) -> Mapping[str, Value]:
        kind = ("helpful" if self.trial <= FADES else "useless") if self.kind == "fading" else self.kind
        return getattr(self, f"_{kind}")()  # type: ignore[no-any-return]

    def _start(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return self.objective.space.to_unit(self.best or self.objective.space.defaults)

    def _helpful(self) -> Mapping[str, Value]:
        space, x = self.objective.space, self._start()
        chosen = self.random.random(space.dimensions) < 0.3
        goal = self.objective.optimum + 0.15 * self.random.standard_normal(space.dimensions)
        for i in space.categorical:
            goal[i] = x[i]
        return space.from_unit(np.where(chosen, x + 0.5 * (goal - x), x))

    def _useless(self) -> Mapping[str, Value]:
        fails = self.random.random() < 0.5
        for _ in range(200):
            params = self.objective.space.from_unit(self.random.random(self.objective.space.dimensions))
            if (self.objective.run(params, 0).value is None) == fails:
                break
        return params

    def _cliff(self) -> Mapping[str, Value]:
        space, x = self.objective.space, self._start()
        inside, outside = 0.0, 1.0
        while self.objective.run(space.from_unit(goal := self.random.random(space.dimensions)), 0).value is not None:
            pass
        for _ in range(12):
            middle = (inside + outside) / 2
            fails = self.objective.run(space.from_unit(x + middle * (goal - x)), 0).value is None
            inside, outside = (inside, middle) if fails else (middle, outside)
        return space.from_unit(x + inside * (1.0 + 0.1 * self.random.standard_normal()) * (goal - x))

    def _sober(self) -> Mapping[str, Value]:
        space = self.objective.space
        chosen = self.random.random(space.dimensions) < 0.3
        return space.from_unit(self._start() + chosen * 0.02 * self.random.standard_normal(space.dimensions))

    def _repeating(self) -> Mapping[str, Value]:
        return self.best or self.objective.space.defaults

    def describe(self) -> ModelInfo:
        return ModelInfo(self.kind, None, "simulated", "", frozenset({"schema"}))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return 0


class OptunaCma:
    """Optuna's CmaEsSampler with its defaults. A failure counts as the worst value so far."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        import warnings

        import optuna

        from agent.proposers.search.tpe import distribution

        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._study = optuna.create_study(sampler=optuna.samplers.CmaEsSampler(seed=seed))
        self._distributions = {name: distribution(axis) for name, axis in space.axes.items()}
        self._worst = 1.0

    def ask(self) -> dict[str, Value]:
        self._trial = self._study.ask(self._distributions)
        return self._space.inward(self._trial.params)

    def tell(self, params: Mapping[str, Value], value: float | None, **_: object) -> None:
        self._worst = max(self._worst, value or self._worst)
        self._study.tell(self._trial, self._worst if value is None else value)


@dataclass
class Run:
    best: list[float]  # true value of the incumbent after each trial
    failed: list[bool]
    sources: list[str]
    slowest: float  # seconds of the slowest ask and tell


def run(name: str, kind: str, seed: int, trials: int) -> Run:
    """One search: report the baseline, then ask and tell ``trials`` times."""
    objective = Objective(paper_space(), kind, seed)
    space = objective.space
    adviser: Adviser | None = None
    method: Any
    if name == "optuna-cma":
        method = OptunaCma(space, seed)
    elif name.startswith(("centaur", "hparams")):
        method_name, _, kind_of_adviser = name.partition("-")
        adviser = Adviser(objective, kind_of_adviser, np.random.default_rng([3, seed]))
        method = make_proposer(method_name, space, seed, llm=adviser, reply="json")
    else:
        method = make_proposer(name, space, seed)
    start = objective.run(space.defaults, 0)
    best_value, best_true = start.value or 1.0, start.true or 1.0
    if name != "optuna-cma":
        method.tell(space.defaults, start.value, memory_gb=start.memory_gb)
    done = Run([], [], [], 0.0)
    for trial in range(1, trials + 1):
        if adviser is not None:
            adviser.trial = trial
        began = time.perf_counter()
        try:
            params, source = _ask(method)
        except NoPoint:  # the model used up the trial
            done.best.append(best_true)
            done.failed.append(True)
            done.sources.append("llm")
            continue
        asked = time.perf_counter()
        outcome = objective.run(params, trial)
        measured = time.perf_counter()
        method.tell(params, outcome.value, status=outcome.status, memory_gb=outcome.memory_gb)
        done.slowest = max(done.slowest, asked - began + time.perf_counter() - measured)
        if outcome.value is not None and outcome.true is not None and outcome.value < best_value:
            best_value, best_true = outcome.value, outcome.true
            if adviser is not None:
                adviser.best = params
        done.best.append(best_true)
        done.failed.append(outcome.value is None)
        done.sources.append(source)
    return done


def _ask(method: Method | OptunaCma) -> tuple[dict[str, Value], str]:
    if isinstance(method, OptunaCma):
        return method.ask(), "optuna"
    suggestion = method.suggest()
    return dict(suggestion.params), suggestion.source


def searched(name: str, kind: str, seed: int, trials: int, folder: Path | None) -> Run:
    """``run``, or a stored search of at least ``trials`` trials, cut to that length."""
    for place in folder.glob(f"{kind}-{name}-*-{seed}.json") if folder else ():
        if int(place.stem.split("-")[-2]) >= trials:
            found = Run(**json.loads(place.read_text()))
            return Run(found.best[:trials], found.failed[:trials], found.sources[:trials], found.slowest)
    done = run(name, kind, seed, trials)
    if folder:
        replace_file(folder / f"{kind}-{name}-{trials}-{seed}.json", json.dumps(asdict(done)))
    return done


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (Student's t)."""
    from scipy.stats import t

    n = len(values)
    half = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / n**0.5 if n > 1 else float("nan")
    return fmean(values), half


def measures(trials: int) -> dict[str, Callable[[Run], float]]:
    """The compared figures: the incumbent after some trials, and its mean over the first trials (speed)."""
    first = min(FIRST, trials)
    points = sorted({first, min(100, trials), trials})
    ends: dict[str, Callable[[Run], float]] = {f"{n} trials": lambda r, n=n: r.best[n - 1] for n in points}  # type: ignore[misc]
    return {f"mean of {first}": lambda r: fmean(r.best[:first]), **ends}


def table(
    results: Mapping[str, Sequence[Run]], trials: int, against: str = "cma-es", say: Callable[[str], None] = print
) -> None:
    compared = measures(trials)
    columns = [*compared, *(f"less {against}, {name}" for name in compared)]
    say(f"| method | {' | '.join(columns)} | failed after 50 | model |")
    say("|---" * (len(columns) + 3) + "|")
    for name, runs in results.items():
        cells = [f"{m:.4f} ± {h:.4f}" for of in compared.values() for m, h in [interval([of(r) for r in runs])]]
        for of in compared.values():
            mean, half = interval([of(r) - of(other) for r, other in zip(runs, results[against], strict=True)])
            cells.append(f"{mean:+.4f} ± {half:.4f}")
        failed = fmean(fmean(r.failed[50:] or r.failed) for r in runs)
        thirds = np.array_split(np.arange(trials), 3)
        share = " → ".join(
            f"{fmean(fmean([r.sources[i] == 'llm' for i in part]) for r in runs):.0%}" for part in thirds
        )
        models = share if name.startswith("centaur") else ""
        say(f"| {name} | {' | '.join(cells)} | {failed:.1%} | {models} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--objectives", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--against", choices=METHODS, default="cma-es")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    names = list(dict.fromkeys([options.against, *options.methods]))
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
    for kind in options.objectives:
        results: dict[str, list[Run]] = {}
        for name in names:
            seeds = range(options.first_seed, options.first_seed + options.seeds)
            results[name] = [searched(name, kind, seed, options.trials, options.save) for seed in seeds]
            slowest = max(r.slowest for r in results[name])
            sys.stderr.write(f"{kind} {name}: slowest ask and tell {1000 * slowest:.0f} ms\n")
        sys.stdout.write(f"\nObjective `{kind}`, {options.seeds} seeds:\n\n")
        table(results, options.trials, options.against)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
