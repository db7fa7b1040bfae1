"""``overnight promote``: the kept edits of a run at larger settings, each beside what it builds on."""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.replay.ablation import cuts_of
from agent.replay.outcomes import PAIRS, REPLACED
from agent.replay.plan import Comparison, Plan, Setting, Stage
from agent.replay.replay import Say, recorded
from agent.replay.run import Prepared
from agent.replay.steps import TOGETHER, WHOLE, Step
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory, find_runs
from agent.space.block import render_block
from agent.space.space import SearchSpace
from agent.target import Budget, Target, parse_budget
from agent.types import Value, is_number

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
        raise UsageError(f"{request.tag!r} is no session in {runs}. `overnight list` shows them.")
    _, steps, place = recorded(request.tag, runs, request.settings, say)
    steps = tuple(step.bare for step in steps)
    if len(steps) == 1:
        raise UsageError(f"session {request.tag} kept no edit: there is nothing to promote.")
    chosen = _chosen(request.edits, steps)
    builders = [
        _Builder(place.repo, target, setting, number)
        for number, (setting, target) in enumerate(_settings(request, place.target, steps[0], place.repo, say), start=1)
    ]
    stages = tuple(Stage(b.setting, _comparisons(b, steps, chosen, request.ablate)) for b in builders)
    if not any(c.obstacle == "" for stage in stages for c in stage.comparisons):
        raise UsageError(f"promote: no edit can be measured: {stages[0].comparisons[0].obstacle}.")
    places = [dataclasses.replace(place, target=builder.target) for builder in builders]
    plan = Plan(
        what=request.tag,
        rounds=request.seeds,
        goal=place.target.goal,
        metric=place.target.metric,
        budget=str(place.target.budget),
        stages=stages,
        ablate=request.ablate,
        seed=int(request.settings.get("seed", 0)),
        self_reported=place.target.score == "stdout",
    )
    budgets = [at.target.budget for at in places]
    return Prepared(
        plan=plan,
        steps=steps,
        places=places,
        together=[builder.together for builder in builders],
        directory=RunDirectory(runs, request.name or f"promote-{request.tag}", "--name"),
        seconds=[budget.amount if budget.kind == "seconds" else math.nan for budget in budgets],
        max_hours=request.max_hours,
    )


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
            say(f"--budget {budget} is smaller than the budget of the session ({night}).")
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
    if problem and (kind == "categorical" or not is_number(value) or (kind == "int" and value != int(value))):
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
        """Compare two commits of the session at the setting."""
        try:
            old, new = self.at(before), self.at(after)
        except UsageError as error:
            return Comparison(edit, before, after, f"the setting does not apply: {error}")
        same = self.text(before.commit) == self.text(after.commit)
        return Comparison(edit, old, new, REPLACED if same else "")

    def together(self, head: str, kept: Sequence[Step]) -> Comparison:
        """Compare the head of the edits that hold with the baseline."""
        edit = dataclasses.replace(_branch(kept, TOGETHER, "the edits that hold, together"), commit=head)
        return self.compare(edit, kept[0], Step(STAGE - 1, head, edit.subject))


def _comparisons(
    builder: _Builder, steps: Sequence[Step], chosen: Sequence[Step], ablate: bool
) -> tuple[Comparison, ...]:
    """Each chosen edit against the commit before it, or with ``ablate`` the branch against the branch without it."""
    head, path = steps[-1], builder.target.path
    if ablate:
        cuts = cuts_of(builder.repo, steps, path)
        numbers = {step.number for step in chosen}
        found = [
            cut
            if cut.obstacle
            else builder.compare(cut.edit, dataclasses.replace(cut.before, number=500 + cut.edit.number), head)
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
