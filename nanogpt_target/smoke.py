"""The smoke test of a new program: a few steps, save, load, logits of a few rows; in a child of the training process.

The child is forked before the first tensor exists and ends before the run reports ``ready``. So the parent starts from
the state that it would have without a smoke test, and neither of them has seen training data. The child trains on
random tokens.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from nanogpt_target import harness
from nanogpt_target.diagnostics import Diagnostics

_now, _sleep = time.monotonic, time.sleep
SCHEDULE = [0.0, 0.5, 0.98]  # progress of the steps: warm-up, plateau and decay of a schedule each run once
ROWS = 2  # scored
LOOK_AHEAD = 0.25  # nats between equal prefixes: far above rounding, the scorer decides about less


def branch(seconds: float) -> bool:
    """Fork the smoke test. Return True in the child; in the parent, wait for the child and return False.

    A child that takes longer than ``seconds`` is ended, and the run continues.

    Raises:
        SystemExit: the smoke test failed, with the exit status of the child.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # by an edit, on import: CUDA does not survive a fork
        return False
    if sys.platform == "darwin":  # Apple's libraries do not survive it either
        return False
    harness.emit(event="smoke")
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.setpgrp()
        return True
    status = _wait(child, seconds)
    if status is not None and os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
        raise SystemExit(128 + os.WTERMSIG(status))  # the first process of a container ignores most signals
    if status:
        raise SystemExit(os.WEXITSTATUS(status))
    harness.emit(event="smoke_end", outcome="too slow" if status is None else "passed")
    return False


def _wait(child: int, seconds: float) -> int | None:
    """The wait status of the child; None if it had to be ended."""
    began = _now()
    while _now() - began < seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        _sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


class SmokeRun(harness.Run):
    """The run of the child. It never reports ``ready``, and ``save`` ends it."""

    def __init__(self) -> None:
        super().__init__()
        self._report = self._out / "diagnostics.json"
        self._diagnostics: Diagnostics | None = None
        self._out = Path(tempfile.mkdtemp(prefix="smoke-", dir=self._out))
        self._schedule = SCHEDULE

    def begin(self, model: nn.Module) -> None:
        torch.manual_seed(self._seed + 1)
        self._open()
        self._began = _now()
        self._diagnostics = Diagnostics(model, self.device)

    @property
    def training(self) -> bool:
        new, goes_on = self._planned != self.step, super().training
        if new and goes_on:
            self._diagnose(lambda found: found.start_step())
        return goes_on

    def batch(self, rows: int) -> tuple[Tensor, Tensor]:
        self._diagnose(lambda found: found.mark("other"))
        ids, targets = next(self.warmup_batches(rows))
        self._diagnose(lambda found: found.mark("data"))
        self.tokens += ids.numel()
        return ids, targets

    def _diagnose(self, work: Callable[[Diagnostics], None]) -> None:
        """Call ``work``; a program that cannot be diagnosed has no diagnostics."""
        if self._diagnostics is not None:
            try:
                work(self._diagnostics)
            except Exception:
                self._diagnostics = None

    def finish_step(self, loss: Tensor) -> None:
        self.step += 1
        self._diagnose(lambda found: found.finish_step())
        if self.step == 1 and not math.isfinite(float(loss)):  # later steps jump through the schedule
            raise FloatingPointError("smoke test: the loss of the first step is not finite")

    def save(self, model: nn.Module, extra: dict[str, Any] | None = None) -> NoReturn:
        """Save, load and compute logits; then end the process. What follows in train.py is not run."""
        status = 1
        try:
            super().save(model, extra)
            _check_logits(self._out, self.meta, self.device)
            self._diagnose(lambda found: found.write(self._report))
            status = 0
        except BaseException:
            traceback.print_exc()
        shutil.rmtree(self._out, ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _check_logits(checkpoint: Path, meta: harness.Meta, device: torch.device) -> None:
    """Load a checkpoint as the scorer's model process does; raise for logits that it would reject."""
    model = importlib.import_module("train").load(str(checkpoint), str(device))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(meta.vocab_size, (ROWS, meta.sequence_length), generator=generator)
    half = meta.sequence_length // 2
    other = torch.cat((ids[:, :half], (ids[:, half:] + 1) % meta.vocab_size), dim=1)
    with torch.inference_mode():
        logits, moved = (model(rows.to(device)) for rows in (ids, other))
    shape = (ROWS, meta.sequence_length, meta.vocab_size)
    if not isinstance(logits, Tensor) or tuple(logits.shape) != shape or not logits.is_floating_point():
        found = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"smoke test: load() gives logits of {found}, expected floats of shape {shape}")
    if not bool(logits.isfinite().all()):
        raise ValueError("smoke test: load() gives logits that are not finite")
    apart = float((logits[:, :half].float() - moved[:, :half].float()).abs().max()) if half else 0.0
    if apart > LOOK_AHEAD:
        raise ValueError(f"smoke test: other tokens after a position move its logits by {apart:.3g}: look-ahead")
