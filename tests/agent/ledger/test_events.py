"""Events and their JSON lines: round trip, older ledgers, lines that are not events."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ledger.events import (
    EVENTS,
    SCHEMA,
    Asked,
    Candidate,
    Ended,
    Event,
    Judged,
    Lost,
    Measured,
    Moved,
    NotAnEvent,
    Observed,
    Planned,
    Published,
    Repaired,
    Resumed,
    RunStarted,
    ServerProblem,
    SessionStarted,
    Stacked,
    Weighed,
    decode,
    encode,
    fields_of,
    name_of,
)
from agent.types import Measurement, Proposal, Record, Verdict, Weight, to_json

TEXT = st.text(max_size=20)  # any character, half surrogates too
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.one_of(st.integers(), NUMBER, TEXT, st.booleans())
ROLE: st.SearchStrategy[Any] = st.sampled_from(["screen", "confirm", "incumbent", "test"])
PROPOSALS = st.builds(
    Proposal, proposer=TEXT, source=TEXT, parent=TEXT, diff=TEXT, params=st.none() | st.dictionaries(TEXT, VALUE),
    subject=TEXT, ending=st.sampled_from([None, "duplicate", "model_failed"]), text=st.none() | TEXT,
    usage=st.dictionaries(TEXT, NUMBER),
)  # fmt: skip
MEASUREMENTS = st.builds(
    Measurement, commit=TEXT, role=ROLE, seed=st.integers(0, 2**31), device=TEXT,
    status=st.sampled_from(["ok", "crash"]), value=st.none() | NUMBER, metrics=st.dictionaries(TEXT, NUMBER),
    peak_memory_gb=st.none() | NUMBER, reason=TEXT, log_tail=TEXT,
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
AT: dict[str, Any] = {"time": st.floats(0, 2e9)}
OF: dict[str, Any] = {**AT, "trial": st.integers(0, 10**6)}
CHANGES = st.dictionaries(st.sampled_from(["policy", "device", "settings"]), TEXT | st.dictionaries(TEXT, VALUE))
TRIALS = st.lists(st.integers(1, 10**6), max_size=3).map(tuple)
WEIGHTS = st.builds(
    Weight, trial=st.integers(1, 99), probability=NUMBER, gain=NUMBER, se=NUMBER, runs_in=st.integers(0, 99),
    runs_out=st.integers(0, 99), mean_in=NUMBER, mean_out=st.none() | NUMBER,
)  # fmt: skip
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "session": st.builds(SessionStarted, tag=TEXT, baseline=TEXT, metric=TEXT, trials=st.none() | st.integers(0), **AT),
    "planned": st.builds(Planned, plan=st.dictionaries(TEXT, VALUE), **AT),
    "asked": st.builds(Asked, started=st.none() | NUMBER, waited=st.none() | NUMBER, proposal=PROPOSALS, **OF),
    "repaired": st.builds(Repaired, waited=NUMBER, proposal=PROPOSALS, **OF),
    "candidate": st.builds(Candidate, commit=TEXT, ref=TEXT, parent=TEXT, **OF),
    "run_started": st.builds(RunStarted, commit=TEXT, role=ROLE, seed=st.integers(), trace=TEXT, **OF),
    "measured": st.builds(Measured, measurement=MEASUREMENTS, **OF),
    "judged": st.builds(Judged, verdict=VERDICTS, **OF),
    "told": st.builds(Observed, **OF),
    "moved": st.builds(Moved, commit=TEXT, **OF),
    "stacked": st.builds(Stacked, commit=TEXT, ref=TEXT, base=TEXT, edits=TRIALS, new=TRIALS, seed=st.integers(), **OF),
    "weighed": st.builds(Weighed, edits=st.lists(WEIGHTS, max_size=3).map(tuple), **OF),
    "published": st.builds(Published, trials=TRIALS, commits=st.lists(TEXT, max_size=3).map(tuple), **OF),
    "lost": st.builds(Lost, trace=TEXT, reason=TEXT, **OF),
    "server_problem": st.builds(ServerProblem, problem=TEXT, action=TEXT, **AT),
    "resumed": st.builds(Resumed, attempt=st.integers(0, 99), changes=st.just(msgspec.UNSET) | CHANGES, **AT),
    "ended": st.builds(Ended, reason=TEXT, **AT),
}


def test_every_event_has_a_strategy() -> None:
    assert set(BY_NAME) == set(EVENTS)


@given(st.one_of(*BY_NAME.values()))
def test_events_survive_their_lines(event: Event) -> None:
    line = encode(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == event
    fields = json.loads(line)
    assert list(fields)[:3] == ["v", "event", "time"]
    assert (fields["v"], fields["event"]) == (SCHEMA, name_of(event))
    assert fields == json.loads(json.dumps(fields_of(event)))


@given(RECORDS)
def test_every_type_survives_json(record: Record) -> None:
    text = json.dumps(to_json(record))
    assert msgspec.convert(json.loads(text), Record) == record


def test_numpy_floats_are_written_as_numbers() -> None:
    proposal = Proposal("cma-es", "cma", "p", "", params={"LR": np.float64(0.5)})
    assert decode(encode(Asked(time=1.0, trial=1, proposal=proposal))) == Asked(time=1.0, trial=1, proposal=proposal)


def test_infinite_numbers_are_rejected() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(Ended(time=float("nan"), reason=""))


def line_of(text: str) -> bytes:
    return f'{{"v": 1, "time": 1.0, {text}}}'.encode(errors="surrogatepass")


OLD_ASKED = '"event": "asked", "trial": 1, "proposal": {"proposer": "a", "source": "llm", "parent": "p", "diff": "d"}'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('"event": "session", "tag": "t"', SessionStarted(time=1.0, tag="t")),
        ('"event": "session", "tag": "t", "colour": ["red"]', SessionStarted(time=1.0, tag="t")),
        (OLD_ASKED, Asked(time=1.0, trial=1, proposal=Proposal("a", "llm", "p", "d"))),
        ('"event": "candidate", "trial": 1, "commit": "c"', Candidate(time=1.0, trial=1, commit="c")),
        ('"event": "resumed"', Resumed(time=1.0)),
        ('"event": "ended", "reason": "\\ud800"', Ended(time=1.0, reason="\ud800")),
        ('"event": "ended", "reason": "\ud800"', Ended(time=1.0, reason="\ud800")),
        ('"event": "ended", "reason": "a\tb"', None),
    ],
)  # fmt: skip
def test_fields_of_other_versions_are_read(text: str, wanted: Event | None) -> None:
    if wanted is None:
        with pytest.raises(ValueError, match="control character"):
            decode(line_of(text))
    else:
        assert decode(line_of(text)) == wanted


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"v": 2, "event": "session", "time": 0}', "schema 2, this version reads 1"),
        (b'{"v": 1, "event": "dreamt", "time": 0}', "not an event"),
        (b'{"v": 1, "event": ["ended"], "time": 0}', "not an event"),
        (b'{"v": 1, "event": "ended", "reason": "x"}', "time"),
        (line_of('"event": "ended"'), "reason"),
        (line_of('"event": "told", "trial": "one"'), "trial"),
        (line_of('"event": "ended", "reason": "x"') * 2, "more than one event"),
        (line_of(f'"event": "ended", "reason": {"[" * 9999}{"]" * 9999}'), "nested too deeply"),
        (b'{"v": 1, "event": "ended", "reason": "x", "time": ' + b"9" * 400 + b"}", "time"),
    ],
)
def test_invalid_objects_are_named(line: bytes, message: str) -> None:
    with pytest.raises(NotAnEvent, match=message):
        decode(line)


@given(st.binary(max_size=100))
def test_decode_raises_nothing_but_value_errors(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)
