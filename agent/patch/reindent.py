"""Indentation that is off by the same amount in a whole hunk, or written with tabs: how added lines have to move."""

from __future__ import annotations

from collections.abc import Sequence

Quoted = tuple[str, str, str]  # sign (' ' or '-'), the line as the hunk quotes it, the line as the file has it


def moved_along(pairs: Sequence[Quoted], added: list[str], unit: int) -> list[str] | None:
    """``added`` with the indentation of the file; None if the slip is not the same in all quoted lines.

    ``unit`` is the number of columns of one step of indentation in the file. Context may differ from signed lines by
    one column: a model forgets the marker of context, or takes the sign out of the indentation.
    """
    firm = [pair for pair in pairs if pair[2].strip()]
    tabs = any(real.startswith("\t") for _, _, real in firm)
    # A width of tabs that explains everything by itself is more likely than one that leaves an offset.
    widths = sorted(
        (4, 8, 2), key=lambda width: any(_column(real, width) != _column(quoted, width) for _, quoted, real in firm)
    )
    for width in widths:
        offsets: dict[str, set[int]] = {" ": set(), "-": set()}
        for sign, quoted, real in firm:
            offsets[sign].add(_column(real, width) - _column(quoted, width))
        if len(offsets[" "]) > 1 or len(offsets["-"]) > 1:
            continue
        columns = [_column(text, width) for text in added if text.strip()]
        by = _offset(next(iter(offsets[" "]), None), next(iter(offsets["-"]), None), columns, unit)
        moved = [_moved(text, by, width, tabs) for text in added] if by is not None else [None]
        whole = [text for text in moved if text is not None]
        if by is not None and len(whole) == len(added):
            return whole
    return None


def _offset(context: int | None, deleted: int | None, columns: list[int], unit: int) -> int | None:
    """Columns by which added lines move, from the offsets of context and of deleted lines."""
    if deleted is not None:
        agree = context is None or context == deleted or (context, deleted) in ((1, 0), (0, 1), (0, -1))
        return deleted if agree else None
    if context == 1 and unit > 1:  # either all is off by one, or context alone has lost its marker
        fits = [by for by in (0, 1) if all((column + by) % unit == 0 for column in columns)]
        return fits[0] if len(fits) == 1 else None
    return context


def _column(text: str, width: int) -> int:
    text = text.expandtabs(width)
    return len(text) - len(text.lstrip())


def _moved(text: str, by: int, width: int, tabs: bool) -> str | None:
    if not text.strip():
        return text
    column = _column(text, width) + by
    if column < 0 or (tabs and column % width):
        return None
    return ("\t" * (column // width) if tabs else " " * column) + text.lstrip()
