"""The scorer against models with a known score, and against processes that break the contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import budgets
import numpy as np
import pytest
import torch
from conftest import ONE_THREAD, MakeCode

from benchmarks.look_ahead import reads
from nanogpt_target import __main__ as once
from nanogpt_target.channel import ModelSide, Rejected, ScorerSide, make_files
from nanogpt_target.look_ahead import CUTS, SUSPECTS, draw
from nanogpt_target.model_server import serve
from nanogpt_target.prepare import Prepared
from nanogpt_target.scorer import Ask, Read, Score, log_probabilities, read_split, score

SECONDS = budgets.SCORING_SECONDS
Model = Callable[[np.ndarray], np.ndarray]  # ids [B, T] to float32 [B, T, V]


def asks(model: Model) -> Ask:
    return lambda ids: reads(model(ids))


def judge(
    prepared: Prepared, model: Model, seed: int = 0, other: Model | None = None, reference: np.ndarray | None = None
) -> Score:
    rows, sizes, decoys = read_split(prepared.directory, "validation")
    return score(rows, sizes, decoys, asks(model), asks(other or model), 8, np.random.default_rng(seed), reference)


def bigram(prepared: Prepared, seed: int = 0) -> Model:
    """An honest model: a fixed random table of logits by the last token."""
    table = np.random.default_rng(seed).normal(size=(prepared.vocab_size, prepared.vocab_size)).astype(np.float32)
    return lambda ids: table[ids]


def test_uniform_model_scores_log_of_vocabulary(prepared: Prepared) -> None:
    rows, sizes, _ = read_split(prepared.directory, "validation")
    vocab = prepared.vocab_size
    found = judge(prepared, lambda ids: np.zeros((*ids.shape, vocab), np.float32))
    counted = sizes[rows[:, 1:].astype(int)] > 0
    total = int(sizes[rows[:, 1:].astype(int)].sum())
    assert found.value == pytest.approx(math.log2(vocab) * int(counted.sum()) / total, abs=1e-9)
    assert (found.tokens, found.bytes) == (int(counted.sum()), total)


def plainly(prepared: Prepared, model: Model) -> float:
    """Bits per byte by a plain computation."""
    rows, sizes, _ = read_split(prepared.directory, "validation")
    ids, targets = rows[:, :-1].astype(int), rows[:, 1:].astype(int)
    logits = model(ids).astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    logp = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    nats = -np.take_along_axis(logp, targets[..., None], axis=-1)[..., 0][sizes[targets] > 0].sum()
    return float(nats / math.log(2) / sizes[targets].sum())


def test_second_pass_reads_logits_before_the_cuts_only(prepared: Prepared) -> None:
    rows, sizes, decoys = read_split(prepared.directory, "validation")
    model, taken = bigram(prepared), [0, 0]

    def counting(side: int) -> Ask:
        def ask(ids: np.ndarray) -> Read:
            read = reads(model(ids))

            def count(position: int, out: np.ndarray) -> None:
                taken[side] += len(out)
                read(position, out)

            return count

        return ask

    found = score(rows, sizes, decoys, counting(0), counting(1), 8, np.random.default_rng(0))
    length = rows.shape[1] - 1
    assert taken[0] == (2 * len(rows)) * length, "rows are asked twice"
    assert 0.4 < taken[1] / (found.rows_b * length) < 0.6


def test_score_equals_plain_computation(prepared: Prepared) -> None:
    model = bigram(prepared)
    assert judge(prepared, model).value == pytest.approx(plainly(prepared, model), abs=1e-6)


def test_constant_added_to_logits_changes_nothing(prepared: Prepared) -> None:
    model = bigram(prepared)
    assert judge(prepared, lambda ids: model(ids) + 50).value == pytest.approx(judge(prepared, model).value, abs=1e-5)


def bf16(x: np.ndarray) -> np.ndarray:
    """Rounded as bfloat16 rounds."""
    return (x.astype(np.float32).view(np.uint32) + 0x8000 & 0xFFFF0000).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_bf16_noise_is_accepted(prepared: Prepared, seed: int) -> None:
    """On a GPU, the same row has other last bits in another batch."""
    model, noise = bigram(prepared, seed), np.random.default_rng([seed, 1])
    found = judge(prepared, lambda ids: bf16(model(ids) * (1 + noise.normal(0, 2e-3, (len(ids), 1, 1)))), seed)
    assert found.noise > 0


@pytest.mark.parametrize("seed", range(5))
def test_mixture_of_experts_is_accepted(prepared: Prepared, seed: int) -> None:
    """Routing depends on earlier tokens only."""
    experts = [bigram(prepared, 10 * seed + k) for k in range(4)]

    def model(ids: np.ndarray) -> np.ndarray:
        answers = np.stack([expert(ids) for expert in experts])
        route = (ids * 7 + np.cumsum(ids, axis=1)) % 4  # from earlier tokens
        return np.take_along_axis(answers, route[None, :, :, None], axis=0)[0]

    assert judge(prepared, model, seed).value == pytest.approx(plainly(prepared, model), abs=1e-6)


def looks_ahead(prepared: Prepared, share: float, seed: int) -> Model:
    """Uses the next token at a share of the positions, selected by the token before."""
    model = bigram(prepared)
    picked = np.random.default_rng(seed).random(prepared.vocab_size) < share

    def cheat(ids: np.ndarray) -> np.ndarray:
        logits = model(ids).copy()
        rows, places = np.nonzero(picked[ids[:, :-1]])
        logits[rows, places, ids[rows, places + 1]] += 8
        return logits

    return cheat


def test_constant_look_ahead_is_always_found(prepared: Prepared) -> None:
    for seed in range(10):
        with pytest.raises(Rejected, match="looks ahead"):
            judge(prepared, looks_ahead(prepared, 1.0, seed), seed)


@pytest.mark.parametrize("rows", [3, 40])
def test_look_ahead_at_few_positions_in_small_split(prepared: Prepared, rows: int) -> None:
    every, sizes, decoys = read_split(prepared.directory, "validation")

    def cheat(ids: np.ndarray) -> np.ndarray:
        logits = np.zeros((*ids.shape, prepared.vocab_size), np.float32)
        places = np.arange(7, ids.shape[1] - 1, 30)
        for place in places:
            logits[np.arange(len(ids)), place, ids[:, place + 1]] += 4
        return logits

    for seed in range(20):
        with pytest.raises(Rejected, match="looks ahead"):
            score(every[:rows], sizes, decoys, asks(cheat), asks(cheat), 8, np.random.default_rng(seed))


SHARE = 0.01  # of the targets


def test_rare_look_ahead_detection_rate_matches_theory(prepared: Prepared) -> None:
    """Look-ahead at a share p of the targets is missed in (1 - p) ** CUTS of the runs."""
    rows, sizes, decoys = read_split(prepared.directory, "validation")
    ids, found, expected = rows[:, :-1].astype(np.int64), 0, 0.0
    trials = 60
    for seed in range(trials):
        random = np.random.default_rng(seed)
        positions = random.random(ids.shape) < SHARE
        known = {row.tobytes(): k for k, row in enumerate(ids[:, :4])}

        def cheat(asked: np.ndarray, positions: np.ndarray = positions, known: dict[bytes, int] = known) -> np.ndarray:
            logits = np.zeros((*asked.shape, prepared.vocab_size), np.float32)
            for k, row in enumerate(asked):
                for place in np.nonzero(positions[known.get(row[:4].tobytes(), 0)][:-1])[0]:
                    logits[k, place, row[place + 1]] += 8
            return logits

        cuts = draw(ids, decoys, prepared.vocab_size, np.random.default_rng(seed))
        expected += float(any(positions[r, c - 1] for r, c in zip(cuts.rows, cuts.cuts, strict=True)))
        try:
            score(rows, sizes, decoys, asks(cheat), asks(cheat), 8, np.random.default_rng(seed))
        except Rejected:
            found += 1
    assert found >= expected, "look-ahead just before a cut was missed"
    missed = (1 - SHARE) ** CUTS
    assert found / trials >= 1 - missed - 3 * math.sqrt(missed * (1 - missed) / trials)


def rarely_looks_ahead(prepared: Prepared) -> Model:
    """Uses the next token at 0.4 % of the targets, selected by all tokens before."""
    model = bigram(prepared)

    def cheat(ids: np.ndarray) -> np.ndarray:
        logits = model(ids).copy()
        rows, places = np.nonzero(np.cumsum(ids, axis=1)[:, :-1] % 251 == 7)
        logits[rows, places, ids[rows, places + 1]] += 9
        return logits

    return cheat


def test_rare_look_ahead_is_found_with_reference(prepared: Prepared) -> None:
    """Uniform cuts miss it in a third of the runs."""
    cheat, reference = rarely_looks_ahead(prepared), judge(prepared, bigram(prepared, 1)).log_p
    for seed in range(20):
        with pytest.raises(Rejected, match="looks ahead"):
            judge(prepared, cheat, seed, reference=reference)


@pytest.mark.parametrize("seed", range(5))
def test_honest_improvement_over_reference_is_accepted(prepared: Prepared, seed: int) -> None:
    model = bigram(prepared)
    earlier = judge(prepared, lambda ids: 0.5 * model(ids)).log_p
    assert judge(prepared, model, seed, reference=earlier).value == judge(prepared, model, seed).value
    assert judge(prepared, model, seed, reference=earlier).rows_b == CUTS + SUSPECTS
    assert judge(prepared, model, seed, reference=earlier[:2]).rows_b == CUTS, "a reference of other rows is ignored"


@pytest.mark.parametrize("size", [3, 8, 40, 300])
def test_repeated_row_has_a_later_cut(prepared: Prepared, size: int) -> None:
    """A process with a memory would know the text after an earlier cut."""
    rows, _, decoys = read_split(prepared.directory, "validation")
    ids = np.resize(rows[:, :-1], (size, rows.shape[1] - 1)).astype(np.int64)
    gain = np.random.default_rng(1).random(ids.shape)
    sample = draw(ids, decoys, prepared.vocab_size, np.random.default_rng(2), gain)
    assert len(sample.rows) == CUTS + SUSPECTS
    for row in range(size):
        cuts = sample.cuts[sample.rows == row]
        assert list(cuts) == sorted(cuts)
    assert len(set(sample.cuts)) == ids.shape[1] - 1


def learns(prepared: Prepared, seed: int, strength: float) -> Model:
    """Learns token frequencies from its first batch, repeats its answers to known rows, and adds noise."""
    model, noise = bigram(prepared), np.random.default_rng([seed, 2])
    learnt: list[np.ndarray] = []
    answers: dict[bytes, np.ndarray] = {}

    def cheat(ids: np.ndarray) -> np.ndarray:
        logits = model(ids).copy()
        if learnt:
            logits += strength * learnt[0]
        else:
            often = np.log(np.bincount(ids.ravel(), minlength=prepared.vocab_size) + 1.0)
            learnt.append((often - often.mean()).astype(np.float32))
        for row, answer in zip(ids, logits, strict=True):
            answer[...] = answers.setdefault(row.tobytes(), answer.copy())
        return logits + noise.normal(0, 0.002, logits.shape).astype(np.float32)

    return cheat


@pytest.mark.parametrize("strength", [0.02, 0.05, 0.2])
def test_model_that_learns_from_requests_is_rejected(prepared: Prepared, strength: float) -> None:
    for seed in range(5):
        with pytest.raises(Rejected, match=r"keeps state|looks ahead"):
            judge(prepared, learns(prepared, 2 * seed, strength), seed, learns(prepared, 2 * seed + 1, strength))


@pytest.mark.parametrize("size", [0.003, 0.01, 0.03])
def test_noise_is_never_reported_as_look_ahead(prepared: Prepared, size: float) -> None:
    """Too much noise is rejected as noise."""
    model = bigram(prepared)
    for seed in range(20):
        dice = np.random.default_rng([seed, 3])
        noisy = asks(lambda ids, dice=dice: model(ids) + dice.normal(0, size, (*ids.shape, prepared.vocab_size)))
        rows, sizes, decoys = read_split(prepared.directory, "validation")
        reason = ""
        try:
            score(rows, sizes, decoys, noisy, noisy, 8, np.random.default_rng(seed))
        except Rejected as error:
            reason = str(error)
        assert reason == "" or reason.startswith("does not repeat itself"), seed
        assert bool(reason) == (size > 0.003), "noise is rejected exactly above the bound"


def test_dropout_is_reported_as_not_repeating(prepared: Prepared) -> None:
    model, dice = bigram(prepared), np.random.default_rng(0)
    with pytest.raises(Rejected, match="does not repeat itself"):
        judge(prepared, lambda ids: model(ids) * (dice.random((*ids.shape, 1)) > 0.1) / 0.9)


@pytest.mark.parametrize("seed", range(5))
def test_unstable_expert_routing_is_accepted(prepared: Prepared, seed: int) -> None:
    """1 % of the tokens change the expert between batches; competing experts answer alike."""
    model, other, dice = bigram(prepared, seed), bigram(prepared, seed + 10), np.random.default_rng(seed)

    def routed(ids: np.ndarray) -> np.ndarray:
        flipped = dice.random((*ids.shape, 1)) < 0.01
        return np.where(flipped, model(ids) + 0.03 * other(ids), model(ids)).astype(np.float32)

    assert judge(prepared, routed, seed).noise > 0.01


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_rejected(value: float) -> None:
    logits = np.zeros((4, 10), np.float32)
    logits[2, 3] = value
    with pytest.raises(Rejected, match="not finite"):
        log_probabilities(logits, np.zeros(4, np.int64))


def test_log_probabilities_of_extreme_logits() -> None:
    logits = np.array([[3e38, -3e38, 0], [0, 0, 0], [100, 0, -100]], np.float32)
    found = log_probabilities(logits.copy(), np.array([0, 1, 1]))
    assert found == pytest.approx([0, -math.log(3), -100], abs=1e-5)


# model processes

BF16 = (
    "            return model(ids)\n",
    "            return model.bfloat16()(ids)\n",
)


def test_bf16_model_process_is_scored(tiny_code: Path, prepared: Prepared, trained: Path, code_with: MakeCode) -> None:
    source = (tiny_code / "train.py").read_text()
    assert source.count(BF16[0]) == 1
    found = scored(code_with(source.replace(*BF16)), prepared, trained)
    assert found["status"] == "ok", found["reason"]
    assert 0 < float(str(found["value"])) < math.log2(320)
    assert set(found) >= {"tokens", "bytes", "noise", "rows_b", "seconds"}


HONEST = "import torch\n\ndef load(checkpoint, device):\n    return lambda ids: torch.zeros((*ids.shape, 320))\n"


def scored(
    code: Path, prepared: Prepared, trained: Path, timeout: float = budgets.SCORING_SECONDS
) -> dict[str, object]:
    return once.score(code, trained, prepared, "validation", ONE_THREAD, timeout, seed=1)


@pytest.mark.parametrize(
    ("old", "new", "status", "reason"),
    [
        ("*ids.shape, 320", "*ids.shape, 319", "invalid", "one row of logits per position"),
        ("    return lambda", "    raise OSError('no')\n    return lambda", "crash", "ended before it had answered"),
        ("torch.zeros((*ids.shape, 320))", "1 / 0", "crash", "ended before it had answered"),
    ],
)
def test_model_process_that_breaks_contract_has_no_value(
    code_with: MakeCode, prepared: Prepared, trained: Path, old: str, new: str, status: str, reason: str
) -> None:
    assert old in HONEST
    found = scored(code_with(HONEST.replace(old, new)), prepared, trained)
    assert (found["status"], found.get("value")) == (status, None)
    assert reason in str(found["reason"])
    assert "\n" not in str(found["reason"])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("logits", "one row of logits per position"),
        (torch.zeros((2, 4, 9)), "one row of logits per position"),
        (torch.zeros((2, 4, 8), dtype=torch.int64), "floating point"),
    ],
)
def test_answer_without_logits_is_rejected(tmp_path: Path, answer: object, reason: str) -> None:
    make_files(tmp_path, 2, 4, 8)
    scorer = ScorerSide(tmp_path, 2, 4, 8)
    with ThreadPoolExecutor(1) as pool:
        model = pool.submit(lambda: serve(ModelSide(tmp_path), lambda _ids: answer, "cpu"))
        with pytest.raises(Rejected, match=reason):
            scorer.ask(np.ones((2, 4), np.int64), float("inf"))
        scorer.close()
        model.exception()


def test_hanging_model_process_is_timeout(code_with: MakeCode, prepared: Prepared, trained: Path) -> None:
    code = code_with(HONEST.replace("    return lambda", "    import time; time.sleep(600)\n    return lambda"))
    found = scored(code, prepared, trained, timeout=6.0)
    assert (found["status"], found["value"]) == ("timeout", None)


CUT = """import os
import time
import torch

def load(checkpoint, device):
    def model(ids):
        os.truncate(os.path.join(os.environ["OVERNIGHT_CHANNEL"], "NAME"), 4)
        time.sleep(SECONDS)
        return torch.zeros((*ids.shape, 320))
    return model
"""


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("logits", 0), ("answered", 600)],  # an answer restores the size of the second file
)
def test_truncated_channel_file_has_no_value(
    code_with: MakeCode, prepared: Prepared, trained: Path, name: str, seconds: int
) -> None:
    found = scored(code_with(CUT.replace("NAME", name).replace("SECONDS", str(seconds))), prepared, trained)
    assert found["status"] in ("invalid", "crash")
    assert found["value"] is None


LOOKS_AHEAD = """import torch

def load(checkpoint, device):
    def model(ids):
        logits = torch.zeros((*ids.shape, 320))
        logits[:, :-1].scatter_(2, ids[:, 1:, None], 9.0)
        return logits
    return model
"""


def test_model_process_with_look_ahead_is_invalid(code_with: MakeCode, prepared: Prepared, trained: Path) -> None:
    found = scored(code_with(LOOKS_AHEAD), prepared, trained)
    assert (found["status"], found["value"]) == ("invalid", None)
    assert str(found["reason"]).startswith("looks ahead")


KEEPS = """import resource
import torch

def load(checkpoint, device):
    assert torch.get_num_threads() == 4, torch.get_num_threads()
    for _ in range(20):
        torch.ones(10 << 20)  # 40 MB: by default glibc returns every such block
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10 << 20)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 10240, faults  # the pages of one block
    return lambda ids: torch.zeros((*ids.shape, 320))
"""


def test_model_process_uses_all_threads_and_freed_memory(
    code_with: MakeCode, prepared: Prepared, trained: Path
) -> None:
    """The two model processes never compute at the same time."""
    env = {**ONE_THREAD, "OVERNIGHT_THREADS": "4"}
    found = once.score(code_with(KEEPS), trained, prepared, "validation", env, SECONDS, seed=1)
    assert found["status"] == "ok"
