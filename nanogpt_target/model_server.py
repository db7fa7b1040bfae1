"""The untrusted side of scoring: loads the checkpoint with the committed train.py, answers ids with logits, no more."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from nanogpt_target.channel import WRONG_SHAPE, WRONG_TYPE, ModelSide


def main() -> None:
    side = ModelSide(Path(os.environ["OVERNIGHT_CHANNEL"]))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two of these share the cores: threads that spin steal them
    import torch  # after the lock: whatever goes wrong from here on, the scorer sees that this process has ended

    if threads := int(os.environ.get("OVERNIGHT_THREADS", "0")):
        torch.set_num_threads(threads)
    device = os.environ.get("OVERNIGHT_DEVICE", "cpu")
    sys.path.insert(0, str(Path.cwd()))
    load = importlib.import_module("train").load  # the committed train.py; importing it trains nothing

    model = load(os.environ["OVERNIGHT_CHECKPOINT"], device)
    with torch.inference_mode():
        while (ids := side.next()) is not None:
            logits = model(torch.from_numpy(ids).to(device))
            if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != side.shape:
                side.complain(WRONG_SHAPE)
            elif not logits.is_floating_point():
                side.complain(WRONG_TYPE)
            else:
                side.answer(logits.float().cpu().numpy())


if __name__ == "__main__":
    main()
