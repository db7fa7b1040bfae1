"""The trainer on a GPU: compiled, in bf16, with the backward pass of flex_attention, and scored."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")

LENGTH = 320  # more than one block of flex_attention, not a multiple of its size


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from benchmarks.trainer import load_trainer

    return load_trainer("gpu", tmp_path_factory.mktemp("gpu"))


def test_blockwise_attention_has_gradients_of_masked_attention(train: Any) -> None:
    torch.manual_seed(0)
    model = train.GPT(train.Config(512, LENGTH, depth=3, head_dim=64, width=128, window_pattern="SSL")).cuda()
    for block in model.blocks:
        torch.nn.init.normal_(block.attention.out.weight, std=0.05)
    ids = torch.randint(512, (4, LENGTH + 1), device="cuda")

    def gradients(loss_of: Any) -> Any:
        model.zero_grad()
        with train.mixed_precision(torch.device("cuda")):
            loss = loss_of(ids[:, :-1], ids[:, 1:])
        loss.backward()
        return float(loss.detach()), torch.cat([p.grad.flatten() for p in model.parameters()])

    loss, by_mask = gradients(model)
    model.attend_blockwise(torch.device("cuda"))
    other, by_blocks = gradients(torch.compile(model, dynamic=False))
    assert other == pytest.approx(loss, rel=2e-3)
    assert float(torch.nn.functional.cosine_similarity(by_blocks, by_mask, dim=0)) > 0.995


def test_gpu_preset_trains_and_is_scored(tmp_path: Path) -> None:
    """Two steps of the whole preset, with a shorter validation split."""
    from nanogpt_target import __main__ as once
    from nanogpt_target.prepare import prepare
    from nanogpt_target.presets import write_target

    write_target("gpu", tmp_path / "target")
    spec = tomllib.loads((tmp_path / "target" / "target.toml").read_text())["data"]
    prepared = prepare({**spec, "validation_tokens": 40_000, "test_tokens": 40_000}, tmp_path / "cache")
    once.make_code(tmp_path / "target", tmp_path / "code")
    env = {"OVERNIGHT_DEVICE": "cuda"}
    run = once.train(tmp_path / "code", prepared, tmp_path / "work", "steps:2", 1, env)
    assert run["exit"] == 0
    found = once.score(tmp_path / "code", tmp_path / "work" / "out", prepared, "validation", env, 600, seed=1)
    assert found["status"] == "ok", found["reason"]
    assert 1.0 < found["value"] < 5.0
