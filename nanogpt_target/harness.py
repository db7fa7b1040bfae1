"""The frozen part of a training run: seed, data order, clock, progress, checkpoint.

The host runs ``train.py`` in a sandbox, waits for the event ``ready``, puts the training shards into the data
directory, and starts its own clock. The times, losses and tokens that the harness reports are information for people:
the host measures the time, and the scorer the value.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nanogpt_target.batches import Batches

_now = time.monotonic  # bound at import: an edit that patches the time module does not change this clock
_sleep = time.sleep
DIVERGED = 3  # exit code
EVENTS_PER_SECOND = 4.0
EVENTS_PER_RUN = 40  # also in short runs: the host compares loss curves at equal shares of the budget
COMPILED = "compiled.bin"  # torch.compile's cache: an output of the baseline, in the data folder of later runs


@dataclass(frozen=True)
class Meta:
    """Sizes of the data, known before the clock starts."""

    vocab_size: int
    sequence_length: int


def fast_bf16(device: torch.device) -> bool:
    """Whether matrix products are faster in bf16 than in float32: on GPUs, and on CPUs with bf16 instructions."""
    if device.type == "cuda":
        return True
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)  # the first with bf16 on an Apple GPU
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in old PyTorch
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def memory_share(limit: float, total: int) -> float:
    """``limit`` (in units of 2**30 bytes) as a share of a GPU with ``total`` bytes, for PyTorch's allocator."""
    return min(1.0, limit * 2**30 / total)


class Run:
    """One training run. ``train.py`` reads ``meta``, ``device``, ``progress``, ``training`` and ``step``."""

    def __init__(self) -> None:
        if "OVERNIGHT_DATA" not in os.environ:
            raise SystemExit(
                "train.py needs the data, seed and clock of a session. Start one: overnight run --target DIR\n"
                "To train and score once without a session: python -m nanogpt_target --target ."
            )
        self._data = Path(os.environ["OVERNIGHT_DATA"])
        self._out = Path(os.environ["OVERNIGHT_OUT"])
        self._seed = int(os.environ["OVERNIGHT_SEED"])
        kind, _, amount = os.environ["OVERNIGHT_BUDGET"].partition(":")
        self._kind, self._amount = kind, float(amount)
        if threads := int(os.environ.get("OVERNIGHT_THREADS", "0")):
            torch.set_num_threads(threads)
        self.device = torch.device(os.environ.get("OVERNIGHT_DEVICE", "cpu"))
        self.meta = Meta(**json.loads((self._data / "meta.json").read_text()))
        self._schedule = _read_schedule(os.environ.get("OVERNIGHT_SCHEDULE", ""))
        random.seed(self._seed)
        np.random.seed(self._seed)
        torch.manual_seed(self._seed)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            if limit := os.environ.get("OVERNIGHT_VRAM_GB"):
                # An edit can evade this limit; honest code gets an error that names the requested size.
                total = torch.cuda.get_device_properties(self.device).total_memory
                torch.cuda.set_per_process_memory_fraction(memory_share(float(limit), total))
        if (compiled := self._data / COMPILED).exists():  # an edited model compiles only its changes
            torch.compiler.load_cache_artifacts(compiled.read_bytes())
        self.step = self.tokens = 0
        self.progress = 0.0
        self._losses: list[float] = []
        self._last_loss: Tensor | None = None  # not checked yet: reading it waits for the GPU
        self._planned = -1  # the last step that ``training`` has started
        self._began = self._last_event = 0.0
        self._last_part = 0  # of the budget, for which a step was reported
        self._initial: dict[str, Any] = {}  # facts about the model, for the summary
        self._batches: Batches | None = None
        self._curve: Any = None
        self._trace: Any = None

    def warmup_batches(self, rows: int, count: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Random int64 ids and targets [rows, T], so that kernels compile before the clock starts."""
        generator = torch.Generator().manual_seed(0)
        for _ in range(count):
            ids = torch.randint(self.meta.vocab_size, (rows, self.meta.sequence_length + 1), generator=generator)
            yield ids[:, :-1].to(self.device), ids[:, 1:].to(self.device)

    def begin(self, model: nn.Module) -> None:
        """Report ``ready``, wait for the training data, and start the clock."""
        parameters = sum(p.numel() for p in model.parameters())
        self._initial = {"initial_hash": _hash_weights(model), "parameters": parameters}
        torch.manual_seed(self._seed + 1)  # dropout must not depend on the warm-up
        self._open()
        versions = {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__}
        _note(self._trace, seed=self._seed, budget=f"{self._kind}:{self._amount:g}", device=str(self.device),
                   threads=torch.get_num_threads(), versions=versions)  # fmt: skip
        if os.environ.get("OVERNIGHT_KEEP_COMPILED"):
            save = getattr(torch.compiler, "save_cache_artifacts", lambda: None)  # missing in old PyTorch
            if (found := save()) is not None:
                (self._out / COMPILED).write_bytes(found[0])
        emit(event="ready", parameters=parameters)
        while not (self._data / "manifest.json").exists():
            _sleep(0.002)
        self._began = _now()
        self._batches = Batches(self._data, self._seed, self.device)
        emit(event="start")

    def _open(self) -> None:
        self._curve = (self._out / "curve.jsonl").open("w")
        self._trace = (self._out / "trace.jsonl").open("w")

    @property
    def training(self) -> bool:
        """Whether the budget allows another step. Sets ``progress``, in [0, 1), for that step."""
        if self._planned == self.step:
            return True  # second call before a step
        if self._schedule is None:
            self.progress = self._spent() / self._amount
        else:
            self.progress = self._schedule[self.step] if self.step < len(self._schedule) else 1.0
        if self.progress >= 1.0:
            return False
        self._planned = self.step
        _note(self._trace, step=self.step, progress=self.progress)
        return True

    def _spent(self) -> float:
        if self._kind == "seconds":
            elapsed = _now() - self._began
            typical = elapsed / self.step if self.step else 0.0
            return elapsed + 0.5 * typical  # end within half a step of the budget
        return float(self.step if self._kind == "steps" else self.tokens)

    def batch(self, rows: int) -> tuple[Tensor, Tensor]:
        """The next ids and targets, each int64 [rows, T]; the seed decides the order."""
        assert self._batches is not None, "call begin(model) first"
        ids, targets = self._batches.next(rows)
        self.tokens += ids.numel()
        return ids, targets

    def finish_step(self, loss: Tensor) -> None:
        """Count a step and report it at times.

        Args:
            loss: mean loss of the step, in nats per token.

        Raises:
            SystemExit: the loss is not finite.
        """
        self.step += 1
        now = _now()
        part = int(self.progress * EVENTS_PER_RUN)
        due = now - self._last_event > 1 / EVENTS_PER_SECOND or self.step == 1 or part > self._last_part
        if not due and self.device.type != "cpu" and self.step % 10:
            self._last_loss = loss
            return
        value = self._finite(loss)
        seconds = now - self._began
        _note(self._curve, step=self.step, progress=round(self.progress, 4), loss=round(value, 5),
                   seconds=round(seconds, 3), tokens=self.tokens)  # fmt: skip
        if due:
            self._last_event, self._last_part = now, part
            emit(event="step", step=self.step, loss=round(value, 4), progress=round(self.progress, 4),
                       tokens=self.tokens, tokens_per_second=round(self.tokens / max(seconds, 1e-9)),
                       memory_gb=_memory_gb(self.device))  # fmt: skip

    def _finite(self, loss: Tensor) -> float:
        value = float(loss)
        self._last_loss = None
        if not math.isfinite(value):
            emit(event="diverged", step=self.step)
            raise SystemExit(DIVERGED)
        self._losses = [*self._losses[-19:], value]
        return value

    def save(self, model: nn.Module, extra: dict[str, Any] | None = None) -> None:
        """Write the checkpoint (safetensors: data only, no code) and the summary."""
        if self._last_loss is not None:
            self._finite(self._last_loss)
        seconds = _now() - self._began
        # copies: safetensors refuses tensors that share memory, such as tied weights
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        save_file(tensors, self._out / "model.safetensors")
        (self._out / "model.json").write_text(json.dumps({**asdict(self.meta), **(extra or {})}))
        summary = {
            **self._initial,
            "final_hash": _hash_weights(model),
            "steps": self.step,
            "tokens": self.tokens,
            "train_loss": float(np.mean(self._losses)) if self._losses else None,
            "train_seconds": seconds,
            "tokens_per_second": self.tokens / max(seconds, 1e-9),
            "memory_gb": _memory_gb(self.device),
        }
        (self._out / "summary.json").write_text(json.dumps(summary))
        self._curve.close()
        self._trace.close()
        emit(event="saved", steps=self.step, tokens=self.tokens, train_seconds=round(seconds, 3))
        if self._batches is not None:
            self._batches.close()


def emit(**event: Any) -> None:
    """Print an event for the host."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _note(file: Any, **line: Any) -> None:
    file.write(json.dumps(line) + "\n")


_run: Run | None = None


def start() -> Run:
    """Read the host's settings and set every seed. The first call of ``main``.

    With OVERNIGHT_SMOKE, the seconds of a smoke test, a child of this process makes that test first.
    """
    global _run
    from nanogpt_target.smoke import SmokeRun, branch

    bound = float(os.environ.get("OVERNIGHT_SMOKE", "0"))
    _run = SmokeRun() if bound and branch(bound) else Run()
    return _run


def save(model: nn.Module, extra: dict[str, Any] | None = None) -> None:
    """Write the checkpoint: the last call of ``main``. ``extra`` is small JSON that ``load`` needs."""
    assert _run is not None, "call start() first"
    _run.save(model, extra)


def read_checkpoint(directory: str, device: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights by name, and the content of model.json."""
    folder = Path(directory)
    return load_file(folder / "model.safetensors", device=device), json.loads((folder / "model.json").read_text())


def _hash_weights(model: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 3)
    if device.type == "mps":
        return round(torch.mps.driver_allocated_memory() / 1e9, 3)  # now; there is no peak
    unit = 1e9 if sys.platform == "darwin" else 1e6  # Linux counts in kB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 3)


def _read_schedule(path: str) -> list[float] | None:
    """The progress at each step of an earlier run, which this run follows."""
    if not path:
        return None
    lines = map(json.loads, Path(path).read_text().splitlines())
    return [float(line["progress"]) for line in lines if "progress" in line]
