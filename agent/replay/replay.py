"""``overnight replay``: check the request and plan the runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import UsageError, similar
from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.replay.ablation import MINIMAL, cut
from agent.replay.exact import recorded_schedule
from agent.replay.plan import Comparison, plan_for, stages_of_replay
from agent.replay.run import Prepared
from agent.replay.steps import TOGETHER, Step, named, steps_of_branch, steps_of_run
from agent.repo.git import scrub_environment
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory, find_runs
from agent.rundir.results import values_of_results
from agent.settings import check_own_run, check_threads, make_settings
from agent.target import load_target
from agent.workers.runtime import Workplace, workplace

Say = Callable[[str], None]
ROUNDS = 3  # runs of each step without --seeds


def prepare(
    runs: Path,
    say: Say,
    what: str,
    *,
    seeds: int | None = None,
    exact: bool = False,
    ablate: bool = False,
    name: str = "",
    results: Path | None = None,
    **settings: Any,
) -> Prepared:
    """Check a request and plan its runs.

    Args:
        runs: folder of the sessions and of the replay.
        say: prints what the user should know.
        what: a session, a branch or a range A..B.
        seeds: runs of each commit; default ROUNDS, with ``exact`` 1.
        exact: follow the recorded seeds and schedules.
        ablate: measure the branch without each edit, too.
        name: of the replay's own directory.
        results: results.tsv with recorded values of a branch.
        settings: those of a session that apply here.

    Raises:
        UsageError: names the option, and what to do.
        EnvironmentProblem: the sandbox, the device or the repository cannot be used.
    """
    rounds = seeds if seeds is not None else 1 if exact else ROUNDS
    if rounds < 1:
        raise UsageError(f"--seeds {rounds}: must be at least 1.")
    check_threads(int(settings.get("threads", 0)))
    others = {"--ablate": ablate, "--budget": settings.get("budget"), "--ray-address": settings.get("ray_address")}
    if exact and (option := next((option for option, given in others.items() if given), None)):
        raise UsageError(f"--exact cannot be combined with {option}.")
    known = find_runs(runs)
    if what in known:
        if results is not None:
            raise UsageError(f"--results: session {what} has recorded values in its ledger. Leave --results out.")
        steps, place, same = recorded(what, runs, settings, say, exact)
        source = str(runs / what)
        if not same:
            say("the budget differs from the recorded one: gains may differ, and the recorded noise is not used.")
    elif exact:
        raise UsageError(f"--exact needs the schedules of a session, and {what!r} is no session in {runs}.")
    else:
        steps, place = _of_branch(what, results, known, runs, settings, say)
        same, source = False, ""
    target, bare = place.target, [step.bare for step in steps]
    cuts = [cut(place.repo, bare, step, target.path) for step in bare[1:]] if ablate else []
    stages = stages_of_replay(steps, target.goal, str(target.budget), cuts, exact)
    own = {"exact": exact, "ablate": ablate, "same_budget": same, "source": source}
    plan = plan_for(target, settings, what=what, rounds=rounds, stages=stages, **own)
    directory = RunDirectory(runs, name or _name(what, exact), "--name")
    if ablate and not directory.ledger.exists() and place.repo.refs.get(f"refs/heads/{plan.minimal_branch}"):
        raise UsageError(
            f"branch {plan.minimal_branch} exists. Rename or delete it first: git branch -m {plan.minimal_branch} NAME"
        )
    together = (None, lambda head, _kept: _together(bare[-1], head))
    return Prepared(plan, steps, [place] * len(plan.stages), together[: len(plan.stages)], directory)


def _together(head: Step, rest: str) -> Comparison:
    subject = "without the edits that do not hold"
    return Comparison(Step(TOGETHER, rest, subject), head, Step(MINIMAL, rest, subject))


def _name(what: str, exact: bool) -> str:
    """``replay-nov23``; of a range or a branch, a name that a folder can have."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in what.replace("..", "-to-"))
    return f"replay-{plain.strip('-.')[:40] or 'branch'}{'-exact' if exact else ''}"


def recorded(
    tag: str, runs: Path, settings: Mapping[str, Any], say: Say, exact: bool = False
) -> tuple[tuple[Step, ...], Workplace, bool]:
    """The commits of a recorded run with their values, the place where they run again, and whether the budget is equal.

    Args:
        settings: take precedence over those of the run.
        exact: run with the recorded number of threads, for the recorded number of training steps.

    Raises:
        UsageError: the target, its commits or the schedules are gone, or the prepared data differs.
    """
    source = RunDirectory(runs, tag)
    state = fold(read(source.ledger), str(source.ledger))
    saved = source.read_settings(state)["run"]
    check_own_run(source.path, saved, settings)
    if source.running():
        say(f"session {tag} is still running: only the edits kept so far are measured.")
    given = {**saved, "ray_address": "", "workers": 1, **settings, "runs": str(runs)}
    given["budget"] = settings.get("budget") or saved.get("budget", "")
    steps, training_steps = steps_of_run(state), 0
    if exact:
        given["threads"], training_steps = recorded_schedule(steps, source.path)
    if not Path(str(given["target"])).is_dir():
        raise UsageError(f"{given['target']}, the target of this session, does not exist. Name it with --target.")
    place = workplace(make_settings(given, None), say)
    if (data := place.data_hash) != state.session.data:
        raise UsageError(f"the prepared data ({data[:12]}) differs from the session's: values cannot be compared.")
    if exact:
        wall = 10 * place.target.budget.wall_seconds  # this machine may be slower
        budget = replace(place.target.budget, kind="steps", amount=float(training_steps), wall_seconds=wall)
        place = replace(place, target=replace(place.target, budget=budget))
    return named(steps, place.repo, tag), place, exact or str(place.target.budget) == state.session.budget


def _of_branch(
    what: str, results: Path | None, known: Sequence[str], runs: Path, settings: Mapping[str, Any], say: Say
) -> tuple[tuple[Step, ...], Workplace]:
    folder = Path(str(settings.get("target", ".")))
    if not (folder / "target.toml").is_file():
        raise UsageError(
            f"{what!r} is no session in {runs}.{similar(what, known)} To replay a branch or A..B, "
            f"name the folder of its target with --target: {folder} has no target.toml."
        )
    target, of_target = load_target(folder)
    scrub_environment()
    published: Mapping[str, float] = {}
    if results is not None:
        if not results.is_file():
            raise UsageError(f"--results {results}: no such file.")
        published = values_of_results(results.read_text(errors="replace"), str(results), target.goal)
    repo = Repo(folder)
    if ".." not in what and repo.resolve(what) is None:
        names = [*known, *(name.removeprefix("refs/heads/") for name in repo.refs.below("refs/heads/"))]
        raise UsageError(f"{what!r} is neither a session in {runs} nor a branch of {repo.top}.{similar(what, names)}")
    steps = steps_of_branch(repo, target, what, published)
    return steps, workplace(make_settings({**settings, "runs": str(runs)}, None, of_target), say)
