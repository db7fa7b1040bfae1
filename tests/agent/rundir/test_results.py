"""results.tsv as people and tools write it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.rundir.results import TSV_HEADER, Row, parse_tsv, read_tsv, result_line, values_of_results
from agent.types import Proposal, Record, Verdict

LIST = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\na1b2c3d\t0.9979\t44.0\tkeep\tbaseline\n"


def rows_of(folder: Path, data: bytes) -> list[Row]:
    (folder / "results.tsv").write_bytes(data)
    return read_tsv(folder / "results.tsv")


@pytest.mark.parametrize("value", ["N/A", "", "nan", "0.000000", "inf", "-", "OOM"])
@pytest.mark.parametrize("status", ["crash", "CRASH", "discard"])
def test_failed_row_has_no_value(tmp_path: Path, value: str, status: str) -> None:
    row = rows_of(tmp_path, f"{LIST}c3d4e5f\t{value}\t{value}\t{status}\tOOM\n".encode())[-1]
    assert (row.value, row.status, row.line) == (None, status.lower(), 3)


@pytest.mark.parametrize("value", ["N/A", "", "nan", "1_000", "1,003.34"])
def test_kept_row_without_number_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError, match="line 3"):
        rows_of(tmp_path, f"{LIST}c3d4e5f\t{value}\t44.0\tkeep\tx\n".encode())


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + LIST.encode(),
        LIST.replace("\n", "\r\n").encode(),
        LIST.replace("keep", "KEEP ").encode(),
        LIST.replace("baseline", "a\u2028b\x85c\x0cd").encode(),
        LIST.replace("baseline", '"quoted').encode(),
        LIST.replace("description", "description ").encode(),
        LIST.replace("\n", "\n\n").encode(),
        LIST.replace("baseline", "M\xfcller").encode("latin-1"),
    ],
    ids=["BOM", "CRLF", "upper case", "line separators", "quote", "space in header", "blank lines", "latin-1"],
)
def test_spelling_of_file_does_not_matter(tmp_path: Path, data: bytes) -> None:
    (row,) = rows_of(tmp_path, data)
    assert (row.commit, row.value, row.memory_gb, row.status) == ("a1b2c3d", 0.9979, 44.0, "keep")


@given(st.text() | st.text(alphabet="\t\n\r\0\"'keepcrash0.1\u2028\ufeff", max_size=80).map(LIST.__add__))
def test_any_list_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_tsv(text, "list")


@pytest.mark.parametrize("value", [0.9979, 8.96e-7, 0.0, -0.5, 93.25])
def test_written_value_is_read_again(value: float) -> None:
    verdict = Verdict("keep", value, 1.0, None, None, 1, 1, 0, "")
    record = Record(1, Proposal("code", "llm", "p", "d"), candidate="c" * 40, verdict=verdict)
    (row,) = parse_tsv(TSV_HEADER + result_line(record), "list")
    assert row.value == pytest.approx(value)


def test_maximised_metric_is_written_with_sign_changed() -> None:
    verdict = Verdict("keep", 0.93, 0.9, 0.03, None, 1, 1, 0, "better")
    record = Record(1, Proposal("code", "llm", "a" * 40, "", subject="x"), candidate="b" * 40, verdict=verdict)
    text = TSV_HEADER + result_line(record, "maximize")
    assert "\t-0.930000\t" in text
    assert values_of_results(text, "list", "maximize") == {"bbbbbbb": 0.93}
    assert values_of_results(text.replace("-0.93", "0.93"), "list", "maximize") == {"bbbbbbb": 0.93}
