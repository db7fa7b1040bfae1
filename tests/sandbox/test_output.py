"""What a job prints, cut and cleaned, however its bytes arrive."""

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


def test_lines_do_not_depend_on_how_the_bytes_arrive() -> None:
    assert lines(b"one\ntw", b"o\n", b"three")[0] == ["one", "two", "three"]


def test_a_carriage_return_ends_a_line() -> None:
    assert lines(b"10%\r20%\r\ndone\n")[0] == ["10%", "20%", "done"]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_pieces_of_any_size_keep_the_tail(data: bytes, size: int) -> None:
    pieces = [data[k : k + size] for k in range(0, len(data), size)]
    assert lines(*pieces)[1].tail() == lines(data)[1].tail()


def test_what_is_over_the_limit_is_counted_and_its_end_kept(tmp_path: Path) -> None:
    output = Output(10, tmp_path / "log")
    output.feed(b"0123456789" + b"x" * 90_000 + b"\nthe end\n")
    output.end()
    assert output.truncated
    assert output.dropped == 90_009
    assert output.tail().endswith("the end")
    assert "90009 bytes dropped" in (tmp_path / "log").read_text()


def test_what_was_dropped_elsewhere_counts_too() -> None:
    output = Output(4)
    output.feed(b"abcd")
    output.skip(1000)
    output.feed(b"end\n")
    output.end()
    assert output.dropped == 1004
    assert output.truncated


def test_an_endless_line_is_cut_and_the_next_one_is_whole() -> None:
    found, _ = lines(b"x" * (3 * LINE_BYTES), b"y" * LINE_BYTES + b"\nnext\n", limit=10 * LINE_BYTES)
    assert [len(found[0]), found[1]] == [LINE_BYTES, "next"]


def test_reading_ends_with_none() -> None:
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
def test_escape_sequences_and_their_like_are_removed(raw: str, plain: str) -> None:
    assert clean(raw) == plain


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    assert not [c for c in clean(text) if (ord(c) < 32 and c != "\t") or 0x7F <= ord(c) <= 0x9F]


def test_a_log_whose_disk_is_full_keeps_nobody_waiting() -> None:
    output = Output(1000, Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        output.feed(b"step 1\n")
    output.end()
    while output.read(0) is not None:
        pass
    with pytest.raises(SandboxBroken, match="cannot write /dev/full: No space left on device; free some space"):
        output.check()
    unfinished = Output(1000, Path("/dev/full"))
    unfinished.feed(b"no end of line")
    unfinished.end()
    assert unfinished.read(0) is None
    with pytest.raises(SandboxBroken):
        unfinished.check()
