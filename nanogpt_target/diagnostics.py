"""Where the time of a step goes, and how far each group of parameters moves; measured in a smoke test."""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_now = time.monotonic
OPERATIONS, GROUPS = 10, 12  # shown, the costliest and the largest
LONGEST = 5.0  # seconds of a step up to which the next one runs under the profiler
TIMED, PROFILED = 2, 3  # numbers of steps: the first one may still allocate memory


class Diagnostics:
    """Follows the steps of a smoke test. The phases are cut where ``train.py`` asks for a batch and goes backward.

    From the last backward pass to ``finish_step`` is the optimiser; the rest between two passes is ``other``.
    """

    def __init__(self, model: nn.Module, device: torch.device):
        self._model, self._device = model, device
        self._step = 0
        self._last = 0.0
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._gradients: dict[str, float] = {}
        self._before: dict[str, Tensor] = {}
        self._groups: list[dict[str, Any]] = []
        self._profiler: Any = None
        self._operations: list[list[Any]] = []
        self._backward: Callable[..., Any] = Tensor.backward
        Tensor.backward = lambda tensor, *given, **named: self._go_backward(tensor, *given, **named)  # type: ignore

    @property
    def _timing(self) -> bool:
        return self._step == TIMED

    def start_step(self) -> None:
        self._step += 1
        if self._timing:
            self._before = {name: p.detach().cpu().clone() for name, p in self._model.named_parameters()}
            self._last = _now()
        elif self._step == PROFILED and sum(self._seconds.values()) < LONGEST:
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would print two lines to the log
            # torch.profiler would import the compiler, which takes a second
            device = "cuda" if self._device.type == "cuda" else None
            self._profiler = torch.autograd.profiler.profile(use_device=device)
            self._profiler.__enter__()

    def mark(self, phase: str) -> None:
        """The time since the last mark belongs to ``phase``."""
        if self._timing:
            if self._device.type == "cuda":
                torch.cuda.synchronize()
            self._seconds[phase] += _now() - self._last
            self._last = _now()

    def finish_step(self) -> None:
        self.mark("optimiser")
        if self._timing:
            self._groups = self._moved()
            self._before = {}
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            self._operations = self._costliest(self._profiler.key_averages())
            self._profiler = None

    def write(self, place: Path) -> None:
        ms = {phase: round(1000 * seconds, 3) for phase, seconds in self._seconds.items()}
        found = {"phases": ms, "operations": self._operations, "groups": self._groups}
        place.write_text(json.dumps(found))

    def _go_backward(self, tensor: Tensor, *given: Any, **named: Any) -> Any:
        self.mark("forward")
        found = self._backward(tensor, *given, **named)
        self.mark("backward")
        if self._timing:  # the last pass of the step has the whole gradient
            named_parameters = self._model.named_parameters()
            self._gradients = {n: float(p.grad.norm()) for n, p in named_parameters if p.grad is not None}
            self._last = _now()
        return found

    def _moved(self) -> list[dict[str, Any]]:
        """Norms of gradient, update and weights by group: parameters whose names differ in layer numbers only."""
        squares: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
        for name, p in self._model.named_parameters():
            before = self._before[name]
            norms = (self._gradients.get(name, 0.0), float((p.detach().cpu() - before).norm()), float(before.norm()))
            total = squares[re.sub(r"\.\d+(?=\.|$)", "", name).removesuffix(".weight").removeprefix("_orig_mod.")]
            for k, norm in enumerate(norms):
                total[k] += norm**2
            total[3] += p.numel()
        largest = sorted(squares.items(), key=lambda item: -item[1][3])[:GROUPS]
        return [
            {"name": name, "parameters": int(count), "gradient": g**0.5, "update": u**0.5, "weight": w**0.5}
            for name, (g, u, w, count) in largest
        ]

    def _costliest(self, averages: Any) -> list[list[Any]]:
        """Name, calls and milliseconds of the operations with the most time of their own."""
        kind = "self_device_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
        rows = [(event.key, event.count, getattr(event, kind, 0.0) / 1000) for event in averages]
        rows.sort(key=lambda row: -row[2])
        return [[name[:60], count, round(ms, 3)] for name, count, ms in rows[:OPERATIONS] if ms > 0]
