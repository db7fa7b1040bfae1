"""The built-in trusted target: what Overnight asks of the target whose train.py it edits.

The scorer is a process on the host, the only one with the tokens of the split. It asks two model processes, one after
the other, for logits (see scorer.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from nanogpt_target.channel import WRITABLE, make_files
from nanogpt_target.corpus import DataError
from nanogpt_target.prepare import Prepared, prepare, release, stage_before, unpack
from nanogpt_target.scorer import BETWEEN, LOG_P, REFERENCE, RESULT, SIDES, Task, batch_rows

__all__ = ["FROZEN", "DataError", "prepare", "release", "run_scorer", "score", "stage", "unpack"]

PACKAGE = Path(__file__).parent
# What a trial and its model process import. With the other modules a trial could make the training data of the
# built-in corpus from the standard library before the clock starts.
FROZEN = ("__init__.py", "batches.py", "channel.py", "diagnostics.py", "harness.py", "model_server.py", "smoke.py")
GRACE = 5.0  # seconds in which the scorer itself should notice that a model process has ended

# Log-probabilities of the first checkpoint that a session scored, by session, data and split: the scorer looks more
# closely at targets that a later model predicts better.
_references: dict[tuple[str, str, str], bytes] = {}


class ModelProcess(Protocol):
    def ended(self) -> bool: ...
    def close(self) -> None:
        """End the process and remove its channel."""


class Host(Protocol):
    """What the host provides: two empty folders (``shared`` is in memory), time bounds, and model processes."""

    @property
    def session(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def shared(self) -> Path: ...
    @property
    def seconds(self) -> float: ...
    @property
    def startup_seconds(self) -> float: ...
    @property
    def load_seconds(self) -> float: ...
    def wait(self) -> None: ...
    def start(self, argv: Sequence[str], channel: Path, writable: Sequence[str]) -> ModelProcess: ...


def stage(data: Prepared, code: Path, directory: Path) -> None:
    """Replace the package in ``code`` by the installed one's frozen files; write the sizes to ``directory``."""
    shutil.rmtree(code / "nanogpt_target", ignore_errors=True)
    copy_frozen(code)
    stage_before(data, directory)


def copy_frozen(code: Path) -> None:
    """Add the package with its frozen files to a directory of code."""
    (code / "nanogpt_target").mkdir()
    for name in FROZEN:
        shutil.copyfile(PACKAGE / name, code / "nanogpt_target" / name)


def score(data: Prepared, split: str, host: Host) -> Mapping[str, Any]:
    """Score a checkpoint; the first one of a session becomes the reference for the later ones."""
    key = (host.session, data.hash, split)
    if key in _references:
        (host.folder / REFERENCE).write_bytes(_references[key])
    found = run_scorer(data, split, host)
    if found["status"] == "ok":
        _references.setdefault(key, (host.folder / LOG_P).read_bytes())
    return found


def run_scorer(data: Prepared, split: str, host: Host, seed: int | None = None) -> dict[str, Any]:
    """Run the scorer and its two model processes. ``seed``: of the cuts, for tests; by default they are random."""
    folder, shared, length, vocab = host.folder, host.shared, data.sequence_length, data.vocab_size
    times = host.seconds, host.load_seconds
    task = Task(str(data.directory), split, str(folder), str(shared), *times, seed, os.getpid())
    channels = [shared / side for side in SIDES]
    for channel in channels:
        channel.mkdir()
        channel.chmod(0o755)  # the model process runs as another, unprivileged user
        make_files(channel, batch_rows(data.tokens[split] // length, length, vocab), length, vocab)
    scorer = subprocess.Popen(
        # -P: without it, `python -m` imports from the working directory first
        [sys.executable, "-P", "-m", "nanogpt_target.scorer", json.dumps(asdict(task))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(PACKAGE.parent), os.getenv("PYTHONPATH"))))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C in a terminal lets the run end
    )
    models: list[ModelProcess] = []
    try:
        words = ("{python}", "-m", "nanogpt_target.model_server")
        models += [host.start(words, channel, WRITABLE) for channel in channels]
        failure = _wait(scorer, models, host)
    finally:
        scorer.kill()
        complaint = scorer.communicate()[1]
        for model in models:
            model.close()
    if failure is None and (folder / RESULT).exists():
        found: dict[str, Any] = json.loads((folder / RESULT).read_text())
        return found
    return failure or {"status": "broken", "reason": complaint}


def _wait(scorer: subprocess.Popen[str], models: list[ModelProcess], host: Host) -> dict[str, Any] | None:
    """Wait for the scorer; the result if it cannot come to one by itself.

    After pass A the first model process ends and its channel goes, so that it cannot pass anything to the second. The
    scorer notices a model process that ends early, unless that process has not opened the channel yet.
    """
    start, bound = time.monotonic(), host.seconds + host.startup_seconds
    ended: float | None = None
    while scorer.poll() is None:
        now = time.monotonic()
        if now - start > bound:
            return {"status": "timeout", "reason": f"scoring took more than {bound:.0f} s"}
        if ended is not None and now - ended > GRACE:
            return {"status": "crash", "reason": "a model process ended before it had answered"}
        host.wait()
        if (host.folder / BETWEEN).exists():
            models.pop(0).close()
            ended = None
            (host.folder / BETWEEN).unlink()
        for model in models:
            if model.ended() and ended is None:
                ended = now
    return None
