"""Stand-ins for the programs that GPU drivers bring along."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import gpu


def gpu_tool(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """Put a shell script ``name`` first on PATH, and wait for GPU memory for half a second only."""
    program = folder / "bin" / name
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(gpu, "PATIENCE", 0.5)
