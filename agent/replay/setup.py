"""From the arguments of ``overnight replay`` to a running replay: every check before anything is made."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import UsageError
from agent.ledger.events import Resumed, SessionStarted
from agent.ledger.journal import Ledger, read
from agent.ledger.state import fold
from agent.replay import runner as replay
from agent.replay.runner import Plan, Replay, Result
from agent.replay.steps import Step, named, steps_of_branch, steps_of_run
from agent.repo.repo import Repo, scrub_environment
from agent.rundir.directory import RunDirectory, find_runs
from agent.rundir.results import values_of_results
from agent.rundir.stop import Stopper
from agent.settings import MOST_THREADS, check_threads, make_settings
from agent.target import Target, load_target
from agent.trial.outputs import number
from agent.workers.runtime import Workplace, workplace

if TYPE_CHECKING:
    from agent.replay.view import ReplayView

ROUNDS = 3  # runs of each step, where none are named
IDENTITY = ("what", "baseline", "commits", "budget", "data", "exact")  # of a replay, that cannot change when it goes on


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked for. ``settings`` are those of a session that also count here."""

    what: str
    seeds: int | None = None
    exact: bool = False
    ablate: bool = False
    name: str = ""  # of the replay's own directory
    results: Path | None = None
    workers: int = 1  # runs beside each other
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def perform(
    request: Request, runs: Path, view: Callable[[Plan], ReplayView], say: Callable[[str], None]
) -> tuple[Result, list[str], RunDirectory]:
    """Replay, or go on with a replay that was interrupted; the result, what differs where bits do, and its directory.

    Raises:
        UsageError, EnvironmentProblem: what is wrong, where, and what to do.
    """
    seeds = (1 if request.exact else ROUNDS) if request.seeds is None else request.seeds
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: must be at least 1.")
    if request.workers < 1:
        raise UsageError(f"--workers {request.workers}: must be at least 1.")
    check_threads(int(request.settings.get("threads", 0)))
    if request.exact and (request.ablate or request.settings.get("budget")):
        other = "--ablate" if request.ablate else "--budget"
        raise UsageError(f"--exact follows what is recorded: it does not go with {other}.")
    plan, place = _prepare(dataclasses.replace(request, seeds=seeds), runs, say)
    directory = RunDirectory(runs, request.name or _name(request.what, request.exact))
    _check_branch(plan, place.repo, directory)
    directory.path.mkdir(parents=True, exist_ok=True)
    (directory.path / ".gitignore").write_text("*\n")
    stopper = Stopper(directory)
    with directory.lock(), Ledger(directory.ledger) as ledger:
        experiments = place.experiments(f"{directory.path.resolve()}", stopper.now, request.workers)
        _begin(ledger, plan, place, directory)
        with stopper.listening(), view(plan) as shown:
            Replay(plan, directory, ledger, place.repo, experiments, shown).run()
        state = ledger.state
        result = replay.result_of(plan, state, place.repo)
    differs = list(replay.differences(plan, directory.path, state)) if plan.exact else []
    return result, differs, directory


def _prepare(request: Request, runs: Path, say: Callable[[str], None]) -> tuple[Plan, Workplace]:
    known = find_runs(runs)
    if request.what in known:
        return _of_run(request, runs, say)
    if request.exact:
        raise UsageError(f"--exact needs the schedule traces of a run, and {request.what!r} is none of {runs}.")
    return _of_branch(request, known, runs, say)


def _of_run(request: Request, runs: Path, say: Callable[[str], None]) -> tuple[Plan, Workplace]:
    if request.results is not None:
        raise UsageError(f"--results: run {request.what} has recorded values of its own. Leave it out.")
    source = RunDirectory(runs, request.what)
    state = fold(read(source.ledger), str(source.ledger))
    saved = source.read_settings(state)["run"]
    if source.running():
        say(f"run {request.what} is still going on: what it has kept so far is replayed.")
    given = {**saved, **request.settings, "runs": str(runs), "ray_address": ""}  # a replay runs here
    steps = steps_of_run(state)
    if request.exact:
        given["threads"] = _recorded_threads(steps, source.path)
    if not request.settings.get("budget") and saved.get("budget"):
        given["budget"] = saved["budget"]
    if not Path(str(given["target"])).is_dir():
        raise UsageError(
            f"the target of this run, {given['target']}, is not there any more. Name its folder with --target."
        )
    place = workplace(make_settings(given, None), say)
    steps = named(steps, place.repo, request.what)
    if request.exact:
        place = _with_length(place, steps, source.path)
    same = request.exact or str(place.target.budget) == state.session.budget
    if not same:
        say("the budget differs from the recorded one: gains may, too, and the recorded noise does not count.")
    if (data := place.prepared.hash if place.prepared else "") != state.session.data:
        raise UsageError(f"the prepared data ({data[:12]}) differs from that of the run: values cannot be compared.")
    return _plan(request, place.target, steps, same, source.path), place


def _of_branch(
    request: Request, known: Sequence[str], runs: Path, say: Callable[[str], None]
) -> tuple[Plan, Workplace]:
    folder = Path(str(request.settings.get("target", ".")))
    if not (folder / "target.toml").is_file():
        near = difflib.get_close_matches(request.what, known, n=3, cutoff=0.3)
        raise UsageError(
            f"{request.what!r} is no run in {runs}{' (nearest: ' + ', '.join(near) + ')' if near else ''}; to replay a "
            f"branch or A..B, name the folder of its target with --target: {folder} has no target.toml."
        )
    target, target_run = load_target(folder)
    scrub_environment()
    repo = Repo(folder)
    with contextlib.closing(repo):
        branches = [name.removeprefix("refs/heads/") for name in repo.refs("refs/heads/")]
        if ".." not in request.what and repo.resolve(request.what) is None:
            near = difflib.get_close_matches(request.what, [*known, *branches], n=3, cutoff=0.3)
            raise UsageError(
                f"{request.what!r} is neither a run in {runs} nor a branch of {repo.top}."
                + (f" Nearest: {', '.join(near)}." if near else "")
            )
        published = None
        if request.results is not None:
            if not request.results.is_file():
                raise UsageError(f"--results {request.results}: no such file.")
            published = values_of_results(request.results.read_text(errors="replace"), str(request.results))
        sign = 1.0 if target.goal == "minimize" else -1.0
        steps = steps_of_branch(repo, target.path, request.what, target.metric, sign, published)
    place = workplace(make_settings({**request.settings, "runs": str(runs)}, None, target_run), say)
    return _plan(request, place.target, steps, False, None), place


def _plan(request: Request, target: Target, steps: Sequence[Step], same: bool, source: Path | None) -> Plan:
    return Plan(
        what=request.what,
        steps=tuple(steps),
        rounds=request.seeds or ROUNDS,
        goal=target.goal,
        metric=target.metric,
        path=target.path,
        budget=str(target.budget),
        exact=request.exact,
        ablate=request.ablate,
        recorded_noise=same,
        source=source,
        seed=int(request.settings.get("seed", 0)),
        self_reported=target.score == "stdout",
    )


def _name(what: str, exact: bool) -> str:
    """``replay-nov23``; a range or a branch becomes a name that a folder can have."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in what.replace("..", "-to-"))
    return f"replay-{plain.strip('-.')[:40] or 'branch'}{'-exact' if exact else ''}"


def _begin(ledger: Ledger, plan: Plan, place: Workplace, directory: RunDirectory) -> None:
    event = SessionStarted(
        kind="replay",
        tag=directory.tag,
        metric=plan.metric,
        goal=plan.goal,
        sandbox=place.sandbox.name,
        device=place.device.uuid or place.device.kind,
        self_reported=plan.self_reported,
        what=plan.what,
        baseline=plan.steps[0].commit,
        commits=tuple(step.commit for step in plan.steps),
        budget=plan.budget,
        data=place.prepared.hash if place.prepared else "",
        exact=plan.exact,
    )
    if not ledger.events:
        ledger.append(event)
        return
    session = ledger.state.session
    different = [name for name in IDENTITY if getattr(session, name) != getattr(event, name)]
    if different:
        raise UsageError(
            f"{directory.path} holds a replay with other {' and '.join(different)}. Name a new one: --name NAME."
        )
    ledger.append(Resumed(attempt=ledger.state.resumed + 1))


def _check_branch(plan: Plan, repo: Repo, directory: RunDirectory) -> None:
    """A branch of that name may be somebody's work."""
    if not plan.ablate or directory.ledger.exists():
        return
    name = replay.minimal_branch(plan.what)
    if repo.ref(f"refs/heads/{name}"):
        raise UsageError(f"branch {name} exists. Rename or delete it first: git branch -m {name} NAME")


def _recorded_threads(steps: Sequence[Step], source: Path) -> int:
    """Of the recorded runs; another number of threads adds up in another order."""
    for step in steps:
        for run in replay.traced(step, source):
            trace = replay.trace_of(source, run)
            if trace:
                threads = number(replay.header_of(trace).get("threads"))
                if threads is None or not 1 <= threads <= MOST_THREADS:
                    raise UsageError(f"{trace} names no number of threads.")
                return int(threads)
    raise UsageError(
        f"no run in {source} has kept its schedule trace ({replay.TRACE}): without it nothing can be followed exactly. "
        f'A target with score = "stdout" writes none. Leave --exact out.'
    )


def _with_length(place: Workplace, steps: Sequence[Step], source: Path) -> Workplace:
    """The budget of the longest trace."""
    traces = [t for step in steps for run in replay.traced(step, source) if (t := replay.trace_of(source, run))]
    longest = max(map(replay.length_of, traces))
    budget = replay.exact_budget(place.target.budget, longest)
    return dataclasses.replace(place, target=dataclasses.replace(place.target, budget=budget))
