"""Hides Overnight's own packages from a target that runs in Overnight's interpreter.

A target may have packages with the names ``agent``, ``sandbox`` or ``prompts``. Python prefers the installed ones to a
folder without __init__.py. A sitecustomize module, first on PYTHONPATH, hides the installed ones from a trial.
"""

from __future__ import annotations

from pathlib import Path

NAMES = ("agent", "sandbox", "prompts")
ROOT = Path(__file__).resolve().parents[2]  # site-packages, or a checkout

_HIDE = """
import os, sys
from importlib.machinery import PathFinder

ROOT, NAMES = {root!r}, {names!r}
sys.path.remove(os.path.dirname(__file__))

class _Hide:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is not None or name not in NAMES:
            return None
        found = PathFinder.find_spec(name, [place for place in sys.path if os.path.realpath(place) != ROOT])
        if found is None:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return found

sys.meta_path.insert(0, _Hide)
if os.path.basename(ROOT) not in ("site-packages", "dist-packages"):
    sys.path[:] = [place for place in sys.path if os.path.realpath(place) != ROOT]
"""


def write_hiding_module(folder: Path) -> None:
    """Write the sitecustomize module; ``folder`` becomes PYTHONPATH."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_HIDE.format(root=str(ROOT), names=NAMES))
