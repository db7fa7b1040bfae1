"""Presets of the target: demo, cpu and gpu. A preset is a target.toml with values for the hyperparameter block."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

PACKAGE = Path(__file__).parent
PRESETS = ("demo", "cpu", "gpu")
README = """# A target for Overnight

`train.py` is the one file that Overnight edits. `target.toml` has its command, budget, limits and hyperparameters.

    overnight run --target . --proposer cma-es --trials 50     # search the hyperparameter block without a model
    overnight run --target . --llm-base-url http://127.0.0.1:8000/v1 --hours 8
    python -m nanogpt_target --target .                # one run and its score, without a sandbox
"""


def choose_preset() -> str:
    """``gpu`` if the driver of NVIDIA or AMD shows a GPU, else ``cpu``."""
    nvidia = any(Path("/proc/driver/nvidia/gpus").glob("*")) or Path("/dev/nvidia0").exists()
    amd = Path("/dev/kfd").exists() and shutil.which("amd-smi")  # the device alone exists for graphics cards too
    return "gpu" if nvidia or amd else "cpu"


def write_target(preset: str, directory: Path) -> list[Path]:
    """Write train.py, target.toml and README.md of a preset into a folder; their paths.

    Raises:
        ValueError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; there are {', '.join(PRESETS)}.")
    text = (PACKAGE / "presets" / f"{preset}.toml").read_text(encoding="utf-8")
    source = (PACKAGE / "train.py").read_text(encoding="utf-8")
    for name, value in tomllib.loads(text)["preset"].items():
        source = assign(source, name, f'"{value}"' if isinstance(value, str) else str(value))
    written = {"train.py": source, "target.toml": text.split("[preset]")[0].rstrip() + "\n", "README.md": README}
    directory.mkdir(parents=True, exist_ok=True)
    for file, content in written.items():
        (directory / file).write_text(content, encoding="utf-8")
    return [directory / file for file in written]


def assign(source: str, name: str, value: str) -> str:
    """The source of a train.py with another literal in ``NAME = value``.

    Raises:
        ValueError: the block does not assign this name exactly once.
    """
    source, count = re.subn(rf"(?m)^{re.escape(name)} = [^#\n]*?(?=  #|$)", f"{name} = {value}", source)
    if count != 1:
        raise ValueError(f"{name} is assigned {count} times in train.py.")
    return source
