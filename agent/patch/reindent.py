"""Reindents added lines where a hunk is indented by a constant too much or too little, or with tabs."""

from __future__ import annotations

from collections.abc import Sequence

Quoted = tuple[str, str, str]  # sign (' ' or '-'), the line in the hunk, the line in the file


def reindented(quoted: Sequence[Quoted], added: list[str], unit: int) -> list[str] | None:
    """``added`` with the indentation of the file; None if the offset differs between quoted lines.

    Args:
        quoted: old lines of the hunk and of the file. Context may differ from deleted lines by one column: models
            forget the marker of context lines, or take the sign out of the indentation.
        added: lines to reindent.
        unit: columns of one level of indentation in the file.
    """
    firm = [pair for pair in quoted if pair[2].strip()]
    tabs = any(real.startswith("\t") for _, _, real in firm)
    # A width of tabs that leaves no offset is more likely than one that does.
    widths = sorted(
        (4, 8, 2), key=lambda width: any(_column(real, width) != _column(text, width) for _, text, real in firm)
    )
    for width in widths:
        context, deleted = (
            {_column(real, width) - _column(text, width) for sign, text, real in firm if sign == wanted}
            for wanted in (" ", "-")
        )
        if len(context) > 1 or len(deleted) > 1:
            continue
        columns = [_column(text, width) for text in added if text.strip()]
        by = _offset(next(iter(context), None), next(iter(deleted), None), columns, unit)
        if by is not None and all(column + by >= 0 and not (tabs and (column + by) % width) for column in columns):
            return [_moved(text, by, width, tabs) for text in added]
    return None


def _offset(context: int | None, deleted: int | None, columns: list[int], unit: int) -> int | None:
    """Columns by which added lines move, from the offsets of context and of deleted lines."""
    if deleted is not None:
        agree = context is None or context == deleted or (context, deleted) in ((1, 0), (0, 1), (0, -1))
        return deleted if agree else None
    if context == 1 and unit > 1:  # all lines are off by one, or only context lines lack their marker
        fits = [by for by in (0, 1) if all((column + by) % unit == 0 for column in columns)]
        return fits[0] if len(fits) == 1 else None
    return context


def _column(text: str, width: int) -> int:
    text = text.expandtabs(width)
    return len(text) - len(text.lstrip())


def _moved(text: str, by: int, width: int, tabs: bool) -> str:
    if not text.strip():
        return text
    column = _column(text, width) + by
    return ("\t" * (column // width) if tabs else " " * column) + text.lstrip()
