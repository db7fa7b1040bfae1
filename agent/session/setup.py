"""From settings to a running session: every check comes before anything is made, and before any GPU starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.settings import Settings


import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET

from agent.judge.noise import noise_of
from agent.judge.policy import Policy, default_calibration, policy_from
from agent.ledger.events import Resumed, SessionStarted
from agent.ledger.journal import Ledger
from agent.ledger.state import State
from agent.llm.client import is_loopback
from agent.llm.sleep_mode import Sleeper, WakingChat
from agent.observers.notify import Notifier, make_notifier
from agent.proposers.protocol import Context, Proposer
from agent.repo.refs import RunRefs
from agent.rundir.directory import RunDirectory, environment, new_tag
from agent.rundir.stop import Stopper
from agent.session.loop import Session
from agent.session.stopping import EndOfNight
from agent.settings import NEED_MODEL, Settings, check_calibration, check_settings, make_settings, without_effect
from agent.target import Target
from agent.workers.gpu_sharing import find_sleeper, memory_for_trials
from agent.workers.local import LocalWorkers, Workers
from agent.workers.runtime import Workplace, workplace

if TYPE_CHECKING:
    from agent.llm.chat import Chat
    from agent.observers.protocol import View
    from agent.proposers.block import BlockProposer

# Seconds that one call bears with a failing server; who waits asks again, and looks for reasons to stop in between.
MODEL_PATIENCE = {"wait": 30.0, "cma": 30.0, "stop": 300.0}


@dataclasses.dataclass(frozen=True)
class Parts(Workplace):
    """What a session is made of."""

    proposer: Proposer
    policy: Policy
    calibration: int
    notifier: Notifier | None = None
    sleeper: Sleeper | None = None
    ahead: bool = False  # whether the model is asked while a trial trains


def assemble(settings: Settings, say: Callable[[str], None]) -> Parts:
    """Check the settings, the workplace and the model server, in this order.

    Raises:
        UsageError, EnvironmentProblem: what is wrong, where, and what to do.
    """
    check_settings(settings)
    policy = policy_from(settings.policy, keep_simpler=settings.keep_simpler)
    calibration = settings.calibrate
    if calibration is None:
        calibration = default_calibration(policy, settings.trials)
    check_calibration(calibration, policy)
    for sentence in without_effect(settings):
        say(sentence)
    notifier = make_notifier(settings.notify, settings.tag, settings.notify_minutes)
    place = workplace(settings, say)
    source = place.repo.read(place.repo.head(), place.target.path)
    sleeper = find_sleeper(settings, place.device)
    proposer = make_session_proposer(settings, place.target, source, sleeper)
    place = dataclasses.replace(place, target=memory_for_trials(place.target, settings, place.device, sleeper, say))
    made = {item.name: getattr(place, item.name) for item in dataclasses.fields(place)}
    calibration = max(calibration, 1)
    ahead = asks_ahead(settings, sleeper)
    return Parts(
        **made,
        proposer=proposer,
        policy=policy,
        calibration=calibration,
        notifier=notifier,
        sleeper=sleeper,
        ahead=ahead,
    )


def make_session_proposer(settings: Settings, target: Target, source: str, sleeper: Sleeper | None = None) -> Proposer:
    model: Chat | None = None
    if settings.proposer in NEED_MODEL:
        from agent.llm.client import ChatModel

        patience = MODEL_PATIENCE[settings.on_llm_failure]
        model = ChatModel(
            settings.llm_base_url, settings.llm_model or None, timeout=settings.llm_timeout, patience=patience
        )
        model = WakingChat(model, sleeper) if sleeper is not None else model
        model.describe()  # a server that is not there is said before anything is made
    if settings.proposer == "code":
        from agent.proposers.code.proposer import CodeProposer

        assert model is not None
        code = CodeProposer(model, path=target.path, repairs=settings.repairs, temperature=settings.llm_temperature)
        if not settings.on_plateau:
            return code
        from agent.proposers.plateau import PlateauHandOver
        from agent.space.space import SearchSpace

        toml = target.folder / "target.toml"
        SearchSpace.from_toml(toml, source=source)  # a block that cannot be searched is said now
        return PlateauHandOver(code, toml, target.goal, settings.on_plateau)
    return block_proposer(settings, target, source, model)


def start(settings: Settings, view: View, say: Callable[[str], None]) -> RunDirectory:
    """A new run, from the checks to its end."""
    root = Path(settings.runs)
    settings = dataclasses.replace(settings, tag=settings.tag or new_tag(root))
    directory = RunDirectory(root, settings.tag)
    if directory.path.exists():
        raise UsageError(
            f"{directory.path} exists. `overnight resume {settings.tag}` goes on with it; "
            f"another --tag starts a new run."
        )
    parts = assemble(settings, say)
    repo, refs = parts.repo, RunRefs(parts.repo, settings.tag)
    if dirty := repo.dirty():
        raise UsageError(
            f"the target has uncommitted changes ({', '.join(map(str, dirty[:3]))}). The baseline is a commit: "
            f"git commit or git stash them."
        )
    if old := list(refs.existing()):
        raise UsageError(
            f"{old[0]} exists from an earlier run. Choose another --tag, or delete it: git update-ref -d {old[0]}"
        )
    with at_work(parts, directory) as force:
        directory.create(record_of(parts))
        with directory.lock(), Ledger(directory.ledger) as ledger:
            ledger.append(session_event(parts, directory))
            run(parts, force, directory, ledger, refs, view)
    return directory


def resume(root: Path, tag: str, changes: Mapping[str, Any], view: View, say: Callable[[str], None]) -> RunDirectory:
    """Go on with a run after any interruption, under the settings it has by now and the given changes."""
    directory = RunDirectory(root, tag)
    directory.read_settings()  # says what is wrong with it before anything is made in it
    with directory.lock(), Ledger(directory.ledger) as ledger:
        before = directory.read_settings(ledger.state)["run"]
        settings = dataclasses.replace(make_settings({**before, **changes}, None), runs=str(root), tag=tag)
        parts = assemble(settings, say)
        if not ledger.events:
            ledger.append(session_event(parts, directory))
        check_same(ledger.state, parts)
        directory.forget_stop()
        with at_work(parts, directory) as force:
            changed = changes_of(ledger.state, parts, directory, before, changes)
            ledger.append(Resumed(attempt=ledger.state.resumed + 1, changes=changed or UNSET))
            run(parts, force, directory, ledger, RunRefs(parts.repo, tag), view)
    return directory


def check_same(state: State, parts: Parts) -> None:
    """Values measured on other data, or after more training, cannot be compared with these."""
    data = parts.prepared.hash if parts.prepared else ""
    if state.session.data != data:
        raise UsageError(
            "the prepared data differs from that of the run: its values could not be compared. Start a new run."
        )
    budget = str(parts.target.budget)
    if (before := state.session.budget or budget) != budget:
        raise UsageError(
            f"the budget is {budget}, and that of the run {before}: their values could not be compared. Put it back, "
            f"or start a new run."
        )


def changes_of(
    state: State, parts: Parts, directory: RunDirectory, before: Mapping[str, Any], given: Iterable[str]
) -> dict[str, Any]:
    """What a resume changes of the session as it was recorded; the rest is of the run, or was checked. ``settings`` is
    all that was given to this resume or an earlier one, and is not as in run.toml: it holds from now on."""
    may = ("proposer", "sandbox", "policy", "seed", "trials", "workers", "device")
    event, settings = session_event(parts, directory), lasting(parts.settings)
    now: dict[str, Any] = {name: getattr(event, name) for name in may}
    changed = {name: value for name, value in now.items() if getattr(state.session, name) != value}
    if new := {name: settings[name] for name in given if settings[name] != before.get(name)}:
        changed["settings"] = {**state.settings, **new}
    return changed


@dataclasses.dataclass(frozen=True)
class Force:
    """Who makes the runs of a session, and what ends it."""

    workers: Workers
    stopper: Stopper


@contextlib.contextmanager
def at_work(parts: Parts, directory: RunDirectory) -> Iterator[Force]:
    """Errors: see ``find_workers``."""
    stopper = Stopper(directory)
    with contextlib.closing(find_workers(parts, f"{directory.path.resolve()}", stopper.now)) as workers:
        yield Force(workers, stopper)


def run(parts: Parts, force: Force, directory: RunDirectory, ledger: Ledger, refs: RunRefs, shown: View) -> None:
    from agent.observers.heartbeat import Heartbeat
    from agent.observers.protocol import Several
    from agent.observers.session_log import SessionLog

    view = Several(
        shown, SessionLog(directory.log), Heartbeat(directory.progress), *([parts.notifier] if parts.notifier else [])
    )
    session = Session(
        directory=directory,
        ledger=ledger,
        repo=parts.repo,
        refs=refs,
        target=parts.target,
        workers=force.workers,
        proposer=parts.proposer,
        policy=parts.policy,
        calibration=parts.calibration,
        seed=parts.settings.seed,
        view=view,
        ending=EndOfNight(parts.settings, force.stopper, parts.target),
        describe=lambda state: describe(state, parts, directory),
        wait_for_model=parts.settings.on_llm_failure == "wait",
        ahead=int(parts.ahead),
    )
    with contextlib.closing(parts.repo), force.stopper.listening(), view:
        view.event(ledger.events[-1], ledger.state)  # how it began, which was written before anyone looked
        session.run()


def find_workers(place: Workplace, owner: str, stop_now: Callable[[], bool]) -> Workers:
    """On the Ray cluster that was named, else on this machine.

    Raises:
        UsageError, EnvironmentProblem: there are not enough devices, or the cluster does not answer.
    """
    settings = place.settings
    if settings.ray_address:
        if place.sleeper is not None:
            raise UsageError("--ray-address: the model server would sleep for trials elsewhere. Add --llm-sleep off.")
        if settings.ray_address == "local":  # on a cluster Ray sets cores aside; here it is told to have enough
            place.check_beside(settings.workers)
        from agent.workers.ray import RayWorkers

        return RayWorkers(settings.ray_address, settings.workers, place, owner, stop_now)
    return LocalWorkers(lambda stop: place.experiments(owner, stop, settings.workers), stop_now)


def asks_ahead(settings: Settings, sleeper: Sleeper | None) -> bool:
    """Whether the model is asked while a trial trains: never where both may share a device, which slows the trial.

    Raises:
        UsageError: it shall be, and it sleeps while a trial trains.
    """
    if settings.ask_ahead == "on" and sleeper is not None:
        raise UsageError(
            "--ask-ahead on: the model server sleeps while a trial trains. Put it on a GPU of its own and add "
            "--llm-sleep off, or leave --ask-ahead out."
        )
    if settings.proposer not in NEED_MODEL:
        return False  # who answers at once is asked when everything is known
    return settings.ask_ahead == "on" or (settings.ask_ahead == "auto" and not is_loopback(settings.llm_base_url))


def describe(state: State, parts: Parts, directory: RunDirectory) -> Context:
    """What a proposer may know: everything but the test split."""
    number = len(state.records) + 1
    head = state.head
    noise = noise_of(state)
    finished = state.finished
    since_keep = next((k for k, r in enumerate(reversed(finished)) if r.decision == "keep"), len(finished))
    without_test = tuple(dataclasses.replace(r, runs=tuple(m for m in r.runs if m.role != "test")) for r in finished)
    incumbent = tuple(m for m in state.runs.get(state.incumbent, ()) if m.role != "test")
    return Context(
        parent=head,
        source=parts.repo.read(head, parts.target.path),
        path=parts.target.path,
        history=without_test,
        incumbent_runs=incumbent,
        noise_sd=noise.sd,
        notes=directory.notes.read_text(encoding="utf-8", errors="replace") if directory.notes.exists() else "",
        hardware=f"{parts.device.kind}, {parts.device.threads} threads, {parts.target.memory_gb:g} GB",
        budget=str(parts.target.budget),
        trial=number,
        seed=parts.settings.seed,
        plateau=since_keep,
        metric=parts.target.metric,
        goal=parts.target.goal,
        transcripts=directory.trial(number),
        run_directory=directory.path,
        baseline=parts.repo.read(state.baseline, parts.target.path),
        open=state.open_records,
    )


def session_event(parts: Parts, directory: RunDirectory) -> SessionStarted:
    settings, target = parts.settings, parts.target
    return SessionStarted(
        tag=directory.tag,
        baseline=parts.repo.head(),
        metric=target.metric,
        goal=target.goal,
        proposer=settings.proposer,
        sandbox=parts.sandbox.name,
        policy=parts.policy.name,
        seed=settings.seed,
        budget=str(target.budget),
        trials=settings.trials,
        workers=settings.workers,
        device=parts.device.uuid or parts.device.kind,
        target=target.name,
        path=target.path,
        self_reported=target.score == "stdout",
        data=parts.prepared.hash if parts.prepared else "",
    )


def record_of(parts: Parts) -> dict[str, Any]:
    """run.toml: everything that was decided at the start."""
    target = dataclasses.asdict(parts.target)
    data = {"hash": parts.prepared.hash, **dict(parts.prepared.tokens)} if parts.prepared else {}
    return {"run": lasting(parts.settings), "target": target, "data": data, **environment()}


def lasting(settings: Settings) -> dict[str, Any]:
    """Settings as they are written down: a resume may start in another folder."""
    paths = {"target": str(Path(settings.target).resolve()), "cache": str(Path(settings.cache).expanduser().resolve())}
    if settings.notify not in ("", "env"):
        paths["notify"] = str(Path(settings.notify).expanduser().resolve())
    return {**dataclasses.asdict(settings), **paths}


def block_proposer(settings: Settings, target: Target, source: str, model: Chat | None) -> BlockProposer:
    """The search method that the settings name, over the block of ``source``."""
    from agent.proposers import make_proposer
    from agent.proposers.block import BlockProposer
    from agent.space.space import SearchSpace

    space = SearchSpace.from_toml(target.folder / "target.toml", source=source)
    options = centaur_options(settings) if settings.proposer == "centaur" else {}
    method = make_proposer(settings.proposer, space, seed=settings.seed, llm=model, **options)
    return BlockProposer(settings.proposer, method, space, target.goal)


def centaur_options(settings: Settings) -> dict[str, Any]:
    """What Centaur is told of the settings. Raises ``UsageError`` for a share that is none."""
    share = None
    if settings.centaur_share != "auto":
        try:
            share = float(settings.centaur_share)
        except ValueError:
            text = f"--centaur-share {settings.centaur_share}: write auto, or a number from 0 to 1."
            raise UsageError(text) from None
    on_failure = "cma" if settings.on_llm_failure == "cma" else "raise"
    return {"share": share, "screen": settings.screen, "on_failure": on_failure}
