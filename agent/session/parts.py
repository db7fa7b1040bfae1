"""From settings to the parts of a session: every check happens before a file is written or a GPU is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from agent.errors import UsageError
from agent.judge.policy import Policy, default_calibration, needs_noise, policy_from
from agent.llm.chat import Chat
from agent.llm.client import ChatModel, is_loopback
from agent.llm.sleeping_server import SleepingServer, WakingChat
from agent.observers.notify import make_notifier
from agent.observers.protocol import Observer
from agent.observers.trackers.track import Track, parse_tracks
from agent.proposers import make_proposer
from agent.proposers.block import BlockProposer
from agent.proposers.code.proposer import CodeProposer
from agent.proposers.hand_over import PlateauHandOver, StandIn, search_from
from agent.proposers.ideas.bank import load_bank
from agent.proposers.ideas.choice import BankMaterial
from agent.proposers.ideas.proposer import IdeasProposer
from agent.proposers.protocol import Context, Proposer
from agent.settings import EDIT_CODE, NEED_MODEL, Settings, check_settings, model_share, without_effect
from agent.space.space import SearchSpace
from agent.target import Target
from agent.trial.trusted_target import prepare
from agent.workers.gpu_sharing import find_sleeper, memory_for_trials
from agent.workers.runtime import Workplace, checked_place

# Seconds for which one request is repeated while the server fails. With "wait" the session asks again afterwards.
MODEL_PATIENCE = {"wait": 30.0, "cma": 30.0, "stop": 300.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts(Workplace):
    """Everything that a session needs, checked."""

    proposer: Proposer
    policy: Policy
    calibration: int  # runs of the baseline before the first proposal
    notifier: Observer
    tracks: tuple[Track, ...] = ()
    ahead: bool = False  # the model is asked while a trial trains


def assemble(settings: Settings, say: Callable[[str], None]) -> Parts:
    """Check the settings, the workplace and the model server, in this order; then prepare the data.

    Raises:
        UsageError: a setting or the target is wrong.
        EnvironmentProblem: the sandbox, a device, the data or the model server is missing, or git cannot write.
    """
    check_settings(settings)
    policy = session_policy(settings, say)
    default = default_calibration(policy, settings.trials)
    calibration = default if settings.calibrate is None else settings.calibrate
    if calibration < 2 and needs_noise(policy):
        raise UsageError(
            f"--calibrate {calibration}: the policy {policy.name} estimates the noise from at least 2 baseline runs. "
            f"Use --calibrate 3 or more, or --policy greedy."
        )
    for sentence in without_effect(settings):
        say(sentence)
    notifier = make_notifier(settings.notify, settings.tag, settings.notify_minutes) or Observer()
    tracks = parse_tracks(settings.track, settings.runs)
    settings = dataclasses.replace(settings, track=",".join(map(str, tracks)))  # a resume may start in another folder
    place = checked_place(settings)
    place.repo.check_writable()
    source = place.repo.read(place.repo.head(), place.target.path)
    if settings.gpu_hours and place.device.kind == "cpu":
        say(f"--gpu-hours {settings.gpu_hours:g} has no effect: runs train on the CPU.")
    sleeper = find_sleeper(settings, place.device)
    proposer = make_session_proposer(settings, place.target, source, sleeper)
    prepared = prepare(place.target, settings.cache, say)
    place.caution(say)
    for track in tracks:
        if problem := track.unreachable():
            say(f"--track {track}: {problem}. It is tried again until the session ends.")
    target = memory_for_trials(place.target, settings, place.device, sleeper, say)
    return Parts(
        **vars(dataclasses.replace(place, target=target, prepared=prepared, sleeper=sleeper)),
        proposer=proposer,
        policy=policy,
        calibration=max(calibration, 1),
        notifier=notifier,
        tracks=tracks,
        ahead=asks_ahead(settings, sleeper),
    )


def session_policy(settings: Settings, say: Callable[[str], None]) -> Policy:
    """The policy that the settings name; ``confirm`` in place of ``stacked`` where edits cannot be added up.

    Without trials, ``greedy``: one run of the baseline is enough. A resume takes the policy of the settings.
    """
    if settings.trials == 0:
        return policy_from("greedy")
    searches = settings.proposer not in EDIT_CODE or settings.on_plateau or settings.on_llm_loop == "cma"
    name = settings.policy
    if name == "stacked" and searches:
        say("--policy stacked: points of a search method set every value, so each runs alone, under policy confirm.")
        name = "confirm"
    elif name == "stacked" and settings.keep_simpler:
        say("--keep-simpler has no effect: policy stacked keeps only gains.")
    return policy_from(name, keep_simpler=settings.keep_simpler, stop_hopeless=settings.stop_hopeless)


def make_session_proposer(settings: Settings, target: Target, source: str, sleeper: SleepingServer | None) -> Proposer:
    """The proposer that the settings name, for a file with the text ``source``.

    Raises:
        ModelUnavailable: the model server does not answer.
        UsageError: the hyperparameter block cannot be searched, or a file of the idea bank is wrong.
    """
    model = _model(settings, sleeper) if settings.proposer in NEED_MODEL else None
    if settings.proposer not in EDIT_CODE:
        return block_proposer(settings, target, source, model)
    toml = target.folder / "target.toml"
    if settings.on_plateau or (model is not None and settings.on_llm_loop == "cma"):
        SearchSpace.from_toml(toml, source=source)  # raises now, not hours later

    def search(context: Context) -> Proposer:
        return search_from(context, toml, target.goal, settings.proposer)

    code = _code_proposer(settings, target, model, search)
    return PlateauHandOver(code, search, settings.on_plateau) if settings.on_plateau else code


def _code_proposer(
    settings: Settings, target: Target, model: Chat | None, search: Callable[[Context], Proposer]
) -> Proposer:
    if model is None:
        return IdeasProposer(load_bank(target.folder))
    bank = load_bank(target.folder) if settings.ideas or settings.on_llm_loop == "ideas" else ()
    material = BankMaterial(bank) if settings.ideas else None
    code = CodeProposer(model, repairs=settings.repairs, temperature=settings.llm_temperature, material=material)
    others = {"cma": search, "ideas": lambda _: IdeasProposer(bank)}
    return code if settings.on_llm_loop == "skip" else StandIn(code, others[settings.on_llm_loop])


def _model(settings: Settings, sleeper: SleepingServer | None) -> Chat:
    model: Chat = ChatModel(
        settings.llm_base_url, settings.llm_model or None, timeout=settings.llm_timeout,
        token_timeout=settings.llm_token_timeout, patience=MODEL_PATIENCE[settings.on_llm_failure],
    )  # fmt: skip
    model = WakingChat(model, sleeper) if sleeper is not None else model
    model.describe()  # raises if the server does not answer
    return model


def block_proposer(settings: Settings, target: Target, source: str, model: Chat | None) -> BlockProposer:
    """The search method that the settings name, over the block of ``source``."""
    space = SearchSpace.from_toml(target.folder / "target.toml", source=source)
    options: dict[str, Any] = {}
    if settings.proposer == "centaur":
        on_failure = "cma" if settings.on_llm_failure == "cma" else "raise"
        options = {"share": model_share(settings.centaur_share), "screen": settings.screen, "on_failure": on_failure}
    method = make_proposer(settings.proposer, space, seed=settings.seed, llm=model, **options)
    return BlockProposer(settings.proposer, method, space, target.goal)


def asks_ahead(settings: Settings, sleeper: SleepingServer | None) -> bool:
    """Whether the model is asked while a trial trains.

    "auto": only if the server is on another machine, because a shared device would slow the trial down.

    Raises:
        UsageError: ``--ask-ahead on`` with a server that sleeps while a trial trains.
    """
    if settings.ask_ahead == "on" and sleeper is not None:
        raise UsageError(
            "--ask-ahead on: the model server sleeps while a trial trains. Put it on a GPU of its own and add "
            "--llm-sleep off, or leave --ask-ahead out."
        )
    if settings.proposer not in NEED_MODEL:
        return False  # a search method answers at once and should know all results
    return settings.ask_ahead == "on" or (settings.ask_ahead == "auto" and not is_loopback(settings.llm_base_url))
