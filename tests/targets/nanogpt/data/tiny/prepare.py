"""Writes train.bin and val.bin beside itself."""

import os

import numpy as np

text = b"the quick brown fox jumps over the lazy dog; " * 400
here = os.path.dirname(os.path.abspath(__file__))
np.frombuffer(text[:-1000], np.uint8).astype(np.uint16).tofile(os.path.join(here, "train.bin"))
np.frombuffer(text[-1000:], np.uint8).astype(np.uint16).tofile(os.path.join(here, "val.bin"))
