"""The GPU branches of train.py on tensors without content: shapes, types, devices, and no wait for the GPU in a step.

A PyTorch built for CUDA runs them with device cuda, also without a GPU. One built for CPUs knows no such device, so the
same branches run with device cpu.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from benchmarks.trainer import load_trainer, sizes

DEVICE = "cuda" if torch.version.cuda else "cpu"


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_trainer("gpu", tmp_path_factory.mktemp("gpu"))


def test_step_of_gpu_preset_never_waits_for_values(train: Any) -> None:
    meta = sizes("gpu")
    with FakeTensorMode(), torch.device(DEVICE):
        model = train.GPT(train.Config(*meta))
        ids = torch.randint(meta[0], (2, meta[1] + 1))
        if DEVICE == "cuda":  # attention by blocks has no backward pass on a CPU
            model.attend_blockwise(torch.device(DEVICE))
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        adamw, muon = train.make_optimisers(model)
        train.set_schedule(adamw, muon, 0.3, 10)
        adamw.step()
        muon.step()
        assert (loss.device.type, loss.dtype, loss.shape) == (DEVICE, torch.float32, ())
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.shape == parameter.shape
        with pytest.raises(DataDependentOutputException):
            loss.item()  # so a step that reads a value would have failed


def test_blockwise_attention_of_gpu_preset_has_shapes_of_the_model(train: Any) -> None:
    meta = sizes("gpu")
    with FakeTensorMode(), torch.device(DEVICE), torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
        model = train.GPT(train.Config(*meta))
        model.attend_blockwise(torch.device(DEVICE))
        ids = torch.randint(meta[0], (2, meta[1]))
        logits = model(ids)
        assert (logits.dtype, logits.shape) == (torch.float32, (2, meta[1], meta[0]))
        assert model(ids, ids).shape == ()
