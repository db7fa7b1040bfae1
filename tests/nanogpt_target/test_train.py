"""The model of train.py: two forms of attention and two precisions give equal results."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.trainer import load_trainer
from nanogpt_target import harness

LENGTH = 48  # not a multiple of the blocks of flex_attention


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_trainer("demo", tmp_path_factory.mktemp("demo"))


def model_of(train: Any) -> Any:
    """Two layers with a short window and one with a long window; weights that make attention matter."""
    torch.manual_seed(0)
    model = train.GPT(train.Config(61, LENGTH, depth=3, head_dim=16, width=32, window_pattern="SSL"))
    for block in model.blocks:
        torch.nn.init.normal_(block.attention.out.weight, std=0.2)
        torch.nn.init.normal_(block.mlp.down.weight, std=0.2)
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model


def loss_and_gradients(model: Any, precision: Any) -> tuple[float, torch.Tensor]:
    ids = torch.randint(61, (2, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    with precision:
        loss = model(ids[:, :-1], ids[:, 1:])
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_blockwise_attention_equals_masked_attention(train: Any) -> None:
    """A GPU trains blockwise and is scored with the mask. (``flex_attention`` has no backward pass on CPUs.)"""
    model = model_of(train)
    ids = torch.randint(61, (2, LENGTH))
    by_mask = model(ids)
    model.attend_blockwise(torch.device("cpu"))
    torch.testing.assert_close(model(ids), by_mask, rtol=1e-4, atol=1e-4)
    model.blockwise = (model.blockwise[0], model.blockwise[0])  # a long window instead of a short one must differ
    assert not torch.allclose(model(ids), by_mask, rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_model_compiles_as_one_graph(train: Any) -> None:
    """Uses only the front end of ``torch.compile``, which needs no compiler."""
    model = model_of(train)
    ids = torch.randint(61, (2, LENGTH + 1))
    loss = model(ids[:, :-1], ids[:, 1:])
    model.attend_blockwise(torch.device("cpu"))
    whole = torch.compile(model, dynamic=False, fullgraph=True, backend="eager")
    assert float(whole(ids[:, :-1], ids[:, 1:])) == pytest.approx(float(loss), rel=1e-4)


def test_bf16_is_close_to_float32(train: Any) -> None:
    model = model_of(train)
    loss, gradients = loss_and_gradients(model, torch.autocast("cpu", enabled=False))
    rounded, other = loss_and_gradients(model, torch.autocast("cpu", torch.bfloat16))
    assert rounded == pytest.approx(loss, rel=5e-3)
    assert float(torch.nn.functional.cosine_similarity(other, gradients, dim=0)) > 0.99


def test_logits_are_float32_under_autocast(train: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert model_of(train)(torch.zeros(1, LENGTH, dtype=torch.long)).dtype == torch.float32


@pytest.mark.parametrize("bf16", [False, True])
def test_newton_schulz_makes_matrices_orthogonal(train: Any, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps give singular values between about 0.7 and 1.2 (Jordan et al. 2024)."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16})
    for shape in ((3, 16, 48), (3, 48, 16), (2, 24, 24)):
        made = train.orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(2)))
        values = torch.linalg.svdvals(made)
        assert made.shape == shape
        assert made.dtype == torch.float32
        assert float(values.max()) < 1.3
        assert float(values.median()) > 0.6


def test_fast_bf16_follows_cpu_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    assert harness.fast_bf16(torch.device("cuda"))
    for capabilities, fast in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=capabilities: has)
        assert harness.fast_bf16(torch.device("cpu")) is fast
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not harness.fast_bf16(torch.device("cpu"))
