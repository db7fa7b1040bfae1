"""Views of runs: nights of every kind, wide and narrow consoles, hostile texts."""

import io
import json
import time
from dataclasses import replace

import pytest
from nights import KINDS as PLAIN_KINDS
from nights import write_night
from rich.console import Console

from agent import text
from agent.judge.noise import noise_of
from agent.ledger.events import Measured, Resumed, RunStarted
from agent.ledger.journal import read
from agent.ledger.state import State, fold
from agent.observers.activity import Activity, advance
from agent.observers.panel import _now
from agent.observers.protocol import Observers
from agent.observers.terminal import LiveView
from agent.review.data.attempt import details_of, show_json
from agent.review.data.attempts import log_json
from agent.review.data.diffs import diff_lines, diff_of, highlighted, size_of
from agent.review.data.night import night_of
from agent.review.data.runs import run_json
from agent.review.data.status import status_json
from agent.review.data.summary import summarize
from agent.review.terminal.diff import diff_text
from agent.review.terminal.log import log_table
from agent.review.terminal.runs import runs_table
from agent.review.terminal.show import show_view
from agent.review.terminal.status import status_panel
from agent.text import decisive_lines

HOSTILE = (
    "<script>alert(1)</script>\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[bold red]markup[/] [/nonsense] :smile:"
    "'\"><img src=x onerror=alert(2)>{{ 7*7 }}"
)
KINDS = {**PLAIN_KINDS, "hostile": {"hostile": HOSTILE, "trials": 25, "failures": 0.4, "unran": 0.2}}


@pytest.fixture(scope="module", params=KINDS, ids=lambda name: name.replace(" ", "-"))
def night(request, tmp_path_factory):
    folder = write_night(tmp_path_factory.mktemp("runs") / "jun12", **{"trials": 12, **KINDS[request.param]})
    return folder, fold(read(folder / "ledger.jsonl")), request.param


def drawn(renderable, width=100, terminal=False):
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=terminal, highlight=False).print(renderable)
    return file.getvalue()


def everything(folder, state):
    run = {"run": {"tag": "jun12"}}
    night = night_of(state, run)
    yield log_table(night)
    yield log_table(night, all=True)
    yield status_panel(night)
    yield status_panel(night_of(state, run, state.last_time + 10, running=True, last_sign=state.last_time))
    yield runs_table([run_json("jun12", state, False), run_json("empty", State(), True)])
    for record in state.records:
        yield show_view(details_of(record, state, folder))


@pytest.mark.parametrize("width", [20, 100])
def test_views_render_every_night_at_every_width(night, width):
    folder, state, _ = night
    for view in everything(folder, state):
        assert drawn(view, width).strip()


def test_views_contain_no_terminal_sequences(night):
    folder, state, _ = night
    for view in everything(folder, state):
        text = drawn(view, 400)
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_json_is_valid_and_sanitised(night):
    folder, state, _ = night
    data = [
        log_json(night_of(state, {}).attempts),
        status_json(night_of(state, {}, state.last_time + 5, running=True)),
        [run_json("jun12", state, False)],
        *(show_json(details_of(record, state, folder)) for record in state.records),
    ]
    assert [data[1]["schema"], data[2][0]["schema"]] == ["overnight.status/1", "overnight.list/1"]
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    text.encode()
    assert not set(text) & {"\x1b", "\x9b", "\u202e"}


def test_log_json_has_documented_keys(night):
    _, state, _ = night
    log = log_json(night_of(state, {}).attempts)
    assert [entry["trial"] for entry in log] == [record.number for record in state.finished]
    for entry in log:
        assert entry["schema"] == "overnight.log/1"
        assert entry["decision"] in ("keep", "revert")
        assert (entry["value"] is None) == (entry["status"] != "ok")
        assert (entry["accepted"] is not None) == (entry["decision"] == "keep")
        assert {"commit", "source", "gain", "gain_se", "best_before", "runs", "subject", "category"} <= set(entry)
        assert {"proposer", "reason", "seconds", "self_reported"} <= set(entry)


@pytest.mark.parametrize("width", [60, 72, 90])
def test_list_keeps_main_columns_on_narrow_terminal(tmp_path, width):
    folder = write_night(tmp_path / "demo-nov23", 30)
    rows = [run_json("demo-nov23", fold(read(folder / "ledger.jsonl")), False)]
    words = drawn(runs_table(rows), width)
    assert "…" not in words
    for name in ("demo-nov23", "ended", "30/30", "kept", "gain ± se", text.gain(rows[0]["gain"], rows[0]["gain_se"])):
        assert name in words


@pytest.mark.parametrize("width", [50, 90, 140])
def test_log_cuts_only_the_edit(tmp_path, width):
    night = night_of(fold(read(write_night(tmp_path / "n", 8) / "ledger.jsonl")), {})
    rows = drawn(log_table(night, all=True), width).splitlines()
    assert len(rows) == 9
    for row, attempt in zip(rows[1:], night.attempts, strict=True):
        assert row.split()[0] == str(attempt.trial)
        assert text.gain(attempt.gain, attempt.gain_se) in row
        assert len(row) <= width


def test_self_reported_values_are_marked(night):
    folder, state, kind = night
    seen = night_of(state, {})
    for view in (log_table(seen, all=True), status_panel(seen), runs_table([run_json("jun12", state, False)])):
        assert ("self-reported" in drawn(view, 200)) == (kind == "self-reported")
    if kind == "self-reported":
        ran = next(record for record in state.records if record.status == "ok")
        assert "self-reported" in drawn(show_view(details_of(ran, state, folder)))


def test_gain_is_positive_for_both_goals(night):
    _, state, _ = night
    summary = summarize(state)
    if summary.kept:
        assert summary.gain > 0
        assert (summary.best.value > summary.baseline.value) == (summary.goal == "maximize")
    else:
        assert summary.gain is None
        assert summary.gain_se is None


def test_noise_is_zero_or_unknown(tmp_path):
    calm = summarize(fold(read(write_night(tmp_path / "a", 3, sd=0.0) / "ledger.jsonl")))
    once = summarize(fold(read(write_night(tmp_path / "b", 3, calibration=1, keeps=False) / "ledger.jsonl")))
    assert calm.noise_sd == pytest.approx(0.0, abs=1e-9)
    assert once.noise_sd is None


def test_outcomes_add_up_to_trials(night):
    _, state, _ = night
    summary = summarize(state)
    assert summary.kept + summary.reverted + summary.failed == summary.trials == len(state.finished)


def test_show_starts_with_the_failure(tmp_path):
    folder = write_night(tmp_path / "n", 40, failures=0.9)
    state = fold(read(folder / "ledger.jsonl"))
    crash = next(record for record in state.records if record.status == "crash")
    lines = drawn(show_view(details_of(crash, state, folder))).splitlines()
    assert "crash" in lines[0]
    assert "RuntimeError: mat1 and mat2" in lines[1]
    assert 'File "/code/train.py", line 61, in forward' in "\n".join(lines[:5])


def test_show_has_curves_of_attempt_and_parent(tmp_path):
    folder = write_night(tmp_path / "n", 60)
    state = fold(read(folder / "ledger.jsonl"))
    later = next(r for r in state.records if r.number > state.kept[0].number and r.status == "ok")
    details = details_of(later, state, folder)
    data = show_json(details)
    assert len(data["curve"]) == len(data["parent_curve"]) == 120
    assert later.proposal.parent == state.kept[0].accepted
    assert "parent" in drawn(show_view(details))


def test_read_curve_skips_invalid_lines(tmp_path):
    from agent.curves import inside, read_curve

    path = tmp_path / "curve.jsonl"
    rubbish = ["rubbish", "[1]", '{"loss": "NaN"}', '{"loss": NaN}', "[" * 9999]
    lines = ['{"step": 1, "progress": 0.1, "loss": 3.0}', *rubbish, '{"loss": 2, "progress": 0.2}', '{"loss": 1']
    path.write_text("\n".join(lines))
    assert [point.loss for point in read_curve(path)] == [3.0, 2.0]
    assert read_curve(tmp_path / "none") == []
    assert inside(tmp_path, "../../etc") == tmp_path


def test_decisive_lines_are_last_frame_and_exception():
    frames = '  File "a.py", line 1, in f\n    f()\n  File "b.py", line 2, in g\n    g()\n'
    log = f'step 1\nTraceback\n{frames}ValueError: no\n{{"event": 1}}\n'
    assert decisive_lines(log) == ['  File "b.py", line 2, in g', "    g()", "ValueError: no"]
    assert decisive_lines("fine\nfine\nKilled\n")[0] == "Killed"
    assert decisive_lines("") == []


def test_diff_of_two_texts():
    assert "+b = 2" in drawn(diff_text(diff_of("a = 1\n", "a = 1\nb = 2\n", ("trial 1", "trial 2"))))
    assert "No newline" in drawn(diff_text(diff_of("a", "a\n")))
    assert "@@ -1,2 +1,2 @@" in diff_of("a = '\u2028\x0c'\nb = 1\n", "a = '\u2028\x0c'\nb = 2\n")  # lines of git
    assert diff_of("a\n", "a\n") == ""


COMMENTED_OUT = """\
--- a/train.sql.py
+++ b/train.sql.py
@@ -1,3 +1,3 @@
--- a note
+++ another
 for x in "a", 1:  # go on
\\ No newline at end of file
diff --git a/b.py b/b.py
"""


def test_hunk_header_decides_kinds_of_lines():
    kinds = [kind for kind, _ in diff_lines(COMMENTED_OUT)]
    assert kinds == ["file", "file", "hunk", "removed", "added", "context", "context", "context"]
    whole = COMMENTED_OUT.replace("-1,3 +1,3", "-1,2 +1,2")
    assert diff_lines(whole)[-1][0] == "file"
    assert size_of(whole) == (1, 1)
    assert size_of("@@ ... @@\n-a\n+b\n+c\n") == (2, 1), "a header that counts nothing"


def test_diff_is_highlighted_by_language():
    rows = highlighted(diff_lines(COMMENTED_OUT))
    assert rows[5] == (
        "context",
        [("", " "), ("keyword", "for"), ("", " x "), ("keyword", "in"), ("", " "), ("string", '"a"'), ("", ", "),
         ("number", "1"), ("", ":  "), ("comment", "# go on")],
    )  # fmt: skip
    for diff in (COMMENTED_OUT, COMMENTED_OUT.replace(".py", ".nothing-known"), "+\n\n+\x1b[2J", "@@ -1 +1 @@\n\n"):
        rows = diff_lines(diff)
        assert ["".join(text for _, text in pieces) for _, pieces in highlighted(rows)] == [row for _, row in rows]
        assert diff_text(diff).plain == "\n".join(row for _, row in rows).rstrip()


def play(view, folder):
    """Send a whole night to a view as a session does, with progress messages of every phase."""
    events = read(folder / "ledger.jsonl")
    state = State()
    with view:
        for k, event in enumerate(events):
            state = fold(events[: k + 1])
            view.event(event, state)
            if isinstance(event, RunStarted):
                step = {"step": 3, "loss": 2.5, "progress": 0.4, "tokens_per_second": 1e5, "memory_gb": 2}
                where = {"seconds": 3.0, "seconds_left": 4.0, "trial": event.trial, "role": "screen"}
                view.progress("training", {**step, **where})
                view.progress("training", {"step": 1e400, "loss": float("nan"), "progress": "x", "seconds": None})
                view.progress("scoring", {"seconds": 1.0})
        view.progress("note", {"text": "the branch is checked out: it waits"})
        view.progress("nonsense", {"trial": object()})
    return state


def test_pipe_gets_one_line_per_trial(night):
    folder, _, kind = night
    file = io.StringIO()
    state = play(LiveView(Console(file=file, width=80)), folder)
    lines = file.getvalue().splitlines()
    trials = [line for line in lines if line.startswith("trial ")]
    assert len(trials) == len(state.finished)
    calibrations = [line for line in lines if line.startswith("calibration run")]
    assert len(calibrations) == len([run for run in state.baseline_runs if run.role == "calibrate"])
    assert not set(file.getvalue()) & {"\x1b", "\x07", "\u202e"}
    assert lines.count("note: the branch is checked out: it waits") == 1
    if kind == "all failed":
        assert all("0.0000" not in line for line in trials)


def test_terminal_gets_a_panel(night):
    folder, _, _ = night
    file = io.StringIO()
    console = Console(file=file, width=100, height=40, force_terminal=True)
    play(LiveView(console), folder)
    assert "overnight" in file.getvalue()
    assert "\x1b]0" not in file.getvalue()


def test_last_panel_of_a_session_shows_no_next_trial(tmp_path):
    events = read(write_night(tmp_path / "n", 3) / "ledger.jsonl")
    view = LiveView(Console(file=io.StringIO(), width=100, height=40, force_terminal=True))
    for k, event in enumerate(events):
        view.event(event, fold(events[: k + 1]))
    shown = drawn(view._draw())
    assert "3 of 3" in shown
    assert "asking for an idea" not in shown
    assert "time left" not in shown
    view.event(Resumed(time=events[-1].time + 1), fold(events))
    assert "getting ready" in drawn(view._draw())


@pytest.mark.parametrize("marked", [True, False])
def test_pipe_explains_the_star_of_values_once(marked, tmp_path):
    file = io.StringIO()
    play(LiveView(Console(file=file, width=200)), write_night(tmp_path / "n", 3, self_reported=marked))
    assert file.getvalue().count(text.LEGEND) == marked


def test_panel_counts_other_runs():
    activity = Activity("startup", 4, "screen")
    advance(activity, "training", {"trial": 4, "role": "screen", "running": 3})
    assert _now(activity).plain == "trial 4 · training · 2 runs beside it"
    advance(activity, "training", {"running": 1})
    assert _now(activity).plain == "trial 4 · training"


def test_broken_console_does_not_stop_the_session(night):
    class Gone(io.StringIO):
        tried = 0

        def write(self, text):
            self.tried += 1
            raise OSError("no longer there")

    folder, _, _ = night
    for terminal in (True, False):
        file = Gone()
        play(Observers(LiveView(Console(file=file, force_terminal=terminal, width=80))), folder)
        assert file.tried


def test_status_has_time_left_and_current_run(tmp_path):
    folder = write_night(tmp_path / "n", 20, ended=False)
    state = fold(read(folder / "ledger.jsonl"))
    data = status_json(night_of(state, {}, state.last_time + 1, running=True))
    assert data["state"] == "running"
    assert data["now"]["trial"] == 20
    assert data["seconds_left"] > 0
    idle = status_json(night_of(state, {}, time.time()))
    assert (idle["state"], idle["now"], idle["seconds_left"]) == ("interrupted", None, None)


def test_missing_test_value_is_reported(tmp_path):
    folder = write_night(tmp_path / "jun12", trials=12)
    events = read(folder / "ledger.jsonl")
    why = "test split could not be scored: a model process ended before it had answered"
    for at, event in enumerate(events):
        if isinstance(event, Measured) and event.measurement.role == "test":
            failed = replace(event.measurement, value=None, status="crash", reason=why)
            events[at] = Measured(time=event.time, trial=event.trial, measurement=failed)
    state = fold(events)
    assert state.kept
    assert all(record.status == "ok" for record in state.kept)
    seen = night_of(state, {})
    assert why in drawn(status_panel(seen), 200)
    assert why in drawn(log_table(seen), 300)
    assert status_json(seen)["test_problem"] == why
    assert [row["reason"] for row in log_json(seen.attempts) if row["decision"] == "keep"] == [why] * len(state.kept)


def test_status_compares_within_device_types(tmp_path):
    folder = write_night(tmp_path / "jun12", trials=20)
    events = read(folder / "ledger.jsonl")
    for at, event in enumerate(events):
        if isinstance(event, Measured):
            run, slow = event.measurement, at % 2
            value = None if run.value is None else run.value + 0.1 * slow
            run = replace(run, value=value, device_type="slow" if slow else "fast")
            events[at] = Measured(time=event.time, trial=event.trial, measurement=run)
    state = fold(events)
    said = status_json(night_of(state, {}))
    assert (said["noise_sd"], said["noise_dof"]) == (noise_of(state).sd, noise_of(state).dof)
    assert said["noise_sd"] < 0.01
    assert 0 < said["gain"] < 0.05
