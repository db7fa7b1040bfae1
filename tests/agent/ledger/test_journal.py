"""The ledger on a real disk: writing, reading, torn and damaged lines."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nights import write_night

from agent.errors import EnvironmentProblem
from agent.ledger.events import Asked, Ended, SessionStarted, encode, name_of
from agent.ledger.journal import Ledger, parse, read
from agent.ledger.state import LedgerDamaged, StateBuilder, fold

TEXT = st.text(max_size=20)  # any character, half surrogates too


@given(st.lists(TEXT, max_size=6), st.data())
def test_truncated_ledger_keeps_whole_lines(notes: list[str], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        with Ledger(path) as open_ledger:
            for text in notes:
                open_ledger.append(SessionStarted(tag=text))
            written = list(open_ledger.events)
        whole = path.read_bytes()
        assert read(path) == written
        cut = int(len(whole) * data.draw(st.floats(0, 1)))
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert read(path) == written[:kept]
        with Ledger(path) as again:
            assert again.events == written[:kept]
            again.append(Ended(reason="after the cut"))
        assert [name_of(e) for e in read(path)] == ["session"] * kept + ["ended"]


@given(st.binary(max_size=200))
def test_garbage_is_error_or_torn_line(data: bytes) -> None:
    if (b"\n" not in data[:-1] and not data.lstrip().startswith(b"{")) or b"\n" not in data:  # one line, whole or torn
        assert parse(data) == ([], 0)
    else:
        with pytest.raises(LedgerDamaged, match=r"ledger.jsonl, line \d+: "):
            parse(data)


def test_damaged_middle_line_is_named(tmp_path: Path) -> None:
    directory = write_night(tmp_path / "night", 3)
    path = directory / "ledger.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:4], lines[4][:20], *lines[5:]]))
    with pytest.raises(LedgerDamaged, match=r"ledger.jsonl, line 5: .*lines before it are sound"):
        read(path)


def test_last_line_of_another_schema_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(encode(Ended(time=1.0, reason="x")) + b'{"v": 2, "event": "ended", "time": 2.0}\n')
    before = path.read_bytes()
    with pytest.raises(LedgerDamaged, match="line 2: schema 2"):
        Ledger(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, n) for kind in ("asked", "candidate", "judged", "moved") for n in (-1, 0, 99)]
    + [("measured", n) for n in (-1, 99)],  # 0 is the baseline
)
def test_event_of_unknown_trial_is_named(tmp_path: Path, kind: str, number: int) -> None:
    events = read(write_night(tmp_path, 20) / "ledger.jsonl")
    last = max(k for k, event in enumerate(events) if name_of(event) == kind and getattr(event, "trial", 0) > 0)
    with pytest.raises(LedgerDamaged, match=f"'{kind}' does not fit.*{number}"):
        fold([*events[:last], msgspec.structs.replace(events[last], trial=number)])


def test_trial_asked_twice_is_named(tmp_path: Path) -> None:
    events = read(write_night(tmp_path, 20) / "ledger.jsonl")
    first = next(event for event in events if isinstance(event, Asked))
    with pytest.raises(LedgerDamaged, match=r"'asked' does not fit.*trial 1, .* 21"):
        fold([*events, first])


def test_incremental_fold_equals_full_fold(tmp_path: Path) -> None:
    events = read(write_night(tmp_path / "night", 30, failures=0.2) / "ledger.jsonl")
    builder = StateBuilder()
    for end, event in enumerate(events, start=1):
        builder.apply(event)
        if end % 17 == 0 or end == len(events):
            assert builder.state() == fold(events[:end])


def test_half_surrogate_is_written_and_read(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl") as open_ledger:
        event = open_ledger.append(Ended(reason="bad \ud800 text"))
    assert read(tmp_path / "ledger.jsonl") == [event]


FULL = """
import resource, signal, sys
from pathlib import Path
from agent.errors import EnvironmentProblem
from agent.ledger.events import Ended, SessionStarted
from agent.ledger.journal import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
with Ledger(path) as ledger:
    ledger.append(SessionStarted(tag="x" * 300))
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, resource.RLIM_INFINITY))
    try:
        ledger.append(SessionStarted(tag="y" * 300))
    except EnvironmentProblem as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ledger.append(Ended(reason="space again"))
"""


def test_full_disk_keeps_written_lines(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Free some space, then `overnight resume`" in done.stdout
    assert [name_of(e) for e in read(path)] == ["session", "ended"]


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((EnvironmentProblem, NotADirectoryError), match="file"):
        Ledger(tmp_path / "file" / "ledger.jsonl")
