"""A byte-level BPE tokenizer, and the number of raw bytes of each token."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt_target.corpus import DataError

BOS = "<|bos|>"  # token 0


def train(texts: Iterable[str], vocab_size: int, path: Path) -> None:
    """Train a tokenizer and save it to ``path``. Token 0 is BOS; every byte is a token, so all text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))


def load(path: Path) -> Any:
    """The tokenizer at ``path``. It encodes the characters of BOS in a text as ordinary text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode(coder: Any, texts: Iterable[str], counts: np.ndarray) -> Iterator[np.ndarray]:
    """Ids of each text, uint16, without BOS. ``counts``: the ``token_bytes`` of the tokenizer.

    Raises:
        DataError: the tokenizer lost a byte, which would make every score wrong.
    """
    held: list[str] = []
    for text in itertools.chain(texts, [None]):
        if text is not None:
            held.append(text)
        if held and (text is None or sum(map(len, held)) > 1_000_000 or len(held) >= 1000):
            for original, coded in zip(held, coder.encode_batch_fast(held, add_special_tokens=False), strict=True):
                ids = np.array(coded.ids, np.uint16)
                if int(counts[ids].sum()) != len(original.encode()):
                    raise DataError(f"the tokenizer lost bytes of a document that begins {original[:60]!r}.")
                yield ids
            held = []


def token_bytes(tokenizer: Any) -> np.ndarray:
    """Raw bytes of each token, int32 [V]: one per character of the byte-level alphabet, 0 for BOS."""
    counts = np.zeros(tokenizer.get_vocab_size(), np.int32)
    for token, number in tokenizer.get_vocab().items():
        counts[number] = 0 if token == BOS else len(token)
    return counts
