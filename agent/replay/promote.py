"""``overnight promote``: the kept edits of a run at larger settings, each beside what it builds on."""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.replay.ablation import cut
from agent.replay.outcomes import PAIRS, REPLACED
from agent.replay.plan import Comparison, Setting, Stage, plan_for
from agent.replay.replay import Say, recorded
from agent.replay.run import Prepared
from agent.replay.steps import TOGETHER, WHOLE, Step
from agent.rundir.directory import RunDirectory, find_runs
from agent.space.block import render_block
from agent.space.space import SearchSpace
from agent.target import Budget, parse_budget
from agent.types import Value, is_number
from agent.workers.runtime import Workplace

ROUNDS = 8  # seeds at most
SLOWER = 4  # start-up and scoring may take so many times longer than the target allows
STAGE = 1000  # added to the number of a step for each setting, in refs and folders


def prepare(
    runs: Path,
    say: Say,
    tag: str,
    *,
    edits: Sequence[str] = (),
    values: Sequence[str] = (),
    budgets: str = "",
    seeds: int = ROUNDS,
    ablate: bool = False,
    max_hours: float | None = None,
    name: str = "",
    **settings: Any,
) -> Prepared:
    """Check a request, and build the commits of every setting.

    Args:
        runs: folder of the sessions and of the promotion.
        say: prints what the user should know.
        tag: the session.
        edits: commits or numbers of trials; default all kept edits and the whole branch.
        values: ``NAME=VALUE[,VALUE…]``.
        budgets: separated by commas; default that of the session.
        seeds: pairs of runs for each edit, at most.
        ablate: compare the branch with and without each edit.
        max_hours: no run starts after this time; None: no limit.
        name: of the promotion's own directory.
        settings: those of a session that apply here.

    Raises:
        UsageError: names the option, and what to do.
        EnvironmentProblem: the sandbox, the device or the repository cannot be used.
    """
    if seeds < PAIRS:
        raise UsageError(f"--seeds {seeds}: must be at least {PAIRS}.")
    if not values and not budgets:
        raise UsageError("promote: name what is larger: --set NAME=VALUE, --budget 1200s, or both.")
    if tag not in find_runs(runs):
        raise UsageError(f"{tag!r} is no session in {runs}. `overnight list` shows them.")
    steps, place, _ = recorded(tag, runs, settings, say)
    steps = tuple(step.bare for step in steps)
    if len(steps) == 1:
        raise UsageError(f"session {tag} kept no edit: there is nothing to promote.")
    chosen = _chosen(edits, steps)
    numbered = enumerate(_settings(values, budgets, place, steps[0], say), start=1)
    builders = [_Builder(at, chosen_values, number) for number, (at, chosen_values) in numbered]
    stages = tuple(Stage(b.setting, _comparisons(b, steps, chosen, ablate)) for b in builders)
    if not any(c.obstacle == "" for stage in stages for c in stage.comparisons):
        raise UsageError(f"promote: no edit can be measured: {stages[0].comparisons[0].obstacle}.")
    return Prepared(
        plan=plan_for(place.target, settings, what=tag, rounds=seeds, stages=stages, ablate=ablate),
        steps=steps,
        places=[builder.place for builder in builders],
        together=[builder.together for builder in builders],
        directory=RunDirectory(runs, name or f"promote-{tag}", "--name"),
        seconds=[b.amount if b.kind == "seconds" else math.nan for b in (at.place.target.budget for at in builders)],
        max_hours=max_hours,
    )


# --- what is compared -----------------------------------------------------------------------------------------------


def _chosen(edits: Sequence[str], steps: Sequence[Step]) -> list[Step]:
    """The steps that the arguments name, by commit or number of the trial; all without arguments."""
    chosen: set[int] = set()
    for word in edits:
        same = [s for s in steps[1:] if word == str(s.trial) or (len(word) > 3 and s.commit.startswith(word.lower()))]
        if len(same) != 1:
            kept = ", ".join(f"{step.trial} ({step.commit[:9]})" for step in steps[1:])
            raise UsageError(f"promote: {word!r} names no kept edit. Kept trials: {kept}.")
        chosen.add(same[0].number)
    return [step for step in steps[1:] if step.number in chosen or not chosen]


def _settings(
    words: Sequence[str], budgets: str, place: Workplace, baseline: Step, say: Say
) -> Iterator[tuple[Workplace, Mapping[str, Value]]]:
    """Every combination of the budgets, each as a place that has it, and values."""
    target, night = place.target, place.target.budget
    texts = budgets.split(",") if budgets else []
    longer = [_patient(parse_budget(text, night)) for text in texts] or [_patient(night)]
    for budget in longer:
        if budget.kind == night.kind and budget.amount < night.amount:
            say(f"--budget {budget} is smaller than the budget of the session ({night}).")
    places = [dataclasses.replace(place, target=dataclasses.replace(target, budget=budget)) for budget in longer]
    if not words:
        yield from ((at, {}) for at in places)
        return
    if not target.has_block:
        raise UsageError(f"--set {words[0]}: the target has no [[hyperparameters]]. Use --budget alone.")
    source = place.repo.read(baseline.commit, target.path)
    space = SearchSpace.from_toml(target.folder, source)
    options = _values(words, space, say)
    for combination in product(*options.values()):
        values = dict(zip(options, combination, strict=True))
        full = {**space.read(source), **values}
        if broken := next((c for c in space.constraints if not c.holds(full)), None):
            given = " ".join(f"{name}={value}" for name, value in values.items())
            raise UsageError(f"--set {given}: `{broken.text}` does not hold. Set its other values as well.")
        yield from ((at, values) for at in places)


def _patient(budget: Budget) -> Budget:
    """The budget with bounds for a larger model: on start-up and scoring, and on the time of a number of steps."""
    wall = budget.wall_seconds * (1 if budget.kind == "seconds" else SLOWER**2)
    return dataclasses.replace(
        budget, wall_seconds=wall, startup_seconds=SLOWER * budget.startup_seconds,
        score_seconds=SLOWER * budget.score_seconds,
    )  # fmt: skip


def _values(words: Sequence[str], space: SearchSpace, say: Say) -> dict[str, list[Value]]:
    """The values of each ``--set``, checked against the kind of the hyperparameter; its bounds may be exceeded."""
    found: dict[str, list[Value]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not text or name not in space.axes:
            raise UsageError(f"--set {word}: write NAME=VALUE with one of {', '.join(space.names)}.")
        if name in found:
            raise UsageError(f"--set {word}: {name} is set twice. Several values: --set {name}=8,12.")
        found[name] = [_value(space, name, part.strip(), say) for part in text.split(",")]
    return found


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


@dataclasses.dataclass(frozen=True)
class _Builder:
    """Makes the commits of one setting."""

    place: Workplace  # with the budget of the setting
    values: Mapping[str, Value]
    number: int  # of the setting, from 1

    @property
    def setting(self) -> Setting:
        return Setting(str(self.place.target.budget), self.values)

    def at(self, step: Step) -> Step:
        """A commit with the values of the setting, also where none changes: budgets share no commits.

        Raises:
            UsageError: an edit has removed a hyperparameter of the setting.
        """
        repo, path = self.place.repo, self.place.target.path
        text = repo.read(step.commit, path)
        text = render_block(text, self.values, path) if self.values else text
        message = f"At {self.setting}: {step.subject}\n\nFor a promotion of commit {step.commit[:12]}.\n"
        commit = repo.build(step.commit, {path: text}, message, repo.commit(step.commit).when)
        subject = f"{step.subject}, at {self.setting}"
        return Step(STAGE * self.number + step.number % STAGE, commit, subject, step.trial)

    def compare(self, edit: Step, before: Step, after: Step) -> Comparison:
        """Compare two commits of the session at the setting."""
        try:
            old, new = self.at(before), self.at(after)
        except UsageError as error:
            return Comparison(edit, before, after, f"the setting does not apply: {error}")
        texts = {self.place.repo.read(step.commit, self.place.target.path) for step in (old, new)}
        return Comparison(edit, old, new, REPLACED if len(texts) == 1 else "")

    def together(self, head: str, kept: Sequence[Step]) -> Comparison:
        """Compare the head of the edits that hold with the baseline."""
        edit = dataclasses.replace(_branch(kept, TOGETHER, "the edits that hold, together"), commit=head)
        return self.compare(edit, kept[0], Step(STAGE - 1, head, edit.subject))


def _comparisons(
    builder: _Builder, steps: Sequence[Step], chosen: Sequence[Step], ablate: bool
) -> tuple[Comparison, ...]:
    """Each chosen edit against the commit before it, or with ``ablate`` the branch against the branch without it."""
    head, found = steps[-1], []
    for step in chosen:
        before, after = steps[step.number - 1], step
        if ablate:
            without = cut(builder.place.repo, steps, step, builder.place.target.path)
            if without.obstacle:
                found.append(without)
                continue
            before, after = dataclasses.replace(without.before, number=500 + step.number), head
        found.append(builder.compare(step, before, after))
    if len(chosen) == len(steps) - 1 and len(chosen) > 1:
        found.append(builder.compare(_branch(steps, WHOLE, "the whole branch"), steps[0], head))
    return tuple(found)


def _branch(steps: Sequence[Step], number: int, subject: str) -> Step:
    gains = [step.gain for step in steps[1:]]
    errors = [step.gain_se for step in steps[1:]]
    gain = sum(g for g in gains if g is not None) if None not in gains else None
    se = sum(e**2 for e in errors if e is not None) ** 0.5 if None not in errors else None
    return Step(number, steps[-1].commit, subject, gain=gain, gain_se=se)
