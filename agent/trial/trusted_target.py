"""The interface to trusted targets, which compute a value from a checkpoint outside of the edited code.

``score = "trusted"`` in target.toml is the built-in target, package nanogpt_target. ``score = "trusted:NAME"`` is an
entry point NAME in the group ``overnight.targets``, whose object or module implements ``TrustedTarget``.
"""

from __future__ import annotations

import importlib.util
import site
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import EnvironmentProblem, UsageError
from agent.target import Target

if TYPE_CHECKING:
    from agent.trial.scoring import Host

GROUP = "overnight.targets"


class Data(Protocol):
    """Prepared data: one folder on the host."""

    @property
    def directory(self) -> Path: ...
    @property
    def hash(self) -> str:
        """Values can be compared only between equal hashes."""
        ...

    @property
    def tokens(self) -> Mapping[str, int]:
        """Size of each split."""
        ...

    @property
    def masked(self) -> tuple[str, ...]:
        """Names in the folder of the standard library that a sandbox must hide."""
        ...


class TrustedTarget(Protocol):
    """What the trials of a target need. ``data`` is what ``prepare`` or ``unpack`` returned."""

    @property
    def DataError(self) -> type[Exception]:
        """Raised where the data cannot be used; the message says why."""
        ...

    def prepare(self, spec: Mapping[str, Any], cache: Path, say: Callable[[str], None], verify: bool) -> Data:
        """The data that [data] of target.toml describes, from ``cache`` or new; ``verify`` checks every hash."""
        ...

    def unpack(self, name: str, digest: str, cache: Path, fetch: Callable[[], Mapping[str, Any]]) -> Data:
        """The data ``digest`` in the folder ``name`` of ``cache``; ``fetch`` gives file names and uint8 arrays."""
        ...

    def stage(self, data: Any, code: Path, directory: Path, /) -> None:
        """Add the frozen files to ``code``, and to ``directory`` what a trial may read before its clock starts."""
        ...

    def release(self, data: Any, directory: Path, /) -> None:
        """Make the training data appear in ``directory``: the clock has started."""
        ...

    def score(self, data: Any, split: str, host: Host, /) -> Mapping[str, Any]:
        """Score ``host.checkpoint`` on the split ``validation`` or ``test``.

        Returns:
            ``status`` (``ok``, ``invalid``, ``crash``, ``timeout``, or ``broken``: the scorer itself failed), ``value``
            if ok, else ``reason``. ``asked`` is False if no model process has seen text of the split. ``loading``:
            seconds that the slowest model process needed to load; sessions bound it by a multiple of the baseline's.
        """
        ...


def trusted_target(target: Target) -> TrustedTarget:
    """The implementation that a target.toml names.

    Only packages installed in Overnight's own environment count: a target is untrusted, and this code runs on the host.

    Raises:
        UsageError: no installed package registers this name, or its module lies in the folder of the target.
    """
    if not target.trusted:
        from nanogpt_target import trusted

        return trusted
    installed = [p for p in (*site.getsitepackages(), site.getusersitepackages()) if p in sys.path]
    points = {p.name: p for d in distributions(path=installed) for p in d.entry_points if p.group == GROUP}
    where = f'{target.folder / "target.toml"}, [target], score = "trusted:{target.trusted}"'
    if target.trusted not in points:
        raise UsageError(
            f"{where}: no installed package registers this name. Registered: {', '.join(sorted(points)) or 'none'}."
        )
    point = points[target.trusted]
    if not _is_installed(point, target.folder, installed):
        raise UsageError(
            f"{where}: Python finds {point.module} in the folder of the target or in the working directory. "
            f"Remove that module, or start from another folder."
        )
    implementation: TrustedTarget = point.load()
    return implementation


def _is_installed(point: EntryPoint, folder: Path, installed: list[str]) -> bool:
    """Whether an import takes installed code: with `python -m`, a module in the working directory comes first."""
    spec = importlib.util.find_spec(point.module.partition(".")[0])
    if spec is None:
        return True  # the import raises
    place = Path(next(iter(spec.submodule_search_locations or ()), spec.origin or "")).resolve()
    if any(place.is_relative_to(Path(name).resolve()) for name in installed):
        return True  # also if the environment lies in the folder of the target
    return not place.is_relative_to(folder.resolve()) and place.parent != Path.cwd()


def prepare(
    target: Target, cache: str, say: Callable[[str], None], source: str = "", verify: bool = False
) -> Data | None:
    """The prepared data of a target; None for a target that prints its own value. ``source`` replaces [data] source.

    Raises:
        UsageError, EnvironmentProblem: the data cannot be used, or not be written.
    """
    if target.score != "trusted":
        return None
    trusted = trusted_target(target)
    spec = {**target.data, "source": source} if source else target.data
    try:
        return trusted.prepare(spec, Path(cache).expanduser() / "data", say, verify)
    except trusted.DataError as error:
        raise UsageError(f"{target.folder / 'target.toml'}, [data]: {error}") from None
    except OSError as error:
        raise EnvironmentProblem(f"cannot prepare the data in {cache}: {error.strerror or error}.") from None


def write_preset(preset: str | None, directory: Path) -> str:
    """Write the built-in target into a folder; the name of the preset, by default the one for this machine."""
    from nanogpt_target.presets import choose_preset, write_target

    preset = preset or choose_preset()
    write_target(preset, directory)
    return preset
