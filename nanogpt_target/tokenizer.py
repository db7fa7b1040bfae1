"""A byte-level BPE tokenizer, and how many raw bytes each of its tokens stands for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

BOS = "<|bos|>"


def train(texts: Iterable[str], vocab_size: int, path: Path) -> None:
    """Train on texts and save to ``path``. Token 0 is BOS; every byte is a token, so any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[BOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.save(str(path))


def encode(path: Path, texts: list[str]) -> list[np.ndarray]:
    """Token ids of each text, uint16, without BOS."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return [np.array(e.ids, np.uint16) for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def token_bytes(path: Path) -> np.ndarray:
    """Raw bytes of each token, int32 [V]: a character of the byte-level alphabet is one byte. BOS is none."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    counts = np.zeros(tokenizer.get_vocab_size(), np.int32)
    for token, number in tokenizer.get_vocab().items():
        counts[number] = 0 if token == BOS else len(token)
    return counts
