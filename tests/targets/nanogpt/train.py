"""Trains a table of letter pairs the way nanoGPT is laid out: small constants, a configurator, losses as lines."""

import os
import pickle
import time

import numpy as np

# I/O
out_dir = "out"
eval_interval = 25
log_interval = 10
eval_iters = 20
# data
dataset = "tiny"
batch_size = 12
block_size = 64
# model
n_head = 4
n_embd = 32
dropout = 0.0
# optimizer
learning_rate = 6e-2
max_iters = 50
weight_decay = 1e-4
beta1 = 0.9
# -----------------------------------------------------------------------------
config_keys = [k for k, v in globals().items() if not k.startswith("_") and isinstance(v, (int, float, bool, str))]
exec(open("configurator.py").read())
# -----------------------------------------------------------------------------

os.makedirs(out_dir, exist_ok=True)
rng = np.random.default_rng(1337)
data_dir = os.path.join("data", dataset)
data = {split: np.fromfile(os.path.join(data_dir, f"{split}.bin"), np.uint16) for split in ("train", "val")}
assert n_embd % n_head == 0
table = rng.normal(0, 1 / n_embd, (256, 256))
momentum = np.zeros_like(table)


def get_batch(split):
    at = rng.integers(0, len(data[split]) - block_size - 1, batch_size)
    x = np.stack([data[split][i : i + block_size] for i in at]).reshape(-1)
    y = np.stack([data[split][i + 1 : i + 1 + block_size] for i in at]).reshape(-1)
    return x, y


def forward(x, y):
    logits = table[x] - table[x].max(1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return p, float(-np.log(p[np.arange(len(y)), y] + 1e-9).mean())


def estimate_loss():
    return {split: np.mean([forward(*get_batch(split))[1] for _ in range(eval_iters)]) for split in ("train", "val")}


t0 = time.time()
for iter_num in range(max_iters + 1):
    if iter_num % eval_interval == 0:
        losses = estimate_loss()
        print(f"step {iter_num}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        with open(os.path.join(out_dir, "ckpt.pt"), "wb") as file:
            pickle.dump(table, file)
    x, y = get_batch("train")
    p, loss = forward(x, y)
    p[np.arange(len(y)), y] -= 1
    slope = weight_decay * table
    np.add.at(slope, x, p / len(y) * 256)
    momentum = beta1 * momentum + (1 - beta1) * slope
    table -= learning_rate * momentum
    if iter_num % log_interval == 0:
        dt, t0 = time.time() - t0, time.time()
        print(f"iter {iter_num}: loss {loss:.4f}, time {dt * 1000:.2f}ms, mfu {0.0:.2f}%")
