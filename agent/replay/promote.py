"""``overnight promote``: train the kept edits of a run at larger settings, each beside what it builds on."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.replay.ablation import cuts_of, without
from agent.replay.engine import View
from agent.replay.plan import Cost, total_cost
from agent.replay.promotion import (
    PAIRS,
    REPLACED,
    TOGETHER,
    WHOLE,
    Comparison,
    Promotion,
    Result,
    Setting,
    Stage,
    findings,
    result_in,
    result_of,
)
from agent.replay.replay import Say, recorded
from agent.replay.steps import Step
from agent.replay.work import Work, first_event, working
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory, find_runs
from agent.space.block import render_block
from agent.space.space import SearchSpace
from agent.target import Budget, Target, parse_budget
from agent.types import Value
from agent.workers.runtime import Workplace

ROUNDS = 8  # seeds at most
SLOWER = 4  # start-up and scoring may take so many times longer than the target allows
STAGE = 1000  # added to the number of a step for each setting, in refs and folders


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of the command."""

    tag: str
    edits: Sequence[str] = ()  # commits or numbers of trials; default: all kept edits and the whole branch
    values: Sequence[str] = ()  # NAME=VALUE[,VALUE…]
    budgets: str = ""  # separated by commas; default: that of the run
    seeds: int = ROUNDS
    ablate: bool = False
    max_hours: float | None = None
    name: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A checked promotion with the place where it runs. Nothing has been run yet."""

    plan: Promotion
    steps: tuple[Step, ...]  # of the run, the baseline first
    places: tuple[Workplace, ...]  # one for each stage
    directory: RunDirectory
    cost: Cost  # at most; of training only
    max_hours: float | None = None

    @property
    def repo(self) -> Repo:
        return self.places[0].repo


def prepare(request: Request, runs: Path, say: Say) -> Prepared:
    """Check a request, and build the commits of every setting.

    Raises:
        UsageError: names the option, and what to do.
        EnvironmentProblem: the sandbox, the device or the repository cannot be used.
    """
    if request.seeds < PAIRS:
        raise UsageError(f"--seeds {request.seeds}: must be at least {PAIRS}.")
    if not request.values and not request.budgets:
        raise UsageError("promote: name what is larger: --set NAME=VALUE, --budget 1200s, or both.")
    if request.tag not in find_runs(runs):
        raise UsageError(f"{request.tag!r} is not a run in {runs}. `overnight list` shows them.")
    _, steps, place = recorded(request.tag, runs, request.settings, say)
    steps = tuple(dataclasses.replace(step, runs=()) for step in steps)
    if len(steps) == 1:
        raise UsageError(f"run {request.tag} kept no edit: there is nothing to promote.")
    chosen = _chosen(request.edits, steps)
    stages, places = [], []
    for number, (setting, target) in enumerate(_settings(request, place.target, steps[0], place.repo, say), start=1):
        builder = _Builder(place.repo, target, setting, number)
        stages.append(Stage(setting, _comparisons(builder, steps, chosen, request.ablate)))
        places.append(dataclasses.replace(place, target=target))
        if not place.settings.ray_address:
            places[-1].check_beside(place.settings.workers)
    if not any(c.obstacle == "" for stage in stages for c in stage.comparisons):
        raise UsageError(f"promote: no edit can be measured: {stages[0].comparisons[0].obstacle}.")
    plan = Promotion(
        request.tag, tuple(stages), request.seeds, place.target.goal, place.target.metric, str(place.target.budget),
        int(request.settings.get("seed", 0)), place.target.score == "stdout", request.ablate,
    )  # fmt: skip
    directory = RunDirectory(runs, request.name or f"promote-{request.tag}", "--name")
    done = fold(read(directory.ledger), str(directory.ledger)).runs
    budgets = [at.target.budget for at in places]
    seconds = [budget.amount if budget.kind == "seconds" else None for budget in budgets]
    jobs = [(job, each) for stage, each in zip(stages, seconds, strict=True) for job in plan.jobs(stage.comparisons)]
    cost = total_cost(jobs, done, place.settings.workers)
    place.caution(say)
    return Prepared(plan, steps, tuple(places), directory, cost, request.max_hours)


def run(prepared: Prepared, view: AbstractContextManager[View]) -> Result:
    """Make the runs that are missing; an interrupted promotion gives an incomplete result.

    Raises:
        UsageError: the directory holds another promotion.
        EnvironmentProblem: the machine failed several times in a row.
    """
    directory, plan = prepared.directory, prepared.plan
    commits = [plan.stages[0].comparisons[0].before.commit]
    commits += [c.after.commit for stage in plan.stages for c in stage.comparisons]
    first = first_event(directory, prepared.places[0], "promote", plan.what, commits)
    with working(directory, first, view, prepared.max_hours) as work:
        _measure(plan, prepared.places, work)
        _measure(_with_together(prepared, result_of(plan, work.runs)), prepared.places, work)
    state = fold(read(directory.ledger), str(directory.ledger))
    return result_in(state) or result_of(plan, state.runs)


def _measure(plan: Promotion, places: Sequence[Workplace], work: Work) -> None:
    """Make one more run of both sides of every undecided comparison, up to the number of seeds."""
    work.plan(plan)
    for stage, place in zip(plan.stages, places, strict=True):

        def undecided(stage: Stage = stage) -> list[Comparison]:
            found = findings(stage, work.runs, plan.rounds, plan.goal)
            return [finding.comparison for finding in found if not finding.decided]

        if undecided():
            work.keep(place.repo, [step for comparison in stage.comparisons for step in comparison.sides])
            with work.engine(place) as engine:
                for rounds in range(1, plan.rounds + 1):
                    engine.run(plan.jobs(undecided()), rounds)


# --- what is compared -----------------------------------------------------------------------------------------------


def _chosen(edits: Sequence[str], steps: Sequence[Step]) -> list[Step]:
    """The steps that the arguments name, by commit or number of the trial; all without arguments."""
    chosen = []
    for word in edits:
        same = [s for s in steps[1:] if word == str(s.trial) or (len(word) > 3 and s.commit.startswith(word.lower()))]
        if len(same) != 1:
            kept = ", ".join(f"{step.trial} ({step.commit[:9]})" for step in steps[1:])
            raise UsageError(f"promote: {word!r} names no kept edit. Kept trials: {kept}.")
        chosen += same
    return chosen or list(steps[1:])


def _settings(request: Request, target: Target, baseline: Step, repo: Repo, say: Say) -> list[tuple[Setting, Target]]:
    """Every combination of the values and budgets, with the target that has this budget."""
    night = target.budget
    texts = request.budgets.split(",") if request.budgets else []
    budgets = [_patient(parse_budget(text, night)) for text in texts] or [_patient(night)]
    for budget in budgets:
        if budget.kind == night.kind and budget.amount < night.amount:
            say(f"--budget {budget} is smaller than the budget of the night ({night}).")
    source = repo.read(baseline.commit, target.path)
    options = [[(name, value) for value in values] for name, values in _values(request.values, target, source, say)]
    space = SearchSpace.from_toml(target.folder, source) if options else None
    found = []
    for combination in product(*options):
        values = dict(combination)
        if space is not None:
            full = {**space.read(source), **values}
            if broken := next((c for c in space.constraints if not c.holds(full)), None):
                words = " ".join(f"{name}={value}" for name, value in values.items())
                raise UsageError(f"--set {words}: `{broken.text}` does not hold. Set its other values as well.")
        for budget in budgets:
            found.append((Setting(str(budget), values), dataclasses.replace(target, budget=budget)))
    return found


def _patient(budget: Budget) -> Budget:
    """The budget with bounds for a larger model: on start-up and scoring, and on the time of a number of steps."""
    wall = budget.wall_seconds * (1 if budget.kind == "seconds" else SLOWER**2)
    return dataclasses.replace(
        budget, wall_seconds=wall, startup_seconds=SLOWER * budget.startup_seconds,
        score_seconds=SLOWER * budget.score_seconds,
    )  # fmt: skip


def _values(words: Sequence[str], target: Target, source: str, say: Say) -> list[tuple[str, list[Value]]]:
    """The values of each ``--set``, checked against the kind of the hyperparameter; its bounds may be exceeded."""
    if words and not target.has_block:
        raise UsageError(f"--set {words[0]}: the target has no [[hyperparameters]]. Use --budget alone.")
    space = SearchSpace.from_toml(target.folder, source) if words else None
    found: dict[str, list[Value]] = {}
    for word in words:
        assert space is not None
        name, equals, text = word.partition("=")
        if not equals or not text or name not in space.axes:
            raise UsageError(f"--set {word}: write NAME=VALUE with one of {', '.join(space.names)}.")
        if name in found:
            raise UsageError(f"--set {word}: {name} is set twice. Several values: --set {name}=8,12.")
        found[name] = [_value(space, name, part.strip(), say) for part in text.split(",")]
    return list(found.items())


def _value(space: SearchSpace, name: str, text: str, say: Say) -> Value:
    """A value in the type of its hyperparameter."""
    axis = space.axes[name]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    problem = axis.problem(value)
    kind = axis.param.kind
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if problem and (kind == "categorical" or not number or (kind == "int" and value != int(value))):
        raise UsageError(f"--set {name}={text}: {problem}.")
    if problem:
        say(f"warning: {problem}, the bounds of the search.")
    return int(value) if kind == "int" else float(value) if kind == "float" else axis.exact(value)


class _Builder:
    """Makes the commits of one setting."""

    def __init__(self, repo: Repo, target: Target, setting: Setting, stage: int):
        self.repo, self.target, self.setting, self._stage = repo, target, setting, stage

    def at(self, step: Step) -> Step:
        """A commit with the values of the setting, also where none changes: budgets share no commits."""
        path = self.target.path
        text = self.text(step.commit)
        message = f"At {self.setting}: {step.subject}\n\nFor a promotion of commit {step.commit[:12]}.\n"
        commit = self.repo.build(step.commit, {path: text}, message, self.repo.commit(step.commit).when)
        subject = f"{step.subject}, at {self.setting}"
        return Step(STAGE * self._stage + step.number % STAGE, commit, subject, step.trial)

    def text(self, commit: str) -> str:
        """Raises UsageError: an edit has removed a hyperparameter of the setting."""
        text = self.repo.read(commit, self.target.path)
        return render_block(text, self.setting.values, self.target.path) if self.setting.values else text

    def compare(self, edit: Step, before: Step, after: Step) -> Comparison:
        """Compare two commits of the night at the setting."""
        try:
            old, new = self.at(before), self.at(after)
        except UsageError as error:
            return Comparison(edit, before, after, f"the setting does not apply: {error}")
        same = self.text(before.commit) == self.text(after.commit)
        return Comparison(edit, old, new, REPLACED if same else "")


def _comparisons(
    builder: _Builder, steps: Sequence[Step], chosen: Sequence[Step], ablate: bool
) -> tuple[Comparison, ...]:
    """Each chosen edit against the commit before it, or with ``ablate`` the branch against the branch without it."""
    head, path = steps[-1], builder.target.path
    if ablate:
        cuts = cuts_of(builder.repo, steps, path)
        numbers = {step.number for step in chosen}
        found = [
            builder.compare(cut.edit, dataclasses.replace(cut.without, number=500 + cut.edit.number), head)
            if cut.without
            else Comparison(cut.edit, head, head, "later edits build on it, or nothing is left of it")
            for cut in cuts
            if cut.edit.number in numbers
        ]
    else:
        found = [builder.compare(step, steps[step.number - 1], step) for step in chosen]
    if len(chosen) == len(steps) - 1 and len(chosen) > 1:
        found.append(builder.compare(_branch(steps, WHOLE, "the whole branch"), steps[0], head))
    return tuple(found)


def _branch(steps: Sequence[Step], number: int, subject: str) -> Step:
    gains = [step.gain for step in steps[1:]]
    errors = [step.gain_se for step in steps[1:]]
    gain = sum(g for g in gains if g is not None) if None not in gains else None
    se = sum(e**2 for e in errors if e is not None) ** 0.5 if None not in errors else None
    return Step(number, steps[-1].commit, subject, gain=gain, gain_se=se)


def _with_together(prepared: Prepared, result: Result) -> Promotion:
    """The plan with the edits that hold, together, at every setting; unchanged where all or none of them hold."""
    plan, steps, path = result.plan, prepared.steps, prepared.places[0].target.path
    decided = all(finding.decided for found in result.found for finding in found)
    kept = [steps[0], *(step for step in steps[1:] if step.trial in result.held)]
    measured = {c.edit.trial for c in plan.stages[0].comparisons}
    if not decided or not 1 < len(kept) < len(steps) or not {step.trial for step in steps[1:]} <= measured:
        return plan
    out = {step.number for step in steps[1:] if step not in kept}
    head = without(prepared.repo, steps, out, path)
    if head is None:
        return plan
    together = dataclasses.replace(_branch(kept, TOGETHER, "the edits that hold, together"), commit=head)
    rest = Step(STAGE - 1, head, together.subject)
    stages = []
    for number, (stage, place) in enumerate(zip(plan.stages, prepared.places, strict=True), start=1):
        builder = _Builder(prepared.repo, place.target, stage.setting, number)
        comparison = builder.compare(together, steps[0], rest)
        stages.append(dataclasses.replace(stage, comparisons=(*stage.comparisons, comparison)))
    return dataclasses.replace(plan, stages=tuple(stages))
