"""The ledger on a real disk: what was written is read back, whatever broke off in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nights import write_night

from agent.errors import EnvironmentProblem
from agent.ledger import journal as ledger
from agent.ledger.journal import Ledger, event_of, parse, read
from agent.ledger.state import Folder, LedgerDamaged, fold
from agent.types import Measurement, Proposal, Record, Verdict, from_json, to_json

TEXT = st.text(max_size=20)  # any character, half surrogates too
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.one_of(st.integers(-(2**53), 2**53), NUMBER, TEXT, st.booleans())
PROPOSALS = st.builds(
    Proposal, proposer=TEXT, source=TEXT, parent=TEXT, diff=TEXT, params=st.none() | st.dictionaries(TEXT, VALUE),
    subject=TEXT, ending=st.sampled_from([None, "duplicate", "model_failed"]), text=st.none() | TEXT,
    usage=st.dictionaries(TEXT, NUMBER),
)  # fmt: skip
MEASUREMENTS = st.builds(
    Measurement, commit=TEXT, role=st.sampled_from(["screen", "confirm", "test"]), seed=st.integers(0, 2**31),
    device=TEXT, status=st.sampled_from(["ok", "crash"]), value=st.none() | NUMBER,
    metrics=st.dictionaries(TEXT, NUMBER), peak_memory_gb=st.none() | NUMBER, reason=TEXT, log_tail=TEXT,
)  # fmt: skip
VERDICTS = st.builds(
    Verdict, decision=st.sampled_from(["keep", "revert"]), value=st.none() | NUMBER, best_before=st.none() | NUMBER,
    gain=st.none() | NUMBER, gain_se=st.none() | NUMBER, n=st.integers(0, 9), n_before=st.integers(0, 9),
    dof=st.integers(0, 9), reason=TEXT,
)  # fmt: skip
RECORDS = st.builds(
    Record, number=st.integers(1, 9), proposal=PROPOSALS, candidate=st.none() | TEXT,
    runs=st.lists(MEASUREMENTS, max_size=2).map(tuple), verdict=st.none() | VERDICTS, ended=st.none() | NUMBER,
)  # fmt: skip


@given(RECORDS)
def test_every_type_survives_json(record: Record) -> None:
    text = json.dumps(to_json(record))
    assert from_json(Record, json.loads(text)) == record


def test_what_was_written_before_a_field_existed_takes_its_default() -> None:
    old = from_json(Proposal, {"proposer": "llm", "source": "llm", "parent": "p", "diff": "d"})
    assert old == Proposal("llm", "llm", "p", "d")
    assert vars(old) == vars(Proposal("llm", "llm", "p", "d"))
    with pytest.raises(TypeError, match="colour"):
        from_json(Proposal, {**to_json(old), "colour": "red"})
    with pytest.raises(TypeError, match="diff"):
        from_json(Proposal, {"proposer": "llm", "source": "llm", "parent": "p"})


@given(st.lists(st.tuples(TEXT, VALUE), max_size=6), st.data())
def test_a_ledger_cut_anywhere_keeps_its_whole_lines(notes: list[tuple[str, Any]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        with Ledger(path) as open_ledger:
            for text, value in notes:
                open_ledger.append("session", note=text, value=value)
            written = list(open_ledger.events)
        whole = path.read_bytes()
        assert read(path) == written
        cut = int(len(whole) * data.draw(st.floats(0, 1)))
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert read(path) == written[:kept]
        with Ledger(path) as again:
            assert again.events == written[:kept]
            again.append("ended", reason="after the cut")
        assert [e["event"] for e in read(path)] == ["session"] * kept + ["ended"]


@given(st.binary(max_size=200))
def test_garbage_is_a_clear_error_or_a_torn_line(data: bytes) -> None:
    if b"\n" not in data[:-1]:  # one line, whole or torn
        assert parse(data) == ([], 0)
    else:
        with pytest.raises(LedgerDamaged, match=r"ledger.jsonl, line \d+: "):
            parse(data)


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    directory = write_night(tmp_path / "night", 3)
    path = directory / "ledger.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:4], lines[4][:20], *lines[5:]]))
    with pytest.raises(LedgerDamaged, match=r"ledger.jsonl, line 5: .*lines before it are sound"):
        read(path)


def test_two_events_on_one_line_are_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    event = '{"v": 1, "event": "ended", "time": 1.0, "reason": "x"}'
    path.write_text(f"{event} \n{event}{event}\n{event}\n")
    with pytest.raises(LedgerDamaged, match="line 2: more than one event"):
        read(path)


ODD = ("NaN", "-Infinity", "1e999", "-0", "1e-400", "18446744073709551616", "9" * 5000, "01", "1.", '"\\ud800"',
       '"\\ud83d\\ude00"', '"\ud800"', '"\t"', '{"a": 1, "a": 2}', "[1,]", "nul", "0.30000000000000004")  # fmt: skip
NESTED = st.recursive(
    VALUE | st.none() | st.integers() | st.floats(), lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
)


@given(st.sampled_from(ODD) | st.builds(json.dumps, NESTED, ensure_ascii=st.booleans()), st.data())
def test_a_line_is_what_json_says_it_is(value: str, data: st.DataObject) -> None:
    line = bytearray(f'{{"v": 1, "event": "ended", "time": 1.5, "reason": {value}}}'.encode(errors="surrogatepass"))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(line.index(b'"reason"'), len(line) - 1))
        line[place] = data.draw(st.sampled_from(b'{}[]",:\\ 019-eEx\t\x00\x7f\xc3\xed\xff'))
    try:
        wanted = json.loads(line.decode("utf-8", "surrogatepass"))
    except ValueError:
        with pytest.raises(ValueError):
            event_of(bytes(line))
    else:
        assert repr(event_of(bytes(line))) == repr(wanted)  # NaN is not even itself


def test_a_line_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(f'{{"v": 1, "event": "ended", "time": 1.0, "reason": {"[" * 9999}{"]" * 9999}}}\n' * 2)
    with pytest.raises(LedgerDamaged, match="line 1: nested too deeply"):
        read(path)


def test_a_line_of_another_schema_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"v": 2, "event": "session", "time": 0}\n' * 2)
    with pytest.raises(LedgerDamaged, match="line 1: schema 2, this version reads 1"):
        read(path)


@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, n) for kind in ("asked", "candidate", "judged", "moved") for n in (-1, 0, 99)]
    + [("measured", n) for n in (-1, 99)],  # 0 is the baseline
)
def test_an_event_of_a_trial_that_nobody_asked_for_is_named(tmp_path: Path, kind: str, number: int) -> None:
    events = read(write_night(tmp_path, 20) / "ledger.jsonl")
    last = max(k for k, event in enumerate(events) if event["event"] == kind and event["trial"] > 0)
    with pytest.raises(LedgerDamaged, match=f"'{kind}' does not fit.*{number}"):
        fold([*events[:last], {**events[last], "trial": number}])


def test_a_trial_that_was_asked_for_twice_is_named(tmp_path: Path) -> None:
    events = read(write_night(tmp_path, 20) / "ledger.jsonl")
    first = next(event for event in events if event["event"] == "asked")
    with pytest.raises(LedgerDamaged, match=r"'asked' does not fit.*trial 1, .* 21"):
        fold([*events, first])


def test_folding_step_by_step_is_folding_at_once(tmp_path: Path) -> None:
    events = read(write_night(tmp_path / "night", 30, failures=0.2) / "ledger.jsonl")
    folder = Folder()
    for end, event in enumerate(events, start=1):
        folder.take(event)
        if end % 17 == 0 or end == len(events):
            assert folder.state() == fold(events[:end])


def test_half_a_surrogate_does_not_stop_the_night(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl") as open_ledger:
        event = open_ledger.append("ended", reason="bad \ud800 text")
    assert read(tmp_path / "ledger.jsonl") == [event]


FULL = """
import resource, signal, sys
from pathlib import Path
from agent.errors import EnvironmentProblem
from agent.ledger.journal import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
with Ledger(path) as ledger:
    ledger.append("session", note="x" * 300)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    try:
        ledger.append("session", note="y" * 300)
    except EnvironmentProblem as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ledger.append("ended", reason="space again")
"""


def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Free some space, then `overnight resume`" in done.stdout
    assert [e["event"] for e in read(path)] == ["session", "ended"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((EnvironmentProblem, NotADirectoryError), match="file"):
        Ledger(tmp_path / "file" / "ledger.jsonl")


def test_every_event_has_a_fold() -> None:
    assert all(hasattr(Folder, "on_" + event) for event in ledger.EVENTS)
