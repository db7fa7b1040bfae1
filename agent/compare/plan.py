"""What a comparison runs: methods × seeds, one session each, all with the same settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import UsageError, check_choice
from agent.files import replace_file
from agent.rundir.directory import RunDirectory, new_tag
from agent.settings import PROPOSERS, USED_BY, Settings, make_settings
from agent.target import load_target
from agent.toml import dump_toml, read_toml

METHODS = ("cma-es", "tpe", "random")
SEEDS = 3
USUAL = {"policy": "greedy", "calibrate": 1}  # each trial is one run, as in the paper
OWN = ("tag", "proposer", "seed", "until", "hours", "detach", "memory")  # set by the comparison, or without meaning
MOVABLE = ("runs", "cache", "llm_base_url", "llm_timeout", "llm_token_timeout")  # may change when it continues


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    tag: str
    methods: tuple[str, ...]
    seeds: int
    settings: Mapping[str, Any]  # of every session, as given by the user

    @property
    def cells(self) -> list[tuple[str, int]]:
        """Method and seed of each session, seed by seed: a comparison that stops early is balanced."""
        return [(method, seed) for seed in range(self.seeds) for method in self.methods]

    def name(self, method: str, seed: int) -> str:
        return f"{self.tag}-{method}-s{seed}"

    def session(self, method: str, seed: int) -> Settings:
        """The settings of one session."""
        given = {**USUAL, **self.settings, "tag": self.name(method, seed), "proposer": method, "seed": seed}
        given["memory"] = "off"  # the sessions must not know each other
        if method != "centaur" and given.get("on_llm_failure") == "cma":
            given["on_llm_failure"] = "wait"  # only centaur can fall back on CMA-ES
        return make_settings({k: v for k, v in given.items() if method in USED_BY.get(k, {method})}, None)


def make_plan(methods: str | None, seeds: int | None, tag: str, config: Path | None, flags: Mapping[str, Any]) -> Plan:
    """Plan and save a new comparison, or continue an old one with more methods and seeds, but no other settings."""
    root = Path(flags.get("runs", "runs"))
    tag = tag or new_tag(root, "cmp-")
    place = RunDirectory(root, tag).path / "compare.toml"
    saved = read_plan(root, tag)
    if saved is None and place.parent.exists() and any(place.parent.iterdir()):
        raise UsageError(f"{place.parent} exists and is not a comparison. Choose another --tag.")
    given = {**(read_toml(config) if config else {}), **flags}
    given = {name: value for name, value in given.items() if name not in OWN}
    if "target" in given or saved is None:
        given["target"] = str(Path(given.get("target", ".")).resolve())
    if saved is not None:
        settings = _continued(tag, saved.settings, given)
    else:
        own = load_target(Path(given["target"]))[1]
        settings = {**{name: value for name, value in own.items() if name not in OWN}, **given}
    if not settings.get("trials") and not settings.get("train_hours"):
        raise UsageError("give the budget of each session: --trials N, or --train-hours H as in the paper.")
    names = _methods(methods) if methods is not None else saved.methods if saved else METHODS
    count = seeds if seeds is not None else saved.seeds if saved else SEEDS
    if count < 1:
        raise UsageError(f"--seeds {count}: must be at least 1; the tests of significance need 6.")
    plan = Plan(tag, names, count, settings)
    for method, seed in plan.cells:  # check tags and settings before anything is written
        RunDirectory(root, plan.name(method, seed))
        plan.session(method, seed)
    place.parent.mkdir(parents=True, exist_ok=True)
    (place.parent / ".gitignore").write_text("*\n")
    replace_file(place, dump_toml({"methods": list(names), "seeds": count, "settings": settings}))
    return plan


def read_plan(root: Path, tag: str) -> Plan | None:
    """The plan of an existing comparison; None if ``tag`` is none."""
    place = RunDirectory(root, tag).path / "compare.toml"
    if not place.is_file():
        return None
    saved = read_toml(place)
    if not saved.keys() >= {"methods", "seeds", "settings"}:
        raise UsageError(f"{place} is not the plan of a comparison. Restore the file, or choose another --tag.")
    return Plan(tag, tuple(saved["methods"]), int(saved["seeds"]), saved["settings"])


def _continued(tag: str, before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name not in MOVABLE and value != before.get(name):
            raise UsageError(
                f"--{name.replace('_', '-')} {value}: comparison {tag} was started with "
                f"{before.get(name, 'no such option')}. Start another comparison with another --tag."
            )
    return {**before, **given}


def _methods(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not names:
        raise UsageError(f"--methods: name at least one of {', '.join(PROPOSERS)}.")
    for name in names:
        check_choice(name, PROPOSERS, "--methods: method")
    return names
