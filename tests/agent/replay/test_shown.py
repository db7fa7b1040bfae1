"""The tables of a replay, on a terminal and as a page, with texts that a copied run may hold."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from agent.replay.shown import Row, Shown, Table, page, terminal

HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J[red]x\n{{ 7 * 7 }}"
ROWS = (Row(("1", HOSTILE), "holds", HOSTILE, HOSTILE),)
SHOWN = Shown(HOSTILE, (HOSTILE,), HOSTILE, (Table(("trial", "gain"), ROWS, HOSTILE),), notes=(HOSTILE,))


def test_page_holds_no_markup_of_a_run() -> None:
    html = page(SHOWN)
    assert "<img" not in html
    assert "\x1b" not in html
    assert "49" not in html.partition("<main>")[2].partition("</main>")[0]


def test_terminal_shows_no_control_characters_of_a_run() -> None:
    output = StringIO()
    Console(file=output, width=120).print(terminal(SHOWN))
    assert "\x1b" not in output.getvalue()
    assert "[red]x" in output.getvalue()
