"""The report in a real Chromium: no errors in its console; clicking, typing, hovering and printing work."""

import json

import pytest
from browser import CHROMIUM, Browser
from nights import write_night

from agent.judge.noise import Noise
from agent.replay.outcomes import Finding, Result
from agent.replay.plan import Plan, stages_of_replay
from agent.replay.shown import page as page_of
from agent.replay.steps import Step
from agent.replay.view import shown_of
from agent.review.report.report import write_report

pytest.importorskip("jinja2")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")

ROWS = "[...document.querySelectorAll('#table tbody tr')]"
SHOWN = f"{ROWS}.filter(row => !row.hidden).map(row => +row.cells[0].textContent)"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"></span></td>"


@pytest.fixture(scope="module")
def browser():
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(write_night(tmp_path_factory.mktemp("runs") / "jun12", 60, failures=0.2))


@pytest.fixture
def page(browser, report):
    browser.open(report)
    browser.complaints.clear()
    return browser


def test_long_hostile_night_loads_without_errors(browser, tmp_path):
    browser.complaints.clear()
    browser.open(write_report(write_night(tmp_path / "jun12", 300, hostile=HOSTILE)))
    assert browser.complaints == []
    assert browser.run("document.title") == "jun12 · overnight"
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert len(browser.run(SHOWN)) == 300


def test_table_filters(page):
    page.run("const words = document.getElementById('words'); words.value = 'mlp'; "
             "words.dispatchEvent(new Event('input', {bubbles: true}))")  # fmt: skip
    found = page.run(SHOWN)
    assert 0 < len(found) < 60
    assert page.run("document.getElementById('shown').textContent") == f"{len(found)} of 60"
    page.run("words.value = ''; const outcome = document.getElementById('outcome'); outcome.value = 'keep'; "
             "outcome.dispatchEvent(new Event('input', {bubbles: true}))")  # fmt: skip
    assert len(page.run(SHOWN)) == page.run("document.querySelectorAll('details.edit').length")
    page.run("words.value = 'no such words'; words.dispatchEvent(new Event('input', {bubbles: true}))")
    assert page.run(SHOWN) == []
    assert page.run("document.getElementById('none').hidden") is False


def test_table_sorts_with_failures_last(page):
    gains = f"{ROWS}.map(row => row.cells[3].dataset.sort).map(gain => gain === '' ? null : +gain)"
    for reverse in (False, True):
        page.run("document.querySelectorAll('#table th button')[3].click()")
        found = page.run(gains)
        measured = [gain for gain in found if gain is not None]
        assert measured == sorted(measured, reverse=reverse)
        assert found[len(measured) :] == [None] * (60 - len(measured))


def test_points_have_tips(page):
    place = page.run(
        "(() => { const box = document.querySelector('.wide .progress .keep').getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    page.point(*place)
    tip = page.run("new Promise(done => setTimeout(() => done(document.getElementById('tip').textContent), 100))")
    assert tip.startswith("trial ")
    assert "keep" in tip
    page.point(1, 1)
    page.run("document.querySelector('.wide .progress .revert').focus()")
    assert "revert" in page.run("document.getElementById('tip').textContent")


MARKS = "[...document.querySelectorAll('.wide .progress a > *')]"
VISIBLE = f"{MARKS}.filter(mark => mark.style.display !== 'none').length"
TICKS = "[...document.querySelectorAll('.wide .progress g > .tick')].map(tick => tick.textContent)"


def test_dragging_zooms_the_progress_chart(page):
    everything = page.run(VISIBLE)
    assert everything == 60
    at = page.run(
        "(() => { const mark = document.querySelector('.wide .progress .keep').getBoundingClientRect();"
        " return [mark.x + mark.width / 2, mark.y + mark.height / 2]; })()"
    )
    page.drag((at[0] - 40, at[1] - 40), (at[0] + 40, at[1] + 40))
    zoomed = page.run(VISIBLE)
    assert 0 < zoomed < everything
    assert page.run("getComputedStyle(document.querySelector('.wide .progress .keep')).display") != "none"
    assert page.run(TICKS)
    assert page.run("location.hash") == ""
    page.run("document.querySelector('#zoom [data-by=\"2\"]').click()")
    assert zoomed <= page.run(VISIBLE)
    page.run("document.querySelector('#zoom [data-by=\"0\"]').click()")
    assert page.run(VISIBLE) == everything
    assert page.run(TICKS) == []
    assert page.complaints == []


def test_buttons_zoom(page):
    page.run("document.querySelector('#zoom [data-by=\"0.5\"]').click()")
    assert 0 < page.run(VISIBLE) < 60
    assert page.run("document.querySelector('.wide .progress').classList.contains('zoomed')")


def test_theme_follows_system_until_switched(page):
    background = "getComputedStyle(document.body).backgroundColor"
    page.prefer("dark")
    dark = page.run(background)
    page.prefer("light")
    light = page.run(background)
    assert dark != light
    page.run("document.getElementById('theme').click()")
    assert page.run(background) == dark
    page.run("document.getElementById('theme').click()")
    assert page.run(background) == light


def test_link_opens_its_attempt(page):
    page.run("location.hash = '#trial-3'; new Promise(done => setTimeout(done, 100))")
    assert page.run("document.querySelector('#trial-3 details').open") is True


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_page_never_scrolls_sideways(page, width):
    page.resize(width, 800)
    wide = page.run("document.documentElement.scrollWidth")
    heights = page.run(f"Math.max(...{ROWS}.map(row => row.offsetHeight))")
    page.resize(1280, 900)
    assert wide <= width
    assert heights < 200


def test_print_opens_every_kept_edit(page):
    page.run("for (const edit of document.querySelectorAll('details.edit')) edit.open = false;"
             "dispatchEvent(new Event('beforeprint'))")  # fmt: skip
    assert page.run("[...document.querySelectorAll('details.edit')].every(edit => edit.open)")
    assert page.complaints == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_replay_page_fits_the_width(browser, tmp_path, width):
    subject = "MATRIX_LR 0.04 → 0.05, WARMUP_RATIO 0.1 → 0.02, and 7 more"
    step = Step(1, "0123456789" * 4, subject, 7, 2.7529, 0.0365, 0.0163)
    finding = Finding(step, "not reproduced", "worse than before it by more than the noise", -0.0393, 0.01, 3, 2.7782)
    budget = "65536 tokens"
    plan = Plan("night", 3, "minimize", "val_bpb", budget, stages_of_replay((step,), "minimize", budget, ()))
    shown = shown_of(Result(plan, ((finding,) * 3,), Noise(0.01, 5)))
    (tmp_path / "replay.html").write_text(page_of(shown))
    browser.complaints.clear()
    browser.open(tmp_path / "replay.html")
    browser.resize(width, 800)
    wide = browser.run("document.documentElement.scrollWidth")
    heights = browser.run("[...document.querySelectorAll('tbody tr')].map(row => row.offsetHeight)")
    ends = browser.run("[...document.querySelectorAll('tbody td')].map(cell => cell.getBoundingClientRect().right)")
    browser.resize(1280, 900)
    assert wide <= width
    assert max(ends) <= width
    assert max(heights) < 200
    assert browser.complaints == []


def test_key_and_buttons_do_not_overlap_on_phone(page):
    page.resize(390, 800)
    bottom, top = page.run(
        "[document.getElementById('zoom').getBoundingClientRect().bottom,"
        " document.querySelector('#progress .key').getBoundingClientRect().top]"
    )
    page.resize(1280, 900)
    assert bottom <= top


def test_long_diff_folds_and_no_diff_scrolls(browser, tmp_path):
    night = write_night(tmp_path / "jun12", 60)
    ledger = night / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    kept = {line["trial"] for line in lines if line["event"] == "moved"}
    for line in lines:
        if line["event"] == "asked" and line["trial"] == min(kept):
            line["proposal"]["diff"] += "".join(f"+row_{k} = '{'x' * (900 if k == 0 else 50)}'\n" for k in range(200))
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    browser.open(write_report(night))
    assert browser.run("document.querySelectorAll('.edit .long').length") == 1
    browser.run("document.querySelector('.edit .long').open = true")
    scrolls = "[...document.querySelectorAll('.edit pre')].filter(p => p.scrollHeight > p.clientHeight + 1)"
    assert browser.run(f"{scrolls}.length") == 0
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_link_opens_the_environment(page):
    assert page.run("document.querySelector('#environment details').open") is False
    page.run("document.querySelector('nav a[href=\"#environment\"]').click()")
    assert page.run("document.querySelector('#environment details').open") is True
