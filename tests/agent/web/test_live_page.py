"""The live page in a real Chromium: it follows the ledger, and keeps what the reader typed and opened."""

from __future__ import annotations

import json
import time
from pathlib import Path

import budgets
import pytest
from browser import CHROMIUM, Browser
from live_page import Growing, serving
from nights import write_night
from ports import free_port
from sessions import state_of

from agent.rundir.directory import RunDirectory

pytest.importorskip("starlette")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
ROWS = "document.querySelectorAll('#table tbody tr').length"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def until(browser: Browser, script: str, what: str) -> None:
    end = time.monotonic() + budgets.ANSWER_SECONDS
    while not browser.run(script):
        assert time.monotonic() < end, f"{what}: not within {budgets.ANSWER_SECONDS} s"
        time.sleep(0.2)


def test_page_follows_a_growing_run(tmp_path: Path) -> None:
    night = Growing(tmp_path, "jun12", 40, hostile=HOSTILE)
    night.grow(60)
    with serving(night.path.parent) as address, Browser(390, 844) as browser:
        browser.open(address + "run/jun12")
        before = browser.run(ROWS)
        assert before > 2
        browser.run("document.querySelector('#words').value = 'mlp'; document.querySelector('#words').focus()")
        browser.run("document.querySelector('#filters').dispatchEvent(new Event('input', {bubbles: true}))")
        night.grow(80)
        until(browser, f"{ROWS} > {before}", "more rows")
        assert browser.run("document.querySelector('#words').value") == "mlp"
        assert browser.run("document.activeElement.id") == "words"
        assert browser.run("document.querySelectorAll('#table tbody tr[hidden]').length") > 0
        until(browser, "document.querySelector('#live h2') !== null", "the live part")
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        browser.open(address)
        assert browser.run("document.querySelectorAll('main a').length") == 1
        assert browser.run("document.title") == "sessions · overnight"
        assert browser.complaints == []


def test_page_continues_after_a_restart_of_the_server(tmp_path: Path) -> None:
    night = Growing(tmp_path, "jun12")
    night.grow(40)
    with Browser() as browser:
        port = str(free_port())
        with serving(night.path.parent, "--port", port) as address:
            browser.open(address + "run/jun12")
            before = browser.run(ROWS)
        until(browser, "!document.querySelector('#connection').hidden", "the notice")
        night.grow(40)
        with serving(night.path.parent, "--port", port):
            until(browser, f"{ROWS} > {before} && document.querySelector('#connection').hidden", "the new rows")


def test_running_trial_draws_its_loss_beside_the_best(tmp_path: Path) -> None:
    path = write_night(tmp_path / "jun12", 30, ended=False)
    directory = RunDirectory(tmp_path, "jun12")
    subject = state_of(directory).records[-1].proposal.subject
    losses = [6.0 - 0.02 * k for k in range(150)]
    beat = {"time": 4e9, "phase": "training", "trial": 30, "loss": losses[-1], "losses": losses, "progress": 0.6}
    beat["shares"] = [0.6 * (k + 1) / len(losses) for k in range(len(losses))]
    with directory.lock(), serving(path.parent) as address, Browser(390, 844) as browser:
        directory.progress.write_text(json.dumps(beat))
        browser.prefer("dark")
        browser.open(address + "run/jun12")
        until(browser, "document.querySelectorAll('#live .curve .loss').length == 2", "both curves")
        reach = "document.querySelector('#live .curve .{}').getBBox().width"
        own, best = (browser.run(reach.format(name)) for name in ("own", "parent"))
        assert subject in browser.run("document.querySelector('#live').textContent")
        assert own < 0.6 * best, "the curve of the run under way ends where its run is"
        assert browser.run("getComputedStyle(document.documentElement).colorScheme") == "dark"
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        browser.open(address)
        assert browser.run("document.querySelector('.scroll').scrollWidth <= innerWidth"), "the list fits a phone"
        assert browser.complaints == []
