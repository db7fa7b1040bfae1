"""Ready-made sizes of the target: demo, cpu and gpu. A preset is a target.toml and the values of the block."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

PACKAGE = Path(__file__).parent
PRESETS = ("demo", "cpu", "gpu")
README = """# A target for Overnight

`train.py` is the one file that gets edited; `target.toml` says how it is run, for how long, and what may change.

    overnight run --target . --proposer cma-es --trials 50     # search over the hyperparameter block, no model needed
    overnight run --target . --llm-base-url http://127.0.0.1:8000/v1 --hours 8
"""


def choose_preset() -> str:
    """gpu where the driver shows a GPU, else cpu."""
    return "gpu" if any(Path("/proc/driver/nvidia/gpus").glob("*")) or Path("/dev/nvidia0").exists() else "cpu"


def write_target(preset: str, directory: Path) -> list[Path]:
    """Write train.py, target.toml and README.md of a preset into a folder; returns their paths."""
    text = (PACKAGE / "presets" / f"{preset}.toml").read_text()
    values = tomllib.loads(text)["preset"]
    target = directory / "target.toml"
    target.write_text(text.split("[preset]")[0].rstrip() + "\n")
    train = directory / "train.py"
    shutil.copyfile(PACKAGE / "train.py", train)
    source = train.read_text()
    for name, value in values.items():
        source, count = re.subn(rf"(?m)^{name} = [^#\n]*?(  #|$)", lambda m, n=name, v=value: f"{n} = {_literal(v)}{m[1]}", source)
        assert count == 1, f"preset {preset}: {name} stands {count} times in train.py"
    train.write_text(source)
    readme = directory / "README.md"
    readme.write_text(README)
    return [train, target, readme]


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
