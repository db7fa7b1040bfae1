"""The report of nights of every kind, parsed into elements as in a browser."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from nights import KINDS as PLAIN_KINDS
from nights import write_night

from agent.errors import UsageError
from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.review.data.night import night_of
from agent.review.report.charts import source_strip
from agent.review.report.report import MOST_BYTES, write_report
from agent.review.report.small_charts import search_charts

pytest.importorskip("jinja2")

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>{{ 7*7 }}{% raw %}</title></pre>"
    "</script></style><!--\x1b]0;owned\x07\u202e[bold]$x^2$"
)
KINDS = {**PLAIN_KINDS, "hostile": {"hostile": HOSTILE, "trials": 25, "failures": 0.4, "unran": 0.2}}
ALLOWED = {
    "a", "b", "body", "button", "circle", "code", "dd", "details", "div", "dl", "dt", "figcaption", "figure",
    "footer", "form", "g", "h1", "h2", "h3", "head", "header", "html", "i", "input", "li", "line", "main", "meta",
    "nav", "option", "p", "path", "pre", "rect", "script", "section", "select", "small", "span", "style", "summary",
    "svg", "table", "tbody", "td", "text", "th", "thead", "title", "tr", "ul",
}  # fmt: skip
VOID = {"meta", "input", "link", "br", "img", "hr"}


class Page(HTMLParser):
    """The elements of a page, with a check that they nest."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.words, self.script = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag == "p" and "p" not in self.open:
            return
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.script.append(data)
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag, cls=""):
        return [a for t, a in self.elements if t == tag and (not cls or cls in (a.get("class") or "").split())]


@pytest.fixture(scope="module", params=KINDS, ids=lambda name: name.replace(" ", "-"))
def night(request, tmp_path_factory):
    folder = write_night(tmp_path_factory.mktemp("runs") / "jun12", **{"trials": 25, **KINDS[request.param]})
    html = write_report(folder).read_text(encoding="utf-8")
    return Page(html), fold(read(folder / "ledger.jsonl")), request.param, html


def test_report_needs_no_network(night):
    page, _, _, html = night
    assert html.startswith("<!doctype html>")
    for _, attributes in page.elements:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_model_text_never_becomes_markup(night):
    page, _, _, html = night
    assert {tag for tag, _ in page.elements} <= ALLOWED
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert len(page.all("script")) == 1
    assert "alert(" not in "".join(page.script)
    assert not set(html) & {"\x1b", "\x07", "\u202e"}


def test_hostile_text_is_shown_literally(tmp_path):
    folder = write_night(tmp_path / "n", **{"trials": 25, **KINDS["hostile"]})
    page = Page(write_report(folder).read_text())
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "\\u202e" in page.text


def test_content_security_policy_allows_own_script_only(night):
    import base64
    import hashlib

    page, _, _, _ = night
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256("".join(page.script).encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_every_attempt_is_in_table_and_chart(night):
    page, state, _, _ = night
    rows = [a["id"] for a in page.all("tr") if "id" in a]
    assert rows == [f"trial-{record.number}" for record in state.finished]
    links = {a["href"] for a in page.all("a") if a.get("href", "").startswith("#trial-")}
    assert links == {f"#trial-{record.number}" for record in state.finished}
    assert len(page.all("details", "edit")) == len(state.kept)


def test_failures_have_no_value(night):
    page, state, _, _ = night
    cells = [a for a in page.all("td") if "data-sort" in a]
    assert not re.search(r"\b(nan|None|inf)\b", page.text)
    for record, value in zip(state.finished, cells[1::5], strict=True):
        assert (value["data-sort"] == "") == (record.status != "ok")


def test_gain_comes_first(night):
    page, state, kind, _ = night
    first = page.text[: page.text.index("Sources and time")]
    if state.kept:
        assert "kept." in first
        assert re.search(r"(used by the search|by the edited code itself) \+0\.\d{4} ± 0\.\d{4}", first)
    if kind == "plain":
        assert re.search(r"Test not used by the search \+0\.\d{4} ± 0\.\d{4}", first)
    if kind == "nothing kept":
        assert "Nothing was kept" in first
    if kind == "all failed":
        assert "all 6 trials failed" in first
    if kind == "not begun":
        assert "not been measured yet" in first
    if kind == "at work":
        assert "Not ended" in first


def test_self_reported_values_are_marked(night):
    page, _, kind, _ = night
    assert ("self-reported" in page.text) == (kind == "self-reported")
    assert bool(re.search(r"\d\.\d{4}\*", page.text)) == (kind == "self-reported")


def test_long_hostile_night_fits_into_size_limit(tmp_path):
    folder = write_night(tmp_path / "long", trials=300, hostile=" and on it goes" * 300)
    assert write_report(folder).stat().st_size <= MOST_BYTES


def test_long_night_keeps_every_diff(tmp_path):
    folder = write_night(tmp_path / "long", trials=300)
    path = write_report(folder)
    page = Page(path.read_text())
    state = fold(read(folder / "ledger.jsonl"))
    assert path.stat().st_size < 1.5 * (1 << 20)
    assert len(page.all("pre", "diff")) == len([r for r in state.finished if r.proposal.diff])
    assert page.all("i", "is-number")


def test_progress_png_is_written_with_matplotlib(tmp_path):
    pytest.importorskip("matplotlib")
    for name, knobs in (("a", {"trials": 12}), ("b", {"trials": 0, "calibration": 0}), ("c", KINDS["hostile"])):
        folder = write_night(tmp_path / name, **knobs)
        write_report(folder)
        assert (folder / "progress.png").read_bytes().startswith(b"\x89PNG")


def test_report_without_matplotlib_warns(tmp_path):
    folder = write_night(tmp_path / "n", 4)
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path; from agent.review.report.report import write_report\n"
        f"write_report(Path({str(folder)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "matplotlib" in done.stderr
    assert (folder / "report.html").exists()
    assert not (folder / "progress.png").exists()


def test_report_without_valid_run_toml(tmp_path):
    folder = write_night(tmp_path / "n", 4)
    (folder / "run.toml").write_text("[run\n")
    assert "jun12" in write_report(folder).read_text()
    (folder / "run.toml").unlink()
    assert "jun12" in write_report(folder).read_text()
    with pytest.raises(UsageError):
        write_report(tmp_path / "nothing")


def test_report_reads_only_below_run_directory(tmp_path):
    secret = tmp_path / "curve.jsonl"
    secret.write_text(json.dumps({"step": 1, "progress": 0.5, "loss": 31337.0}) + "\n")
    folder = write_night(tmp_path / "runs" / "n", 25)
    ledger = folder / "ledger.jsonl"
    ledger.write_text(re.sub(r"trials/\d+/run-\d+", "../..", ledger.read_text()))
    assert "31337" not in Path(write_report(folder)).read_text().replace(",", "")


def test_very_long_run_shows_latest_attempts(tmp_path, monkeypatch):
    from agent.review.report import charts

    monkeypatch.setattr(charts, "MOST_MARKS", 10)
    folder = write_night(tmp_path / "long", trials=25)
    page = write_report(folder).read_text()
    assert "The latest 10 of 25" in page
    assert 'id="trial-25"' in page
    assert 'id="trial-15"' not in page
    assert "Before the latest 10 trials" in page
    early, marked = charts.apart(night_of(fold(read(folder / "ledger.jsonl")), {}).attempts)
    assert page.count('class="cloud"') >= 3
    assert [attempt.trial for attempt in marked][-10:] == list(range(16, 26))
    assert not any(attempt.decision == "keep" for attempt in early)
    assert len(early) + len(marked) == 25


def test_search_charts_show_step_and_share(tmp_path):
    write_night(tmp_path, trials=40)
    state = fold(read(tmp_path / "ledger.jsonl"))
    step, share = search_charts(night_of(state, {}))
    assert step[0].startswith("CMA-ES")
    assert 'class="band"' in step[1]
    assert share[0].startswith("Centaur")
    assert "State of the search" in write_report(tmp_path).read_text()


def test_no_search_chart_without_search_state(tmp_path):
    write_night(tmp_path, trials=1)
    assert search_charts(night_of(fold(read(tmp_path / "ledger.jsonl")), {})) == []
    assert "State of the search" not in write_report(tmp_path).read_text()


def test_source_strip_has_every_trial(tmp_path):
    write_night(tmp_path, trials=40)
    state = fold(read(tmp_path / "ledger.jsonl"))
    strip, sources = source_strip(night_of(state, {}))
    assert sorted(sources) == sorted({r.proposal.source for r in state.finished})
    assert strip.count("<rect") == 40
    assert "Source by trial" in write_report(tmp_path).read_text()


def test_stopped_trial_is_not_drawn_as_failure(tmp_path):
    night = write_night(tmp_path / "jun12", 30, failures=0.3, unran=0.0)
    ledger = night / "ledger.jsonl"
    whole = ledger.read_text()
    failures = write_report(night).read_text().count('class="fail"')
    ledger.write_text(re.sub('"status": "(crash|oom|diverged|timeout|invalid)"', '"status": "stopped"', whole))
    stopped = write_report(night).read_text()
    assert failures > 0
    assert stopped.count('class="stopped"') == failures
    assert 'class="fail"' not in stopped
