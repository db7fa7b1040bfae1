import io
import json

import pytest
from rich.console import Console

from agent import text


def shown(renderable):
    file = io.StringIO()
    Console(file=file, force_terminal=True, width=200, color_system="truecolor", highlight=False).print(renderable)
    return file.getvalue()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07title", "\\x1b]0;owned\\x07title"),
        ("\x1b]52;c;cm0gLXJm\x1b\\", "\\x1b]52;c;cm0gLXJm\\x1b\\"),
        ("a\x1b[2J\x1b[1;1Hb", "a\\x1b[2J\\x1b[1;1Hb"),
        ("\x9b2J one byte", "\\x9b2J one byte"),
        ("user\u202eresu", "user\\u202eresu"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("lone \ud800", "lone \\ud800"),
        ("bell\x07 back\x08", "bell\\x07 back\\x08"),
        ("dos\r\nprogress 1%\rprogress 2%", "dos\nprogress 1%\nprogress 2%"),
        ("größer, 改善 ±", "größer, 改善 ±"),
    ],
)
def test_clean_removes_terminal_sequences(given, expected):
    assert text.clean(given) == expected
    assert text.clean(expected) == expected


def test_clean_spells_out_control_characters():
    for code in [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2060, 0x2070)]:
        if chr(code) not in "\t\n\r":
            assert chr(code) not in text.clean(f"a{chr(code)}b")


def test_safe_keeps_markup_literally():
    out = shown(text.safe("[bold red]x[/] :smile: [link=http://evil]y[/link] [/]"))
    assert "[bold red]x[/] :smile: [link=http://evil]y[/link] [/]" in out
    assert "\x1b" not in out


def test_line_is_one_line_and_cut():
    assert text.line("a\n b\t c") == "a b c"
    assert text.line("abcdefgh", 5) == "abcd…"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.99791, "0.9979"), (None, "–"), (0.0, "0.0000"), (1.2345678e7, "1.235e+07"), (1e-6, "1e-06")],
)
def test_number_is_short_and_dash_for_failure(value, expected):
    assert text.number(value) == expected


def test_self_reported_number_has_a_star():
    assert text.number(0.5, self_reported=True) == "0.5000*"
    assert text.number(None, self_reported=True) == "–"


def test_gain_has_sign_and_standard_error():
    assert text.gain(0.01234, 0.0021) == "+0.0123 ± 0.0021"
    assert text.gain(-0.01) == "-0.0100"
    assert text.gain(None, 0.1) == "–"
    assert text.gain(0.0, 0.0) == "+0.0000"  # an error of 0 was not measured


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(8.41, "8.4 s"), (42, "42 s"), (59.6, "1 min 00 s"), (326, "5 min 26 s"), (25320, "7 h 02 min"), (None, "–")],
)
def test_duration(seconds, expected):
    assert text.duration(seconds) == expected


def test_sparkline_spans_its_values():
    assert text.sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert text.sparkline([3.0] * 20, 5) == "▁▁▁▁▁"
    assert text.sparkline([float("nan"), 1.0, float("inf")], 9) == "▁"
    assert text.sparkline([], 9) == ""


def test_clean_json_can_be_printed():
    data = text.clean_json({"a\x1b": ["\ud800", 1, None, {"b": "\u202e"}]})
    assert json.dumps(data, ensure_ascii=False).encode() == b'{"a\\\\x1b": ["\\\\ud800", 1, null, {"b": "\\\\u202e"}]}'


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("Traceback\n  f()\nValueError: no\nKilled\n", "ValueError: no"),
        ("step 1\nCUDA out of memory\nstep 2\n", "CUDA out of memory"),
        ('step 1\nbye\n{"event": "step"}\n', "bye"),
        ("", ""),
    ],
)
def test_decisive_line_prefers_exceptions(log, line):
    assert text.decisive_line(log) == line
    assert line in [*text.decisive_lines(log), ""]
