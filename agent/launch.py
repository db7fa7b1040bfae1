"""From settings to a running session: every check comes before anything is made, and before any GPU starts."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.checks import check_calibration, check_settings, without_effect
from agent.compiled import FILE, Compiled
from agent.config import NEED_MODEL, Settings, Target, load_target, make_settings, parse_budget
from agent.context import Context, Proposer
from agent.ending import EndOfNight, Stopper
from agent.errors import EnvironmentProblem, UsageError
from agent.evidence import noise_of
from agent.judge import Policy, default_calibration, policy_from
from agent.ledger import Ledger, State
from agent.mounts import check_mounts
from agent.notify import Notifier, make_notifier
from agent.repo import Repo, RunRefs, scrub_environment
from agent.rundir import RunDirectory, environment, new_tag
from agent.session import Session
from agent.sharing import SharedExperiment, WakingChat, find_sleeper, is_loopback, memory_for_trials
from agent.sleeping import Sleeper
from agent.trial import Experiment
from agent.workers import LocalWorkers, Workers
from agent.workspace import sweep
from sandbox import make_sandbox, missing, protects
from sandbox.gpu import gpus
from sandbox.types import Device, Sandbox, SandboxUnavailable

if TYPE_CHECKING:
    from agent.chat import Chat
    from agent.views.live import View
    from nanogpt_target.prepare import Prepared

# Seconds that one call bears with a failing server; who waits asks again, and looks for reasons to stop in between.
MODEL_PATIENCE = {"wait": 30.0, "cma": 30.0, "stop": 300.0}


@dataclasses.dataclass(frozen=True)
class Workplace:
    """Where commits of a target are run, checked and ready; nothing has been written yet."""

    settings: Settings
    target: Target
    repo: Repo
    sandbox: Sandbox
    device: Device
    prepared: Prepared | None

    @property
    def sleeper(self) -> Sleeper | None:
        """The model server that sleeps while a commit runs; None where no model has a part in it."""
        return None

    def experiments(self, owner: str, stop_now: Callable[[], bool], workers: int) -> list[Experiment]:
        """As many that can measure at the same time, each with a GPU of its own.

        ``owner`` is the path of the run directory. What an earlier process left there in the sandbox is swept away.

        Raises:
            UsageError: they would measure each other.
        """
        devices = self._devices(workers)
        if self.sleeper is not None and workers > 1:
            raise UsageError(
                f"--workers {workers}: the model server would wake up for one trial beside another. Put it on a GPU of "
                f"its own and add --llm-sleep off, or leave --workers out."
            )
        self.sandbox.sweep(owner)
        sweep(owner)
        return [  # a Repo for each: they work in threads of their own, and it talks to one git process
            SharedExperiment(
                Repo(self.target.folder),
                self.target,
                self.sandbox,
                device,
                owner,
                self.prepared,
                stop_now,
                Compiled(Path(owner) / FILE.name),
                sleeper=self.sleeper,
            )
            for device in devices
        ]

    def check_beside(self, workers: int) -> None:
        """Raises UsageError where runs on this machine beside each other would measure each other."""
        if workers > 1 and self.device.kind == "cpu" and self.target.budget.kind == "seconds":
            raise UsageError(
                f"--workers {workers}: runs beside each other take each other's processor, and the budget is "
                f"{self.target.budget}. Give one that counts work (--budget 200steps), or leave --workers out."
            )

    def _devices(self, workers: int) -> list[Device]:
        if workers < 1:
            raise UsageError(f"--workers {workers}: must be at least 1.")
        self.check_beside(workers)
        if workers == 1 or self.device.kind == "cpu":
            return [self.device] * workers
        others = {uuid: model for uuid, model in gpus().items() if uuid != self.device.uuid}
        if len(others) + 1 < workers:
            raise UsageError(f"--workers {workers}: each needs a GPU of its own, and there are {len(others) + 1}.")
        named = list(others.items())[: workers - 1]
        more = (dataclasses.replace(self.device, uuid=uuid, model=model) for uuid, model in named)
        return [self.device, *more]


@dataclasses.dataclass(frozen=True)
class Parts(Workplace):
    """What a session is made of."""

    proposer: Proposer
    policy: Policy
    calibration: int
    notifier: Notifier | None = None
    sleeper: Sleeper | None = None
    ahead: bool = False  # whether the model is asked while a trial trains


def workplace(settings: Settings, say: Callable[[str], None]) -> Workplace:
    """Check the target, the repository, the sandbox and the data, in this order.

    Raises:
        UsageError, EnvironmentProblem: what is wrong, where, and what to do.
    """
    folder = Path(settings.target)
    target, _ = load_target(folder)
    check_mounts(target)
    if settings.budget:
        target = dataclasses.replace(target, budget=parse_budget(settings.budget, target.budget))
    scrub_environment()
    repo = Repo(folder)
    device = find_device(settings)
    sandbox = find_sandbox(settings, say)
    return Workplace(settings, target, repo, sandbox, device, prepare_data(settings, target, say))


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


def find_sandbox(settings: Settings, say: Callable[[str], None]) -> Sandbox:
    """The sandbox that was named; code that a model wrote is refused where nothing protects the machine from it."""
    try:
        sandbox = make_sandbox(settings.sandbox, image=settings.image)
        sandbox.check()
    except SandboxUnavailable as error:
        if settings.sandbox != "auto" or settings.proposer == "code":
            raise EnvironmentProblem(str(error)) from None
        sandbox = make_sandbox("process")  # methods that change nothing but numbers may do without
        sandbox.check()
    if not protects(sandbox):
        lacking = "; ".join(g.value for g in missing(sandbox))
        if settings.proposer == "code" and settings.sandbox != sandbox.name:
            raise EnvironmentProblem(
                f"the sandbox {sandbox.name} does not promise: {lacking}. Edits to code need more: use --sandbox "
                f"docker or bwrap, or name --sandbox {sandbox.name} if this machine may be harmed."
            )
        say(f"sandbox {sandbox.name} does not promise: {lacking}")
    return sandbox


def find_device(settings: Settings) -> Device:
    """One GPU by its UUID, or the CPU."""
    threads = settings.threads or len(os.sched_getaffinity(0))
    if settings.device == "cpu":
        return Device("cpu", threads=threads)
    if settings.ray_address and settings.device != "auto":  # this machine need not have any
        if settings.device != "cuda":
            raise UsageError(f"--device {settings.device}: with --ray-address Ray picks the GPUs. Use --device cuda.")
        return Device("cuda", threads=settings.threads)
    found = gpus()
    if settings.device in ("auto", "cuda"):
        if found:
            uuid, model = next(iter(found.items()))
            return Device("cuda", uuid, threads, model)
        if settings.device == "cuda":
            raise EnvironmentProblem("--device cuda: nvidia-smi lists no GPU. Use --device cpu, or mend the driver.")
        return Device("cpu", threads=threads)
    if settings.device not in found:
        raise EnvironmentProblem(f"--device {settings.device}: no such GPU. There are: {', '.join(found) or 'none'}.")
    return Device("cuda", settings.device, threads, found[settings.device])


def prepare_data(settings: Settings, target: Target, say: Callable[[str], None]) -> Prepared | None:
    if target.score != "trusted":
        return None
    from nanogpt_target.prepare import DataError, prepare

    try:
        return prepare(target.data, Path(settings.cache).expanduser() / "data", progress=say)
    except DataError as error:
        raise UsageError(f"{target.folder / 'target.toml'}, [data]: {error}") from None
    except OSError as error:
        raise EnvironmentProblem(f"cannot prepare the data in {settings.cache}: {error}") from None


def make_session_proposer(settings: Settings, target: Target, source: str, sleeper: Sleeper | None = None) -> Proposer:
    model: Chat | None = None
    if settings.proposer in NEED_MODEL:
        from agent.llm import ChatModel

        patience = MODEL_PATIENCE[settings.on_llm_failure]
        model = ChatModel(
            settings.llm_base_url, settings.llm_model or None, timeout=settings.llm_timeout, patience=patience
        )
        model = WakingChat(model, sleeper) if sleeper is not None else model
        model.describe()  # a server that is not there is said before anything is made
    if settings.proposer == "code":
        from agent.proposers.code import CodeProposer

        assert model is not None
        code = CodeProposer(model, path=target.path, repairs=settings.repairs, temperature=settings.llm_temperature)
        if not settings.on_plateau:
            return code
        from agent.proposers.handover import PlateauHandOver
        from agent.space import SearchSpace

        toml = target.folder / "target.toml"
        SearchSpace.from_toml(toml, source=source)  # a block that cannot be searched is said now
        return PlateauHandOver(code, toml, target.goal, settings.on_plateau)
    from agent.proposers.block import BlockProposer

    return BlockProposer.from_settings(settings, target, source, model)


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
            ledger.append("session", **session_event(parts, directory))
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
            ledger.append("session", **session_event(parts, directory))
        check_same(ledger.state, parts)
        directory.forget_stop()
        with at_work(parts, directory) as force:
            changed = changes_of(ledger.state, parts, directory, before, changes)
            ledger.append("resumed", attempt=ledger.state.resumed + 1, **({"changes": changed} if changed else {}))
            run(parts, force, directory, ledger, RunRefs(parts.repo, tag), view)
    return directory


def check_same(state: State, parts: Parts) -> None:
    """Values measured on other data, or after more training, cannot be compared with these."""
    data = parts.prepared.hash if parts.prepared else ""
    if state.session.get("data", "") != data:
        raise UsageError(
            "the prepared data differs from that of the run: its values could not be compared. Start a new run."
        )
    budget = str(parts.target.budget)
    if (before := state.session.get("budget", budget)) != budget:
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
    changed = {name: event[name] for name in may if name in state.session and state.session[name] != event[name]}
    if new := {name: settings[name] for name in given if settings[name] != before.get(name)}:
        changed["settings"] = {**state.session.get("settings", {}), **new}
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
    from agent.heartbeat import Heartbeat
    from agent.sessionlog import SessionLog
    from agent.views.live import Several

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
        from agent.cluster import RayWorkers

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


def session_event(parts: Parts, directory: RunDirectory) -> dict[str, Any]:
    settings, target = parts.settings, parts.target
    return {
        "tag": directory.tag,
        "baseline": parts.repo.head(),
        "metric": target.metric,
        "goal": target.goal,
        "proposer": settings.proposer,
        "sandbox": parts.sandbox.name,
        "policy": parts.policy.name,
        "seed": settings.seed,
        "budget": str(target.budget),
        "trials": settings.trials,
        "workers": settings.workers,
        "device": parts.device.uuid or parts.device.kind,
        "target": target.name,
        "path": target.path,
        "self_reported": target.score == "stdout",
        "data": parts.prepared.hash if parts.prepared else "",
    }


def record_of(parts: Parts) -> dict[str, Any]:
    """run.toml: everything that was decided at the start."""
    target = dataclasses.asdict(parts.target)
    data = {"hash": parts.prepared.hash, **dict(parts.prepared.tokens)} if parts.prepared else {}
    return {"run": lasting(parts.settings), "target": target, "data": data, **environment()}


def lasting(settings: Settings) -> dict[str, Any]:
    """Settings as they are written down: a resume may start in another folder."""
    paths = {"target": str(Path(settings.target).resolve())}
    if settings.notify not in ("", "env"):
        paths["notify"] = str(Path(settings.notify).expanduser().resolve())
    return {**dataclasses.asdict(settings), **paths}
