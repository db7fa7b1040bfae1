"""Words and numbers for people: made harmless first, then made short.

Whatever came from a model, a diff or a log may hold sequences that a terminal obeys (colours, cursor moves, titles,
clipboard), characters that turn the writing direction, and text that looks like Rich markup or HTML. ``clean`` makes
such text inert without hiding anything: what cannot be shown is spelled out.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

from rich.text import Text

STAR = "*"  # behind every value that was printed by the code under test
LEGEND = "* self-reported: printed by the code that was edited, measured by nobody else"
MISSING = "–"

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed; C1 holds one-byte forms of ESC [
    "\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, or turns the direction
    "\ud800-\udfff"  # lone surrogates cannot be encoded at all
    "\U000e0000-\U000e0fff]"  # invisible tags
)


def clean(text: str) -> str:
    """Text without anything that a terminal or a browser obeys. Colours go; other hidden characters are spelled out."""
    if text.isascii() and text.isprintable():
        return text
    text = _COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _HIDDEN.sub(lambda found: _spelled(found.group()), text)


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def line(text: str, width: int = 0) -> str:
    """``clean``, on one line, cut to ``width`` characters (0: not cut)."""
    text = " ".join(clean(text).split())
    return text if not width or len(text) <= width else text[: width - 1].rstrip() + "…"


def safe(text: str, style: str = "", width: int = 0) -> Text:
    """One line of foreign text for Rich: cleaned, and never read as markup."""
    return Text(line(text, width), style=style, overflow="ellipsis")


def number(value: float | None, self_reported: bool = False) -> str:
    """A metric: four decimals, fewer for large numbers; a dash for a failure, which has no value."""
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    text = f"{value:.4f}" if 1e-3 <= size < 1e5 or size == 0 else f"{value:.4g}"
    return text + (STAR if self_reported else "")


def gain(value: float | None, se: float | None = None) -> str:
    """``+0.0123 ± 0.0021``; positive is better, whatever the goal."""
    if value is None or not math.isfinite(value):
        return MISSING
    decimals = 4 if max(abs(value), se or 0.0) < 100 else 1
    text = f"{value:+.{decimals}f}"
    return text if se is None or not math.isfinite(se) else f"{text} ± {se:.{decimals}f}"


def duration(seconds: float | None, brief: bool = False) -> str:
    """``8.4 s``, ``5 min 26 s``, ``7 h 02 min``; in brief ``5 min``."""
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


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 trial``, ``2 trials``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def sparkline(values: Sequence[float], width: int, low: float | None = None, high: float | None = None) -> str:
    """A row of block characters, one per bucket of neighbouring values. Values that are not finite are left out."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite or width < 1:
        return ""
    width = min(width, len(finite))
    buckets = [finite[k * len(finite) // width : (k + 1) * len(finite) // width] for k in range(width)]
    means = [sum(b) / len(b) for b in buckets]
    bottom = min(means) if low is None else low
    span = ((max(means) if high is None else high) - bottom) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(7, max(0, int((m - bottom) / span * 7.999)))] for m in means)


def chart(values: Sequence[float], width: int, height: int) -> list[str]:
    """``height`` lines of ``width`` block characters, the highest values in the first; [] without a finite value."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite or width < 1 or height < 1:
        return []
    n = len(finite)
    buckets = [finite[k * n // width : max(k * n // width + 1, (k + 1) * n // width)] for k in range(width)]
    means = [sum(b) / len(b) for b in buckets]
    bottom, span = min(means), (max(means) - min(means)) or 1.0
    eighths = [1 + round((m - bottom) / span * (8 * height - 1)) for m in means]
    rows = range(height - 1, -1, -1)
    return ["".join(" ▁▂▃▄▅▆▇█"[min(8, max(0, e - 8 * row))] for e in eighths) for row in rows]


def clean_json(value: object) -> object:
    """The same structure with every string cleaned, so that it can be printed to a terminal as JSON."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): clean_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_json(item) for item in value]
    return value


def plain(text: str) -> str:
    """Text of a model, made harmless for terminals: no control characters, no changes of writing direction."""
    text = re.sub(r"\x1b\][^\x07\x1b]*(\x07|\x1b\\)?|\x1b\[[0-?]*[ -/]*[@-~]|\x1b.", "", text)
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]", "", text)


def decisive_line(log: str) -> str:
    """The line of a log that says why: the exception at the end of a traceback, else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith('{"event"')]
    return ([line for line in lines if is_error(line)] or lines or [""])[-1][:300]


def is_error(line: str) -> bool:
    return bool(re.match(r"[\w.]*(Error|Exception|Interrupt|Exit)\b", line))


_WIDTH = 160  # characters of a line that a message quotes


# --- messages -------------------------------------------------------------------------------------------------------


def visible(text: str) -> str:
    """``text`` on one line, cut, with every character that could act on a terminal or hide as an escape."""
    harmless = (char in " \t" or unicodedata.category(char)[0] not in "CZ" for char in text[:_WIDTH])
    shown = "".join(char if fine else ascii(char)[1:-1] for char, fine in zip(text, harmless, strict=False))
    return shown + ("…" if len(text) > _WIDTH else "")


MOST = 8  # lines

_EVENT = re.compile(r'^\s*\{"event"')

_ERROR = re.compile(r"^[\w.]*(Error|Exception|Interrupt|Exit|Warning)\b|out of memory|Killed|Segmentation fault|assert")


def decisive_lines(log: str) -> list[str]:
    """The last traceback from its last frame on; without one, the lines around the last that look like an error."""
    lines = [line.rstrip() for line in clean(log).split("\n") if line.strip() and not _EVENT.match(line)]
    frames = [k for k, line in enumerate(lines) if re.match(r'\s+File ".*", line \d+', line)]
    if frames:
        return _cut(lines[frames[-1] :])
    errors = [k for k, line in enumerate(lines) if _ERROR.search(line)]
    return _cut(lines[errors[-1] :]) if errors else _cut(lines[-MOST // 2 :])


def _cut(lines: list[str]) -> list[str]:
    return [line if len(line) <= 300 else line[:299] + "…" for line in lines[:MOST]]
