"""A plain GPT, trained as nanoGPT does: LayerNorm, learned positions, GELU, tied head, AdamW, warm-up and cosine.

A ``train.py`` for the harness with the size of the preset cpu: the baseline of ``benchmarks.trainer``.
"""

# mypy: ignore-errors
import math
import os

import torch
import torch.nn.functional as F
from torch import nn

from nanogpt_target import harness

DEPTH = 4
WIDTH = 128
HEADS = 4
ROWS = 8  # per step
LEARNING_RATE = float(os.environ.get("PLAIN_LR", "1e-3"))
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
WARMUP = 0.05  # share of the budget
CLIP = 1.0


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        rows, length, _ = x.shape
        q, k, v = self.qkv(self.one(x)).view(rows, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(rows, length, WIDTH))
        return x + self.down(F.gelu(self.up(self.two(x))))


class GPT(nn.Module):
    def __init__(self, vocab_size, length):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, WIDTH), nn.Embedding(length, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                joins = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * DEPTH) if joins else 0.02)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions.weight[: ids.size(1)]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight).float()


def rate(progress):
    if progress < WARMUP:
        return LEARNING_RATE * progress / WARMUP
    share = (progress - WARMUP) / (1 - WARMUP)
    return LEARNING_RATE * (0.1 + 0.45 * (1 + math.cos(math.pi * share)))


def mixed_precision(device):
    return torch.autocast(device.type, torch.bfloat16, enabled=harness.fast_bf16(device))


def main():
    run = harness.start()
    model = GPT(run.meta.vocab_size, run.meta.sequence_length).to(run.device)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=True)

    def loss_of(ids, targets):
        with mixed_precision(run.device):
            logits = model(ids)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    for ids, targets in run.warmup_batches(ROWS):
        loss_of(ids, targets).backward()
        model.zero_grad()
    run.begin(model)
    while run.training:
        loss = loss_of(*run.batch(ROWS))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for group in optimiser.param_groups:
            group["lr"] = rate(run.progress)
        optimiser.step()
        optimiser.zero_grad()
        run.finish_step(loss.detach())
    harness.save(model)


def load(checkpoint, device):
    weights, meta = harness.read_checkpoint(checkpoint, device)
    model = GPT(meta["vocab_size"], meta["sequence_length"]).to(device)
    model.load_state_dict(weights)
    model.eval()

    @torch.inference_mode()
    def logits(ids):
        with mixed_precision(torch.device(device)):
            return model(ids)

    return logits


if __name__ == "__main__":
    main()
