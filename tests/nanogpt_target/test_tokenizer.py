"""Raw bytes per token are exact for any text."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_text
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt_target import tokenizer


@pytest.fixture(scope="module")
def trained_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.train([make_text(1)], 320, path)
    return path


@settings(max_examples=200)
@given(st.text(st.characters(codec="utf-8")))
def test_encoding_preserves_bytes_and_text(trained_file: Path, text: str) -> None:
    coder = tokenizer.load(trained_file)
    counts = tokenizer.token_bytes(coder)
    (ids,) = tokenizer.encode(coder, [text], counts)
    assert counts[ids].sum() == len(text.encode())
    assert coder.decode(ids.tolist(), skip_special_tokens=False) == text


def test_text_cannot_contain_bos_token(trained_file: Path) -> None:
    coder = tokenizer.load(trained_file)
    counts = tokenizer.token_bytes(coder)
    assert coder.token_to_id(tokenizer.BOS) == 0
    assert counts[0] == 0
    assert (counts[1:] > 0).all()
    (ids,) = tokenizer.encode(coder, [f"a{tokenizer.BOS}b"], counts)
    assert 0 not in ids
    assert counts[ids].sum() == len(f"a{tokenizer.BOS}b")


def test_every_byte_is_a_token(trained_file: Path) -> None:
    counts = tokenizer.token_bytes(tokenizer.load(trained_file))
    assert len(counts) == 320
    assert (counts == 1).sum() == 256
