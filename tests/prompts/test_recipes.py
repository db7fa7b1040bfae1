"""The recipes of the idea bank: each one trains, reaches every parameter and never looks ahead."""

from __future__ import annotations

import importlib.util
import math
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.patch.apply import apply_reply
from agent.proposers.ideas.bank import load_bank
from nanogpt_target import harness
from nanogpt_target.prepare import prepare, release, stage_before
from nanogpt_target.presets import PRESETS, write_target

RECIPES = {idea.key: idea for idea in load_bank() if idea.recipe}
TINY = {"DEPTH": 2, "ASPECT_RATIO": 16, "HEAD_DIM": 16, "DEVICE_BATCH_SIZE": 4, "TOTAL_BATCH_SIZE": 256}
LENGTH = 32
STEPS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Released data of a few kB."""
    folder = tmp_path_factory.mktemp("data")
    draw = random.Random(0)
    words = ["night", "trial", "loss", "gain", "model", "clock", "seed", "of", "the", "is"]
    paragraphs = [" ".join(draw.choice(words) for _ in range(200)) for _ in range(60)]
    (folder / "text.txt").write_text("\n\n".join(paragraphs))
    sizes = {"vocab_size": 300, "sequence_length": LENGTH, "validation_tokens": 640, "test_tokens": 640}
    prepared = prepare({"source": str(folder / "text.txt"), **sizes}, folder / "cache")
    (folder / "data").mkdir()
    stage_before(prepared, folder / "data")
    release(prepared, folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text of train.py by preset."""
    folder = tmp_path_factory.mktemp("presets")
    for preset in PRESETS:
        write_target(preset, folder / preset)
    return {preset: (folder / preset / "train.py").read_text() for preset in PRESETS}


def load_module(source: str, folder: Path) -> Any:
    for name, value in TINY.items():
        source = re.sub(rf"(?m)^{name} = \S+", f"{name} = {value}", source)
    (folder / "train.py").write_text(source.replace('"SSSL"', '"SL"', 1))
    spec = importlib.util.spec_from_file_location("edited_train", folder / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def edited(sources: dict[str, str]) -> dict[str, str]:
    """The train.py of preset demo after each recipe."""
    return {key: apply_reply(sources["demo"], idea.reply) for key, idea in RECIPES.items()}


@pytest.mark.parametrize("preset", PRESETS)
def test_recipes_apply_to_every_preset(sources: dict[str, str], edited: dict[str, str], preset: str) -> None:
    for key, idea in RECIPES.items():
        text = edited[key] if preset == "demo" else apply_reply(sources[preset], idea.reply)
        assert text != sources[preset], key


@pytest.mark.parametrize("key", RECIPES)
def test_recipe_trains_every_parameter(
    key: str, data: Path, edited: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"DATA": data, "OUT": tmp_path, "SEED": 1, "BUDGET": f"steps:{STEPS}", "THREADS": 1, "DEVICE": "cpu"}
    for name, value in settings.items():
        monkeypatch.setenv(f"OVERNIGHT_{name}", str(value))
    train = load_module(edited[key], tmp_path)
    reached: set[str] = set()
    initial: dict[str, torch.Tensor] = {}

    class Observed(train.GPT):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            for name, parameter in self.named_parameters():
                initial[name] = parameter.detach().clone()
                parameter.register_hook(lambda gradient, name=name: reached.add(name) if gradient.any() else None)

    model, train.GPT = train.GPT, Observed
    train.main()
    assert set(initial) == reached, "no gradient"
    saved, meta = harness.read_checkpoint(str(tmp_path), "cpu")
    assert not [name for name in initial if torch.equal(saved[name], initial[name])], "never updated"
    assert math.isfinite(float((tmp_path / "curve.jsonl").read_text().split('"loss": ')[-1].split(",")[0]))
    train.GPT = model
    check_causal(train.load(str(tmp_path), "cpu"), meta["vocab_size"])


def check_causal(logits: Any, vocabulary: int) -> None:
    ids = torch.randint(vocabulary, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[:, -4:] = (other[:, -4:] + 1) % vocabulary
    before, after = logits(ids), logits(other)
    assert before.shape == (2, LENGTH, vocabulary)
    assert torch.isfinite(before).all()
    torch.testing.assert_close(before[:, :-4], after[:, :-4], rtol=1e-3, atol=1e-4)
    assert not torch.equal(before[:, -4:], after[:, -4:])
