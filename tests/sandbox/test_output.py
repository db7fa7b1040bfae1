"""A job's output is bounded and cleaned for any chunking of its bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.output import LINE_BYTES, Output, clean
from sandbox.types import SandboxBroken


def lines(*pieces: bytes, limit: int = 10_000) -> tuple[list[str], Output]:
    output = Output(limit)
    for piece in pieces:
        output.feed(piece)
    output.end()
    return output.read(0) or [], output


def test_lines_survive_any_chunking() -> None:
    assert lines(b"one\ntw", b"o\n", b"three")[0] == ["one", "two", "three"]


def test_carriage_return_ends_a_line() -> None:
    assert lines(b"10%\r20%\r\ndone\n")[0] == ["10%", "20%", "done"]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_tail_survives_any_chunking(data: bytes, size: int) -> None:
    pieces = [data[k : k + size] for k in range(0, len(data), size)]
    assert lines(*pieces)[1].tail() == lines(data)[1].tail()


def test_output_over_limit_keeps_its_tail(tmp_path: Path) -> None:
    output = Output(10, tmp_path / "log")
    output.feed(b"0123456789" + b"x" * 90_000 + b"\nthe end\n")
    output.end()
    assert output.dropped == 90_009
    assert output.tail().endswith("the end")
    assert "90009 bytes dropped" in (tmp_path / "log").read_text()


def test_skipped_bytes_count_as_dropped() -> None:
    output = Output(4)
    output.feed(b"abcd")
    output.skip(1000)
    output.feed(b"end\n")
    output.end()
    assert output.dropped == 1004


def test_long_line_is_cut_next_is_whole() -> None:
    found, _ = lines(b"x" * (3 * LINE_BYTES), b"y" * LINE_BYTES + b"\nnext\n", limit=10 * LINE_BYTES)
    assert [len(found[0]), found[1]] == [LINE_BYTES, "next"]


def test_read_returns_none_at_the_end() -> None:
    output = Output(100)
    assert output.read(0) == []
    output.feed(b"a\n")
    output.end()
    assert output.read(0) == ["a"]
    assert output.read(0) is None


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("a\x08b\x07c\x00", "abc"),
        ("\u202eevil\u2066", "evil"),
        ("\x9b2Jcleared", "cleared"),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_escape_sequences_are_removed(raw: str, plain: str) -> None:
    assert clean(raw) == plain


@given(st.text())
def test_no_control_character_remains(text: str) -> None:
    assert not [c for c in clean(text) if (ord(c) < 32 and c != "\t") or 0x7F <= ord(c) <= 0x9F]


def test_full_log_disk_does_not_block_readers() -> None:
    output = Output(1000, Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        output.feed(b"step 1\n")
    output.end()
    while output.read(0) is not None:
        pass
    with pytest.raises(SandboxBroken, match="/dev/full"):
        output.check()
    unfinished = Output(1000, Path("/dev/full"))
    unfinished.feed(b"no end of line")
    unfinished.end()
    assert unfinished.read(0) is None
    with pytest.raises(SandboxBroken):
        unfinished.check()
