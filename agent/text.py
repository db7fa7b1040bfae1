"""Text for people: sanitise foreign text, and format numbers, durations and small charts.

Text from a model, a diff or a log may hold terminal escapes (colours, cursor moves, titles, clipboard), characters that
reverse the writing direction, and text that looks like Rich markup or HTML. ``clean`` is the one sanitiser: it spells
such characters out and hides nothing.
"""

from __future__ import annotations

import math
import re
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

STAR = "*"  # marks a value that the edited code printed
LEGEND = "* self-reported: printed by the edited code, not measured independently"
MISSING = "–"
FIXED_SEED = "not measured: runs under different seeds have equal values, so the code fixes its seed"

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters except tab and line feed; C1 holds one-byte forms of ESC [
    "\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible or changes the direction
    "\ud800-\udfff"  # lone surrogates, which cannot be encoded
    "\U000e0000-\U000e0fff]"  # invisible tags
)
_QUOTED_WIDTH = 160  # characters of a quoted line of code

_LARGEST = 1e100  # of a value in a chart: sums and differences of such values do not overflow

_LOG_LINES = 8
_EVENT = re.compile(r'\s*\{"event"')  # a line of the harness
_FRAME = re.compile(r'\s+File ".*", line \d+')
_EXCEPTION = re.compile(r"\s*[\w.]*(Error|Exception|Interrupt|Exit)\b")
_FATAL = re.compile(r"out of memory|Killed|Segmentation fault|assert")


# sanitising


def clean(text: str) -> str:
    """Return ``text`` without anything that a terminal or a browser obeys.

    Colours are removed; other hidden characters are spelled out, such as ``\\x1b``. Line ends become line feeds.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _HIDDEN.sub(lambda found: _spelled(found.group()), text)


def line(text: str, width: int = 0) -> str:
    """Return ``text`` cleaned, on one line, cut to ``width`` characters; 0 does not cut."""
    text = " ".join(clean(text).split())
    return text if not width or len(text) <= width else text[: width - 1].rstrip() + "…"


def without_password(text: str) -> str:
    """Return ``text`` without user and password in its URLs."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def safe(text: str, style: str = "", width: int = 0) -> Text:
    """Return ``line`` for Rich, which does not read it as markup."""
    return Text(line(text, width), style=style, overflow="ellipsis")


def visible(text: str) -> str:
    """Quote a line of code: cut, with every character spelled out that is not visible, except spaces and tabs."""
    shown = "".join(
        char if char in " \t" or unicodedata.category(char)[0] not in "CZ" else _spelled(char)
        for char in text[:_QUOTED_WIDTH]
    )
    return shown + ("…" if len(text) > _QUOTED_WIDTH else "")


def clean_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same structure with every string cleaned."""
    return {clean(str(key)): _clean_value(value) for key, value in data.items()}


def _clean_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return clean_json(value)
    if isinstance(value, (list, tuple)):
        return [_clean_value(item) for item in value]
    return clean(value) if isinstance(value, str) else value


def _spelled(character: str) -> str:
    return ascii(character)[1:-1]


# the lines of a log that explain a failure


def decisive_lines(log: str) -> list[str]:
    """Return at most eight lines: the last frame of a traceback with its exception, or the last error and what follows.

    Without a sign of an error: the last four lines.
    """
    lines = _log_lines(clean(log))
    frames = [k for k, line in enumerate(lines) if _FRAME.match(line)]
    start = frames[-1] if frames else _error_at(lines)
    shown = lines[start:][:_LOG_LINES] if start is not None else lines[-_LOG_LINES // 2 :]
    return [line if len(line) <= 300 else line[:299] + "…" for line in shown]


def decisive_line(log: str) -> str:
    """Return the line of a log that explains a failure: the last exception, else another error, else the last line."""
    lines = _log_lines(log)
    at = _error_at(lines)
    return lines[-1 if at is None else at].strip()[:300] if lines else ""


def is_error(line: str) -> bool:
    """Whether a line names an exception."""
    return bool(_EXCEPTION.match(line))


def _log_lines(log: str) -> list[str]:
    return [line.rstrip() for line in log.splitlines() if line.strip() and not _EVENT.match(line)]


def _error_at(lines: Sequence[str]) -> int | None:
    """Index of the last exception, else of the last other sign of an error."""
    for sign in (_EXCEPTION.match, _FATAL.search):
        found = [k for k, line in enumerate(lines) if sign(line)]
        if found:
            return found[-1]
    return None


# numbers


def number(value: float | None, self_reported: bool = False) -> str:
    """Format a metric: four decimals, fewer for large numbers; a dash for a failure."""
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    text = f"{value:.4f}" if 1e-3 <= size < 1e5 or size == 0 else f"{value:.4g}"
    return text + (STAR if self_reported else "")


def gain(value: float | None, se: float | None = None) -> str:
    """Format a gain with one standard error: ``+0.0123 ± 0.0021``. An error of 0 was not measured and is left out."""
    if value is None or not math.isfinite(value):
        return MISSING
    size = max(abs(value), se or 0.0)
    form = ".4f" if size < 100 else ".1f" if size < 1e9 else ".4g"
    text = f"{value:+{form}}"
    return text if not se or not math.isfinite(se) else f"{text} ± {se:{form}}"


def duration(seconds: float | None, brief: bool = False) -> str:
    """Format seconds: ``8.4 s``, ``5 min 26 s``, ``7 h 02 min``; ``5 min`` if ``brief``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600 and brief:
        return f"{round(seconds / 60)} min"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(seconds: float | None) -> str:
    """``Nov 23 07:30``, in local time; ``seconds`` since the epoch."""
    return MISSING if seconds is None else time.strftime("%b %d %H:%M", time.localtime(seconds))


def better(goal: str) -> str:
    return "higher is better" if goal == "maximize" else "lower is better"


def count(number: float, noun: str, plural: str = "") -> str:
    """Format a number with its noun: ``1 trial``, ``2 trials``, ``0.5 hours``."""
    return f"{number if isinstance(number, int) else f'{number:g}'} {noun if number == 1 else plural or noun + 's'}"


# charts of block characters


def sparkline(values: Sequence[float], width: int, low: float | None = None, high: float | None = None) -> str:
    """Draw values as one row of at most ``width`` block characters; values that are not finite are left out."""
    means = _buckets(values, width, stretch=False)
    if not means:
        return ""
    bottom = min(means) if low is None else low
    span = ((max(means) if high is None else high) - bottom) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(7, max(0, int((m - bottom) / span * 7.999)))] for m in means)


def chart(values: Sequence[float], width: int, height: int) -> list[str]:
    """Draw values as ``height`` rows of ``width`` block characters, the top row first; [] without a finite value."""
    means = _buckets(values, width, stretch=True)
    if not means or height < 1:
        return []
    bottom, span = min(means), (max(means) - min(means)) or 1.0
    eighths = [1 + round((m - bottom) / span * (8 * height - 1)) for m in means]
    rows = range(height - 1, -1, -1)
    return ["".join(" ▁▂▃▄▅▆▇█"[min(8, max(0, e - 8 * row))] for e in eighths) for row in rows]


def _buckets(values: Sequence[float], width: int, stretch: bool) -> list[float]:
    """Means of ``width`` neighbourhoods of the finite values; fewer, if there are fewer values and no ``stretch``."""
    finite = [max(-_LARGEST, min(_LARGEST, v)) for v in values if math.isfinite(v)]
    n = len(finite)
    width = width if stretch else min(width, n)
    if not n or width < 1:
        return []
    parts = (finite[k * n // width : max(k * n // width + 1, (k + 1) * n // width)] for k in range(width))
    return [sum(part) / len(part) for part in parts]
