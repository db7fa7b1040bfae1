"""The plan of a comparison: methods, seeds, trials and settings."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.rundir.directory import RunDirectory, new_tag, replace_file
from agent.settings import LOOKED_AT_BY, PROPOSERS, Settings, make_settings
from agent.target import load_target
from agent.toml import dump_toml, read_toml

METHODS = "cma-es,tpe,random"

SEEDS = 3

USUAL = {"policy": "greedy", "calibrate": 1}  # each trial is one run, as in the paper

OWN = ("tag", "proposer", "seed", "until", "hours", "detach")  # settings that a comparison sets itself, or cannot have

MOVABLE = ("runs", "cache", "llm_base_url", "llm_timeout")  # may differ when a comparison goes on


@dataclass(frozen=True)
class Plan:
    """What is compared. ``settings`` are those that every session has, as they were given."""

    tag: str
    methods: tuple[str, ...]
    seeds: int
    settings: Mapping[str, Any]

    @property
    def cells(self) -> list[tuple[str, int]]:
        """Seed by seed, so that a comparison that is stopped early is balanced."""
        return [(method, seed) for seed in range(self.seeds) for method in self.methods]

    def name(self, method: str, seed: int) -> str:
        return f"{self.tag}-{method}-s{seed}"

    def session(self, method: str, seed: int) -> Settings:
        """The settings of one cell."""
        given = {**USUAL, **self.settings, "tag": self.name(method, seed), "proposer": method, "seed": seed}
        if method != "centaur" and given.get("on_llm_failure") == "cma":
            given["on_llm_failure"] = "wait"  # the others have no cma-es to fall back on
        return make_settings({k: v for k, v in given.items() if LOOKED_AT_BY.get(k, method) == method}, None)


def make_plan(methods: str | None, seeds: int | None, tag: str, config: Path | None, flags: Mapping[str, Any]) -> Plan:
    """The plan of a new comparison, or of one that goes on; it is on the disk when this returns.

    A comparison that goes on may get other methods and more seeds, never other settings: its cells would not compare.

    Raises:
        UsageError: names the flag, and the nearest valid name of a method.
    """
    root = Path(flags.get("runs", "runs"))
    tag = tag or new_tag(root, "cmp-")
    place = RunDirectory(root, tag).path / "compare.toml"
    saved = read_toml(place) if place.is_file() else {}
    if not saved and place.parent.exists() and any(place.parent.iterdir()):
        raise UsageError(f"{place.parent} exists and is no comparison. Choose another --tag.")
    before = dict(saved.get("settings", {}))
    given = dict(flags)
    if config is not None:
        given = {**read_toml(config), **given}
    for name in OWN:
        given.pop(name, None)
    if "target" in given:
        given["target"] = str(Path(given["target"]).resolve())
    if wrong := next((k for k in given if saved and k not in MOVABLE and given[k] != before.get(k)), ""):
        was = before.get(wrong, "not given")
        raise UsageError(
            f"--{wrong.replace('_', '-')} {given[wrong]}: comparison {tag} was started with {was}, and its cells would "
            f"not compare. Start another one with another --tag."
        )
    settings = before | given if saved else given
    if not saved:
        settings["target"] = str(Path(settings.get("target", ".")).resolve())
        own = load_target(Path(settings["target"]))[1]
        settings = {**{k: v for k, v in own.items() if k not in OWN}, **settings}
    if not settings.get("trials") and not settings.get("train_hours"):
        raise UsageError("give the budget of each session: --trials N, or --train-hours H as in the paper.")
    names = _methods(methods if methods is not None else ",".join(saved.get("methods", METHODS.split(","))))
    count = seeds if seeds is not None else int(saved.get("seeds", SEEDS))
    if count < 1:
        raise UsageError(f"--seeds {count}: a comparison needs at least 1 seed; its tests need 6.")
    plan = Plan(tag, names, count, settings)
    for method, seed in plan.cells:
        RunDirectory(root, plan.name(method, seed))  # a tag that is too long is said now
        plan.session(method, seed)
    place.parent.mkdir(parents=True, exist_ok=True)
    (place.parent / ".gitignore").write_text("*\n")
    replace_file(place, dump_toml({"methods": list(names), "seeds": count, "settings": settings}))
    return plan


def _methods(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not names:
        raise UsageError(f"--methods: name at least one of {', '.join(PROPOSERS)}.")
    for name in names:
        if name not in PROPOSERS:
            near = difflib.get_close_matches(name, PROPOSERS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PROPOSERS)}."
            raise UsageError(f"--methods: no method {name!r}; {hint}")
    return names
