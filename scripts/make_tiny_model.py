"""Makes a small language model with random weights for a real model server.

Its replies are random, but tokens, limits, streaming, errors and structured outputs are real. Runs in the model
server's environment (torch, transformers, tokenizers).

    python make_tiny_model.py DIRECTORY
"""

import sys
import sysconfig
from pathlib import Path

VOCABULARY = 2048
CONTEXT = 8192
SPECIAL = ("<|begin|>", "<|end|>", "<|role|>")
CHAT_TEMPLATE = (
    "<|begin|>{% for message in messages %}<|role|>{{ message['role'] }}\n{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|role|>assistant\n{% endif %}"
)


def save_tokenizer(directory: Path) -> int:
    """Train a byte-level BPE tokenizer on Python's source. Returns the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:80]
    tokenizer.train_from_iterator((path.read_text("utf-8", "replace") for path in sources), trainer)
    begin, end, _ = SPECIAL
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=end, chat_template=CHAT_TEMPLATE
    )
    fast.save_pretrained(directory)
    return tokenizer.get_vocab_size()


def save_model(directory: Path, vocabulary: int) -> None:
    """Save a two-layer Llama with under a million parameters; the weights are always the same."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    save_model(directory, save_tokenizer(directory))


if __name__ == "__main__":
    main()
