"""The untrusted side of scoring: loads the checkpoint with the committed train.py, answers ids with logits, no more."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch

from nanogpt_target.channel import ModelSide


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    threads = int(os.environ.get("OVERNIGHT_THREADS", "0"))
    if threads:
        torch.set_num_threads(threads)
    device = os.environ.get("OVERNIGHT_DEVICE", "cpu")
    import train  # the committed train.py; importing it trains nothing

    model = train.load(os.environ["OVERNIGHT_CHECKPOINT"], device)
    side = ModelSide(Path(os.environ["OVERNIGHT_CHANNEL"]))
    with torch.inference_mode():
        while (ids := side.next()) is not None:
            logits = model(torch.from_numpy(ids).to(device))
            if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (side.rows, side.length, side.vocab):
                raise SystemExit(f"load() returned {getattr(logits, 'shape', type(logits))}, not logits [B, T, V]")
            if not logits.is_floating_point():
                raise SystemExit(f"load() returned {logits.dtype}, not floating point logits")
            np.copyto(side.logits, logits.float().cpu().numpy())
            side.answered()


if __name__ == "__main__":
    main()
