"""A metric is read as a whole token of the last metric line, or the run has no value."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.trial.outputs import printed_value

DIGITS = r"^val_bpb:\s*([0-9.]+)"
TOKEN = r"^val_bpb:\s*(\S+)"


def read(folder: Path, text: str, pattern: str) -> float | str:
    """The value, or the status of the failure."""
    (folder / "train.log").write_text(text)
    score = printed_value(folder / "train.log", pattern, "val_bpb")
    return score.value if score.failure is None and score.value is not None else score.failure.status  # type: ignore[union-attr]


@pytest.mark.parametrize("pattern", [DIGITS, TOKEN, r"val_bpb:.*?([\d.]+)"])
@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("8.96e-03", 0.00896), ("8.96E3", 8960.0), ("-0.5", -0.5), ("+1.5", 1.5), ("2", 2.0), (".5", 0.5),
        ("0.98.", 0.98), ("0.98,", 0.98), ("1_000", "invalid"), ("1,003.34", "invalid"), ("0,98", "invalid"),
        ("1.2.3", "invalid"), ("0x1F", "invalid"), ("3.2k", "invalid"), ("1e999", "diverged"),
        ("1 003.34", "invalid"), ("1\u202f003.34", "invalid"), ("1'003.34", "invalid"), ("3 seconds", 3.0),
        ("3/4", "invalid"), ("12:30", "invalid"), ("1.2×10^-3", "invalid"), ("1.2 x 10^-3", "invalid"),
        ("1.#QNAN", "invalid"), ("2: saved", 2.0), ("0.5 / 8", 0.5),
    ],
)  # fmt: skip
def test_whole_token_is_read(tmp_path: Path, pattern: str, token: str, expected: float | str) -> None:
    assert read(tmp_path, f"val_bpb: 7.5\nval_bpb: {token}\ndone 3\n", pattern) == expected


@pytest.mark.parametrize("pattern", [DIGITS, TOKEN, r"^val_bpb: ([0-9]+\.[0-9]+) bits"])
@pytest.mark.parametrize(
    ("token", "expected"),
    [("nan", "diverged"), ("NaN", "diverged"), ("-inf", "diverged"), ("Infinity", "diverged"), ("FAILED", "invalid")],
)
def test_older_value_never_replaces_last(tmp_path: Path, pattern: str, token: str, expected: str) -> None:
    assert read(tmp_path, f"val_bpb: 0.9 bits\nval_bpb: {token}\nbye\n", pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        (r"^loss .*([0-9.]+)$", "loss after 3 steps 0.125", 0.125),  # the greedy part leaves one digit
        (r"^loss .*([0-9.]+)$", "loss 1,003.34", "invalid"),
        (r"^\d+,([0-9.]+)", "12,0.5,0.3", 0.5),
        (r"^time: ([0-9.]+)s", "time: 3.25s", 3.25),
        (r"acc = ([0-9.]+)%", "acc = 93.5%", 93.5),
        (r"step-([0-9.]+)", "step-1.5", 1.5),
        (r"'eval_accuracy': ([^\s,]+)", "{'eval_loss': 1.0, 'eval_accuracy': 0.93}", 0.93),
        (r"^loss: ([0-9.]+) \(val\)", "loss: 0.5 (val)\nloss: 0.25 (train)", 0.5),
        (r"([0-9.]+)$", "value 0.5\ndone", 0.5),
        (r"^val_bpb:\s*([0-9.]+)", "val_bpb:\n0.75", 0.75),
        (r"^val_bpb:\s*([0-9.]+)", "val_bpb: 0.5\nval_bpb:\n12 seconds", "invalid"),
        (r"^val_bpb:\s*([0-9.]+)$", "val_bpb: 0.5\r\n", 0.5),
        (r"(?P<v>nothing)", "val_bpb: 1", "crash"),
    ],
)
def test_pattern_decides_what_surrounds_number(tmp_path: Path, pattern: str, line: str, expected: float | str) -> None:
    assert read(tmp_path, f"{line}\n", pattern) == expected


@given(st.text(max_size=40), st.sampled_from([DIGITS, TOKEN, r"loss ([^,]+),", r"\[([0-9.]+)\]", r"(?:loss|x) (\d+)"]))
def test_any_log_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str, pattern: str) -> None:
    log = tmp_path_factory.getbasetemp() / "any.log"
    log.write_bytes(f"val_bpb: {text}\nloss {text}".encode("utf-8", "surrogatepass"))
    score = printed_value(log, pattern, "val_bpb")
    assert (score.value is None) != (score.failure is None)
