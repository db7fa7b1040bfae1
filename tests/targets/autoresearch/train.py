"""A bigram model of letters by gradient descent, for a fixed time. Usage: python train.py"""

import time

import numpy as np

from prepare import TIME_BUDGET, VOCAB_SIZE, load

# Model architecture
SMOOTHING = 0.1

# Optimization
TOTAL_BATCH_SIZE = 2**10  # letters a step
MATRIX_LR = 4.0
WARMDOWN_RATIO = 0.5
FINAL_LR_FRAC = 0.0
SEED = 42

t_start = time.time()
rng = np.random.default_rng(SEED)
train, val = np.array(load("train")), np.array(load("val"))
weights = np.full((VOCAB_SIZE, VOCAB_SIZE), 0.0)


def probabilities(ids):
    logits = weights[ids]
    scaled = np.exp(logits - logits.max(1, keepdims=True))
    return scaled / scaled.sum(1, keepdims=True)


def rate(progress):
    if progress < 1 - WARMDOWN_RATIO:
        return MATRIX_LR
    left = (1 - progress) / WARMDOWN_RATIO
    return MATRIX_LR * (left + (1 - left) * FINAL_LR_FRAC)


step, total_training_time = 0, 0.0
while total_training_time < TIME_BUDGET / 4:  # quick, as tests are
    t0 = time.time()
    at = rng.integers(0, len(train) - 1, TOTAL_BATCH_SIZE)
    slope = probabilities(train[at])
    slope[np.arange(len(at)), train[at + 1]] -= 1
    update = np.zeros_like(weights)
    np.add.at(update, train[at], slope)
    weights -= rate(4 * total_training_time / TIME_BUDGET) * update / len(at) * VOCAB_SIZE
    step += 1
    total_training_time += time.time() - t0
    print(f"\rstep {step:05d} | lrm: {rate(0):.2f}", end="", flush=True)

print()
kept = (1 - SMOOTHING / 10) * probabilities(val[:-1]) + SMOOTHING / 10 / VOCAB_SIZE
val_bpb = float(-np.log2(kept[np.arange(len(val) - 1), val[1:]]).mean())

print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {total_training_time:.1f}")
print(f"total_seconds:    {time.time() - t_start:.1f}")
print(f"num_steps:        {step}")
print(f"peak_vram_mb:     {0.0:.1f}")
