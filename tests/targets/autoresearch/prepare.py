"""Data and constants that stay as they are. Run once: python prepare.py"""

import os
import random

TIME_BUDGET = 2  # seconds of training
VOCAB_SIZE = 27

CACHE_DIR = os.path.join(os.path.expanduser("~"), ".cache", "look-alike")
DATA_DIR = os.path.join(CACHE_DIR, "data")


def load(split):
    with open(os.path.join(DATA_DIR, f"{split}.txt")) as file:
        return [" abcdefghijklmnopqrstuvwxyz".index(c) for c in file.read()]


if __name__ == "__main__":
    draw = random.Random(0)
    words = ["".join(draw.choice("etaoinshrdlu") for _ in range(draw.randint(2, 7))) for _ in range(60)]
    os.makedirs(DATA_DIR, exist_ok=True)
    for split, count in (("train", 4000), ("val", 400)):
        with open(os.path.join(DATA_DIR, f"{split}.txt"), "w") as file:
            file.write(" ".join(draw.choice(words) for _ in range(count)))
