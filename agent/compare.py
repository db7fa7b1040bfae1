"""``overnight compare``: methods × seeds under one budget, each cell a session of its own.

A comparison is a folder ``runs/<tag>/`` with its plan (compare.toml), its table and its page; the cell of a method and
a seed is the run ``<tag>-<method>-s<seed>`` beside it, which every other command knows. What is done is read from the
cells' ledgers alone: the same command again goes on where it stood.
"""

from __future__ import annotations

import dataclasses
import difflib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.checks import LOOKED_AT_BY
from agent.commands import load, say
from agent.config import NEED_MODEL, PROPOSERS, Settings, load_target, make_settings, read_toml
from agent.contrast import Cell, Contrast, cell_of
from agent.errors import UsageError
from agent.rundir import RunDirectory, dump_toml, new_tag, replace_file

if TYPE_CHECKING:
    from agent.views.live import View

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


def compare(
    methods: str | None = None,
    seeds: int | None = None,
    tag: str = "",
    json: bool = False,
    csv: bool = False,
    config: Path | None = None,
    **flags: Any,
) -> int:
    """The command. Returns 130 if it was stopped before every cell was complete."""
    from agent.commands import live_view, show
    from agent.views import comparison as views

    root = Path(flags.get("runs", "runs"))
    if tag and RunDirectory(root, tag).running():
        raise UsageError(f"comparison {tag} is going on already. `overnight list` shows its sessions.")
    plan = make_plan(methods, seeds, tag, config, flags)
    home = RunDirectory(root, plan.tag)
    with home.lock():
        complete = run_cells(plan, root, live_view, say)
    contrast = read_contrast(plan, root)
    page = views.write_files(contrast, plan, home.path)
    if csv:
        sys.stdout.write(views.comparison_csv(contrast))
    else:
        data, table = lambda: views.comparison_json(contrast, plan.tag), lambda: views.comparison_table(contrast)
        show(json, data, table, paged=False)
    say(f"the page: {page}")
    if not complete:
        say(f"stopped; `overnight compare --tag {plan.tag}` goes on.")
    return 0 if complete else 130


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


def run_cells(plan: Plan, root: Path, view: Callable[[], View], tell: Callable[[str], None]) -> bool:
    """Bring every cell to its end, one after the other; False if the user stopped one of them."""
    from agent import launch

    todo = [(m, s) for m, s in plan.cells if not is_complete(plan, root, m, s)]
    for method in dict.fromkeys(m for m, _ in todo):  # what is missing is said before anything runs
        launch.assemble(plan.session(method, 0), lambda _text: None)
    done = len(plan.cells) - len(todo)
    for method, seed in todo:
        tell(f"[{done + 1} of {len(plan.cells)}] {method}, seed {seed}")
        settings = dataclasses.replace(plan.session(method, seed), runs=str(root))
        directory = RunDirectory(root, settings.tag)
        if directory.path.exists() and not directory.settings.exists():
            shutil.rmtree(directory.path)  # killed before anything was written down
        if directory.path.exists():
            changes = {k: plan.settings[k] for k in MOVABLE if k in plan.settings and k != "runs"}
            launch.resume(root, settings.tag, changes if method in NEED_MODEL else {}, view(), tell)
        else:
            launch.start(settings, view(), tell)
        if not is_complete(plan, root, method, seed):
            return False
        done += 1
    return True


def is_complete(plan: Plan, root: Path, method: str, seed: int) -> bool:
    """Whether a cell has used up its budget, by its ledger."""
    from agent.ending import expected_cost, reason_to_end

    directory = RunDirectory(root, plan.name(method, seed))
    if not directory.settings.exists():
        return False
    state, _ = load(directory)
    return state.ended is not None and bool(reason_to_end(state, plan.session(method, seed), expected_cost(state)))


def read_contrast(plan: Plan, root: Path) -> Contrast:
    """What the cells hold now, complete or not."""
    target, _ = load_target(Path(plan.settings["target"]))
    cells = []
    for method, seed in plan.cells:
        tag = plan.name(method, seed)
        directory = RunDirectory(root, tag)
        if not directory.settings.exists():
            cells.append(Cell(method, seed, tag))
            continue
        state, _ = load(directory)
        cells.append(cell_of(method, seed, tag, state, is_complete(plan, root, method, seed)))
    return Contrast(target.metric, target.goal, plan.methods, tuple(cells))
