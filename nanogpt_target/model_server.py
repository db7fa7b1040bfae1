"""The untrusted side of scoring: loads the checkpoint with the committed train.py and answers ids with logits."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanogpt_target.channel import WRONG_SHAPE, WRONG_TYPE, ModelSide

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_memory() -> None:
    """Make glibc keep freed memory: returning large blocks of logits costs page faults at every batch.

    Other C libraries have no mallopt and run slower.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and (mallopt(_MMAP_THRESHOLD, 1 << 30) or mallopt(_MMAP_THRESHOLD, 32 << 20)):
        mallopt(_TRIM_THRESHOLD, 1 << 30)


def serve(side: ModelSide, model: Callable[[Any], object], device: str) -> None:
    """Answer each request of the scorer with the logits of the model, or with what is wrong with them."""
    import torch

    shared = torch.from_numpy(side.logits)
    if device.startswith("cuda"):  # the GPU writes into locked memory without a second copy by the processor
        torch.cuda.cudart().cudaHostRegister(shared.data_ptr(), shared.nbytes, 0)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        while (ids := side.next()) is not None:
            logits = model(torch.from_numpy(ids).to(device))
            if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != side.shape:
                side.answer(WRONG_SHAPE)
            elif not logits.is_floating_point():
                side.answer(WRONG_TYPE)
            else:
                shared.copy_(logits)
                side.answer()


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin between answers slow down the scorer
    keep_memory()
    import torch

    if threads := int(os.environ.get("OVERNIGHT_THREADS", "0")):
        torch.set_num_threads(threads)
    # The second model process waits here until the first has ended: train.py never runs in both at the same time.
    side = ModelSide(Path(os.environ["OVERNIGHT_CHANNEL"]))
    device = os.environ.get("OVERNIGHT_DEVICE", "cpu")
    sys.path.insert(0, str(Path.cwd()))
    load = importlib.import_module("train").load  # the committed train.py; the import trains nothing

    serve(side, load(os.environ["OVERNIGHT_CHECKPOINT"], device), device)


if __name__ == "__main__":
    main()
