"""``overnight replay``: check the request and plan the runs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.errors import UsageError, similar
from agent.ledger.journal import read
from agent.ledger.state import State, fold
from agent.replay.ablation import MINIMAL, cuts_of
from agent.replay.exact import recorded_schedule
from agent.replay.plan import Comparison, Plan, stages_of_replay
from agent.replay.run import Prepared
from agent.replay.steps import TOGETHER, Step, named, steps_of_branch, steps_of_run
from agent.repo.git import scrub_environment
from agent.repo.history import resolve
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory, find_runs
from agent.rundir.results import values_of_results
from agent.settings import check_own_run, check_threads, make_settings
from agent.target import load_target
from agent.types import Goal
from agent.workers.runtime import Workplace, workplace

Say = Callable[[str], None]
ROUNDS = 3  # runs of each step without --seeds


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of the command."""

    what: str  # a run, a branch or a range A..B
    seeds: int | None = None
    exact: bool = False
    ablate: bool = False
    name: str = ""  # of the replay's own directory
    results: Path | None = None  # results.tsv with recorded values of a branch
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # those of a session that apply here

    @property
    def rounds(self) -> int:
        return self.seeds if self.seeds is not None else 1 if self.exact else ROUNDS


def prepare(request: Request, runs: Path, say: Say) -> Prepared:
    """Check a request and plan its runs.

    Raises:
        UsageError: names the option, and what to do.
        EnvironmentProblem: the sandbox, the device or the repository cannot be used.
    """
    if request.rounds < 1:
        raise UsageError(f"--seeds {request.rounds}: must be at least 1.")
    check_threads(int(request.settings.get("threads", 0)))
    if request.exact:
        for option, given in {
            "--ablate": request.ablate,
            **{f"--{n.replace('_', '-')}": request.settings.get(n) for n in ("budget", "ray_address")},
        }.items():
            if given:
                raise UsageError(f"--exact cannot be combined with {option}.")
    known = find_runs(runs)
    if request.what in known:
        steps, place, same, source = _of_run(request, runs, say)
    elif request.exact:
        raise UsageError(f"--exact needs the schedules of a session, and {request.what!r} is no session in {runs}.")
    else:
        steps, place = _of_branch(request, known, runs, say)
        same, source = False, ""
    directory = RunDirectory(runs, request.name or _name(request), "--name")
    plan = _plan(request, place, steps, same, source)
    if plan.ablate and not directory.ledger.exists() and place.repo.refs.get(f"refs/heads/{plan.minimal_branch}"):
        raise UsageError(
            f"branch {plan.minimal_branch} exists. Rename or delete it first: git branch -m {plan.minimal_branch} NAME"
        )
    places = [place] * len(plan.stages)
    together = (None, lambda head, _kept: _together(steps[-1].bare, head))[: len(places)]
    return Prepared(plan, steps, places, together, directory)


def _together(head: Step, rest: str) -> Comparison:
    subject = "without the edits that do not hold"
    return Comparison(Step(TOGETHER, rest, subject), head, Step(MINIMAL, rest, subject))


def _name(request: Request) -> str:
    """``replay-nov23``; of a range or a branch, a name that a folder can have."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in request.what.replace("..", "-to-"))
    return f"replay-{plain.strip('-.')[:40] or 'branch'}{'-exact' if request.exact else ''}"


# --- plans ----------------------------------------------------------------------------------------------------------


def _of_run(request: Request, runs: Path, say: Say) -> tuple[Sequence[Step], Workplace, bool, str]:
    """The steps, where they run, whether under the recorded budget, and the directory of the run."""
    if request.results is not None:
        raise UsageError(f"--results: session {request.what} has recorded values in its ledger. Leave --results out.")
    settings, training_steps = dict(request.settings), 0
    source = RunDirectory(runs, request.what)
    if request.exact:
        steps = steps_of_run(fold(read(source.ledger), str(source.ledger)))
        settings["threads"], training_steps = recorded_schedule(steps, source.path)
    state, steps, place = recorded(request.what, runs, settings, say)
    if request.exact:
        place = _with_steps_budget(place, training_steps)
    same = request.exact or str(place.target.budget) == state.session.budget
    if not same:
        say("the budget differs from the recorded one: gains may differ, and the recorded noise is not used.")
    return steps, place, same, str(source.path)


def recorded(tag: str, runs: Path, settings: Mapping[str, Any], say: Say) -> tuple[State, tuple[Step, ...], Workplace]:
    """A recorded run, its commits with their values, and the place where they run again.

    Args:
        settings: take precedence over those of the run.

    Raises:
        UsageError: the target or its commits are gone, or the prepared data differs.
    """
    source = RunDirectory(runs, tag)
    state = fold(read(source.ledger), str(source.ledger))
    saved = source.read_settings(state)["run"]
    check_own_run(source.path, saved, settings)
    if source.running():
        say(f"session {tag} is still running: only the edits kept so far are measured.")
    given = {**saved, "ray_address": "", "workers": 1, **settings, "runs": str(runs)}
    given["budget"] = settings.get("budget") or saved.get("budget", "")
    steps = steps_of_run(state)
    if not Path(str(given["target"])).is_dir():
        raise UsageError(f"{given['target']}, the target of this session, does not exist. Name it with --target.")
    place = workplace(make_settings(given, None), say)
    if (data := place.data_hash) != state.session.data:
        raise UsageError(f"the prepared data ({data[:12]}) differs from the session's: values cannot be compared.")
    return state, named(steps, place.repo, tag), place


def _with_steps_budget(place: Workplace, steps: int) -> Workplace:
    """A budget of the recorded steps, with ten times the wall time, since this machine may be slower."""
    wall = 10 * place.target.budget.wall_seconds
    budget = dataclasses.replace(place.target.budget, kind="steps", amount=float(steps), wall_seconds=wall)
    return dataclasses.replace(place, target=dataclasses.replace(place.target, budget=budget))


def _of_branch(request: Request, known: Sequence[str], runs: Path, say: Say) -> tuple[Sequence[Step], Workplace]:
    folder = Path(str(request.settings.get("target", ".")))
    if not (folder / "target.toml").is_file():
        raise UsageError(
            f"{request.what!r} is no session in {runs}.{similar(request.what, known)} To replay a branch or A..B, "
            f"name the folder of its target with --target: {folder} has no target.toml."
        )
    target, settings = load_target(folder)
    scrub_environment()
    with contextlib.closing(Repo(folder)) as repo:
        if ".." not in request.what and resolve(repo.git, request.what) is None:
            names = [*known, *(name.removeprefix("refs/heads/") for name in repo.refs.below("refs/heads/"))]
            what = f"{request.what!r} is neither a session in {runs} nor a branch of {repo.top}."
            raise UsageError(what + similar(request.what, names))
        steps = steps_of_branch(repo, target, request.what, _published(request.results, target.goal))
    place = workplace(make_settings({**request.settings, "runs": str(runs)}, None, settings), say)
    return steps, place


def _published(results: Path | None, goal: Goal) -> Mapping[str, float]:
    if results is None:
        return {}
    if not results.is_file():
        raise UsageError(f"--results {results}: no such file.")
    return values_of_results(results.read_text(errors="replace"), str(results), goal)


def _plan(request: Request, place: Workplace, steps: Sequence[Step], same: bool, source: str) -> Plan:
    target = place.target
    cuts = cuts_of(place.repo, [step.bare for step in steps], target.path) if request.ablate else ()
    return Plan(
        what=request.what,
        rounds=request.rounds,
        goal=target.goal,
        metric=target.metric,
        budget=str(target.budget),
        exact=request.exact,
        ablate=request.ablate,
        stages=stages_of_replay(steps, target.goal, str(target.budget), cuts, request.exact),
        same_budget=same,
        source=source,
        seed=int(request.settings.get("seed", 0)),
        self_reported=target.score == "stdout",
    )
