"""The largest gain of look-ahead that the scorer does not detect.

    python -m benchmarks.look_ahead [--draws 10] [--tokens 200000]

Two models of the preset demo are trained. One of them then uses the next token in the two ways that are hardest to
detect: rarely, at the targets with the highest entropy; and everywhere, but little, hidden by added noise. Each variant
is scored ``draws`` times with new cuts; the other model is the reference. The gain is in bits per byte against the same
model without look-ahead.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt_target import __main__ as once
from nanogpt_target.channel import Rejected
from nanogpt_target.look_ahead import CUTS
from nanogpt_target.prepare import prepare
from nanogpt_target.presets import write_target
from nanogpt_target.scorer import BATCH_BYTES, Ask, Read, Score, read_split, score

Model = Callable[[np.ndarray], np.ndarray]  # ids [B, T] to float32 [B, T, V]
SHARES = (0.002, 0.001, 0.0005, 0.0002)
NUDGES = ((0.0003, 0.0), (0.001, 0.003), (0.0015, 0.004))  # shift of a logit, and sd of the added noise


def trained(folder: Path, cache: Path, tokens: int, seed: int) -> Model:
    """A trained model of the preset demo."""
    import torch

    write_target("demo", folder / "target")
    once.make_code(folder / "target", folder / "code")
    prepared = prepare(tomllib.loads((folder / "target" / "target.toml").read_text())["data"], cache)
    env = {"OVERNIGHT_DEVICE": "cpu", "OVERNIGHT_THREADS": "1"}
    run = once.train(folder / "code", prepared, folder / "work", f"tokens:{tokens}", seed, env)
    if run["exit"] != 0:
        raise SystemExit(f"training ended with exit code {run['exit']}")
    spec = importlib.util.spec_from_file_location(f"train{seed}", folder / "code" / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    model = module.load(str(folder / "work" / "out"), "cpu")
    known: dict[bytes, np.ndarray] = {}  # answers of pass A, whose requests are the same every time

    def answer(ids: np.ndarray) -> np.ndarray:
        found = known.get(ids.tobytes())
        if found is None:
            found = model(torch.from_numpy(ids)).numpy()
            if len(known) < 32:
                known[ids.tobytes()] = found
        return found.copy()

    return answer


def reads(answer: np.ndarray) -> Read:
    """What reads consecutive positions of an answer [B, T, V]."""
    flat = answer.reshape(-1, answer.shape[-1])
    return lambda position, out: np.copyto(out, flat[position : position + len(out)])


def following(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, positions and next tokens of all positions but the last."""
    rows, places = np.nonzero(np.ones(ids[:, :-1].shape))
    return rows, places, ids[rows, places + 1]


def entropy(logits: np.ndarray) -> np.ndarray:
    x = logits - logits.max(-1, keepdims=True)
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    found: np.ndarray = -(p * np.log(p + 1e-30)).sum(-1)
    return found


def rarely(model: Model, above: float) -> Model:
    def cheat(ids: np.ndarray) -> np.ndarray:
        logits = model(ids)
        rows, places, tokens = following(ids)
        # not the first position: it is always among the cuts
        hit = (entropy(logits)[rows, places] > above) & (places > 0)
        logits[rows[hit], places[hit], tokens[hit]] += 30.0
        return logits

    return cheat


def little(model: Model, nudge: float, noise: float, seed: int) -> Model:
    dice = np.random.default_rng(seed)

    def cheat(ids: np.ndarray) -> np.ndarray:
        logits = model(ids)
        rows, places, tokens = following(ids)
        logits[rows, places, tokens] += nudge
        return logits + dice.normal(0, noise, logits.shape).astype(np.float32)

    return cheat


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.look_ahead")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=200_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, other = (trained(folder / str(seed), folder / "cache", given.tokens, seed) for seed in (1, 2))
        data = next(place.parent for place in (folder / "cache").glob("*/manifest.json"))
        rows, sizes, decoys = read_split(data, "validation")
    batch = max(1, min(len(rows), CUTS, BATCH_BYTES // ((rows.shape[1] - 1) * len(sizes) * 4)))

    def judge(a: Model, b: Model, seed: int, reference: np.ndarray | None = None) -> Score:
        def asks(model: Model) -> Ask:
            return lambda ids: reads(model(ids))

        return score(rows, sizes, decoys, asks(a), asks(b), batch, np.random.default_rng(seed), reference)

    def table(what: str, make: Callable[[int], Model], reference: np.ndarray | None) -> None:
        gains = []
        for seed in range(given.draws):
            try:
                gains.append(honest.value - judge(make(2 * seed), make(2 * seed + 1), seed, reference).value)
            except Rejected:
                continue
        gain = f"{np.mean(gains):.5f}" if gains else "-"
        print(f"{what:<50} undetected in {len(gains)} of {given.draws}, gain {gain}", flush=True)

    honest, earlier = judge(model, model, 0), judge(other, other, 0).log_p
    print(f"honest: {honest.value:.4f}; the earlier run: {judge(other, other, 0).value:.4f}; {len(rows)} rows")
    uncertain = np.concatenate([entropy(model(part[:, :-1].astype(np.int64))) for part in np.array_split(rows, 10)])
    for share in SHARES:
        cheat = rarely(model, float(np.quantile(uncertain[:, 1:], 1 - share)))
        for words, reference in (("no earlier run", None), ("an earlier run", earlier)):
            table(f"rarely, {share:.2%} of the targets, {words}", lambda _, cheat=cheat: cheat, reference)  # type: ignore[misc]
    for nudge, noise in NUDGES:
        words = f"everywhere, by {nudge:g}, own noise {noise:g}"
        table(words, lambda seed, nudge=nudge, noise=noise: little(model, nudge, noise, seed), earlier)  # type: ignore[misc]


if __name__ == "__main__":
    main()
