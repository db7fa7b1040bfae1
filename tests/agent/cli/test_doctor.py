"""What `overnight doctor` says first, finds and mends."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from targets import TRAIN, make_bowl

from agent.cli.doctor import Finding, verdict
from agent.cli.entry import main
from agent.trial.imports import imports_of

NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return ["doctor", "--llm-base-url", NOWHERE, "--runs", str(tmp_path), "--cache", str(tmp_path)]


def found(words: list[str], capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, Finding]:
    assert main([*words, "--json"]) == status
    return {f["name"]: Finding(**f) for f in json.loads(capsys.readouterr().out)["findings"]}


def test_checks_are_reported_with_fixes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    checks = found(words, capsys)
    assert checks["git"].ok
    assert checks["torch"].ok
    assert checks["sandbox process"].ok
    assert "overnight llm serve" in checks["model server"].mend
    assert main(words) == 0
    out = capsys.readouterr().out
    assert checks["model server"].found in out, "a pipe does not wrap lines"
    first, second, *_ = out.splitlines()
    assert first.startswith("this machine can run: ")
    assert "process" in first
    assert "no model server" in second


def test_isolation_is_reported_as_untested_without_a_sandbox(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(shutil.which("git") or "").parent / "none"))
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    checks = found([*words, "--sandbox"], capsys, status=3)  # there is no git either
    assert not checks["isolation"].ok
    assert "bubblewrap" in checks["isolation"].mend


def finding(name: str, ok: bool) -> Finding:
    return Finding(name, ok, f"{name} (details)")


def test_verdict_names_reason_of_each_failure() -> None:
    bad = [finding("sandbox docker", False), finding("gpu", True), finding("torch", True), finding("imports", False)]
    can, cannot = verdict([*bad, finding("sandbox bwrap", True), finding("torch for the GPU", False)])
    assert "bwrap" in can
    assert "docker (sandbox docker)" in cannot
    assert "preset gpu (PyTorch is a build for the CPU)" in cannot
    assert any(line.startswith("the target") for line in cannot)


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_cpu_build_beside_gpu_is_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "nvidia-smi", "echo Some GPU, 80 GB")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for build, gpus in (("None", False), ("'12.8'", True)):
        packages = tmp_path / f"packages-{gpus}"
        (packages / "torch").mkdir(parents=True)
        (packages / "torch" / "__init__.py").touch()
        (packages / "torch" / "version.py").write_text(f"cuda: Optional[str] = {build}\nhip = None\n")
        (packages / "torch-2.0.dist-info").mkdir()
        (packages / "torch-2.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0\n")
        lines = f"import sys; sys.path.insert(0, '{packages}'); exec(sys.argv.pop(1))"
        python = program(tmp_path / "python", f'exec {sys.executable} -I -c "{lines}" "$3"')
        checks = found([*words, "--python", str(python)], capsys)
        assert checks["torch"].found == "2.0"
        assert checks["torch for the GPU"].ok is gpus
        assert "install" in checks["torch for the GPU"].mend


def test_amd_gpu_is_found(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    static = '[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X"}}]'
    program(
        tmp_path / "amd-smi",
        f'case $1 in list) echo \'[{{"gpu": 0, "uuid": "a-b", "hip_id": 0}}]\';; *) echo \'{static}\';; esac',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert found(words, capsys)["gpu"].found == "AMD Instinct MI300X (--device rocm, untried)"


def test_imports_of_target_are_checked(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = make_bowl(tmp_path / "whole", f"import numpy\n{TRAIN}")
    assert found([*words, "--target", str(whole)], capsys)["imports"].ok
    lacking = make_bowl(tmp_path / "lacking", f"import nowhere.to_be_found\n{TRAIN}")
    check = found([*words, "--target", str(lacking)], capsys, status=3)["imports"]
    assert "nowhere" in check.found
    assert "--python" in check.mend


def test_optional_local_and_standard_imports_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import torch\n")
    (tmp_path / "train.py").write_text(
        "import os, numpy.linalg\nfrom model import Net\nfrom . import data\n"
        "def f():\n    import tqdm\ntry:\n    import flash_attn\nexcept ImportError:\n    pass\n"
    )
    assert imports_of(tmp_path / "train.py") == ["numpy", "tqdm", "torch"]
