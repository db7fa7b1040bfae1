"""Where text comes from: the installed Python, files of the user, or a data set on a hub."""

from __future__ import annotations

import hashlib
import json
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Standard library modules that no trainer imports: validation and test text comes from here alone, and sandboxes that
# protect hide these files. What an installation lacks is passed over.
HELD_OUT = (
    "_pydecimal.py", "aifc.py", "antigravity.py", "binhex.py", "cgi.py", "cgitb.py", "chunk.py", "crypt.py", "curses",
    "dbm", "distutils", "ensurepip", "ftplib.py", "idlelib", "imaplib.py", "imghdr.py", "lib2to3", "mailbox.py", "mailcap.py",
    "msilib", "nntplib.py", "pipes.py", "poplib.py", "pydoc_data", "rlcompleter.py", "sched.py", "smtpd.py", "smtplib.py",
    "sndhdr.py", "sqlite3", "sunau.py", "telnetlib.py", "this.py", "tkinter", "turtle.py", "turtledemo", "uu.py",
    "wave.py", "webbrowser.py", "wsgiref", "xdrlib.py", "xmlrpc", "zipapp.py",
)  # fmt: skip
_NEVER = {"site-packages", "dist-packages", "test", "tests", "__pycache__", "config-3.11-x86_64-linux-gnu"}


class DataError(ValueError):
    """The data cannot be used; the message says why and what would do."""


@dataclass(frozen=True)
class Splits:
    """Documents by split. ``masked`` names what a sandbox must hide, relative to the standard library's folder."""

    train: list[str]
    validation: list[str]
    test: list[str]
    masked: tuple[str, ...] = ()


def builtin(train_bytes: int | None = None) -> Splits:
    """Source and documentation of the running Python's standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    held = [name for name in HELD_OUT if (root / name).exists()]
    groups: dict[str, list[str]] = {"validation": [], "test": []}
    # alternate by size, so that both splits have about the same amount of text on every installation
    sized = sorted(held, key=lambda name: (-sum(len(t) for t in _documents(root / name)), name))
    for k, name in enumerate(sized):
        groups["validation" if k % 4 in (0, 3) else "test"] += _documents(root / name)
    apart = {_digest(t) for texts in groups.values() for t in texts}
    train, size = [], 0
    for path in sorted(root.iterdir(), key=lambda p: hashlib.sha256(p.name.encode()).digest()):
        if path.name in HELD_OUT or path.name in _NEVER or path.name.startswith(("_sysconfigdata", "config-")):
            continue
        for text in _documents(path):
            if _digest(text) not in apart and (train_bytes is None or size < train_bytes):
                train.append(text)
                size += len(text)
    return Splits(train, groups["validation"], groups["test"], tuple(held))


def _documents(place: Path) -> list[str]:
    paths = [place] if place.is_file() else sorted(p for p in place.rglob("*") if not _NEVER & set(p.parts[len(place.parts) :]))
    found = []
    for path in paths:
        if path.suffix in (".py", ".txt", ".rst") and path.is_file():
            try:
                text = path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            if len(text) > 200:
                found.append(text)
    return found


def from_files(path: Path, held_out_share: float = 0.1) -> Splits:
    """txt, jsonl (key ``text``), parquet (column ``text``), or a folder of them; split by a hash of each document.

    Raises:
        DataError: nothing there, nothing readable, or too few documents for three splits.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    known = [f for f in files if f.suffix in (".txt", ".md", ".py", ".jsonl", ".parquet")]
    if not known:
        raise DataError(f"{path} holds no txt, jsonl or parquet file.")
    documents = list({_digest(t): t for f in known for t in _read(f) if t.strip()}.values())
    if len(documents) < 10:
        raise DataError(
            f"{path} holds {len(documents)} documents; training, validation and test need at least 10 in all. "
            f"In a txt file, an empty line ends a document."
        )
    documents.sort(key=_digest)
    count = max(1, int(len(documents) * held_out_share))
    return Splits(documents[2 * count :], documents[:count], documents[count : 2 * count])


def _read(path: Path) -> Iterator[str]:
    try:
        if path.suffix == ".jsonl":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                if line.strip():
                    try:
                        yield str(json.loads(line)["text"])
                    except (ValueError, KeyError, TypeError):
                        raise DataError(f"{path}, line {number}: not a JSON object with a key \"text\".") from None
        elif path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            table = parquet.ParquetFile(path)
            if "text" not in table.schema_arrow.names:
                raise DataError(f"{path} has no column \"text\": {', '.join(table.schema_arrow.names)}.")
            for batch in table.iter_batches(columns=["text"]):
                yield from (str(text) for text in batch.column(0).to_pylist() if text)
        else:
            text = path.read_text(encoding="utf-8")
            yield from _paragraphs(text) if path.suffix == ".txt" else [text]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}).") from None


def _paragraphs(text: str, least: int = 2000) -> Iterator[str]:
    """Cut at empty lines, into documents of at least ``least`` characters."""
    held = ""
    for part in text.split("\n\n"):
        held += part + "\n\n"
        if len(held) >= least:
            yield held
            held = ""
    if held.strip():
        yield held


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
