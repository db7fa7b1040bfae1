"""Sources of text: the installed Python, or files of the user or of a hub."""

from __future__ import annotations

import hashlib
import itertools
import json
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Modules of the standard library that no trainer imports. Validation and test text comes only from these files, and
# sandboxes hide them. Missing ones are skipped. distutils is not listed: setuptools installs a copy of it everywhere.
HELD_OUT = (
    "_pydecimal.py", "aifc.py", "antigravity.py", "binhex.py", "cgi.py", "cgitb.py", "chunk.py", "crypt.py", "curses",
    "dbm", "ensurepip", "ftplib.py", "idlelib", "imaplib.py", "imghdr.py", "lib2to3", "mailbox.py", "mailcap.py",
    "msilib", "nntplib.py", "pipes.py", "poplib.py", "pydoc_data", "rlcompleter.py", "sched.py", "smtpd.py",
    "smtplib.py", "sndhdr.py", "sqlite3", "sunau.py", "telnetlib.py", "this.py", "tkinter", "turtle.py", "turtledemo",
    "uu.py", "wave.py", "webbrowser.py", "wsgiref", "xdrlib.py", "xmlrpc", "zipapp.py",
)  # fmt: skip
# Sandboxes also hide what a trial could make its training data from before its clock starts: sources of the standard
# library, and the package that makes the tokenizer.
TRAINING_SOURCES = ("*.py", "tokenizers")
NO_TEXT = {"site-packages", "dist-packages", "__pycache__", "distutils", "encodings", "lib-dynload"}
TESTS = {"test", "tests", "idle_test"}
FORMATS = (".txt", ".jsonl", ".parquet")
FEWEST = 12  # documents, for three splits
LEAST = 200  # shortest file of the standard library, in characters
PIECE = 2000  # shortest document cut from a txt file, in characters


class DataError(ValueError):
    """The data cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Splits:
    """Documents by split.

    ``train`` yields the training text anew at each call, so that it never lies in memory as a whole. ``masked`` are
    names in the folder of the standard library that a sandbox must hide.
    """

    train: Callable[[], Iterator[str]]
    validation: list[str]
    test: list[str]
    masked: tuple[str, ...] = ()


def builtin(train_bytes: int = 0, root: Path | None = None) -> Splits:
    """Source and documentation of the running Python's standard library.

    Args:
        train_bytes: bound on the training text; 0 is all. Files are ordered by hash of the name, so that a part is a
            fair sample; the library's own tests come last.
        root: folder of the standard library.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    masked = tuple(name for name in HELD_OUT if (root / name).exists())
    held = {}  # digest to text
    for path in (path for name in masked for path in _sources(root / name, NO_TEXT | TESTS)):
        if text := _source(path):
            held[_digest(text)] = text
    top = [p for p in root.iterdir() if p.name not in NO_TEXT.union(HELD_OUT)]
    top = [p for p in top if not p.name.startswith(("_sysconfigdata", "config-"))]
    top.sort(key=lambda p: hashlib.sha256(p.name.encode()).digest())
    files = [path for place in top if place.name not in TESTS for path in _sources(place, NO_TEXT | TESTS)]
    tests = [path for place in top for path in _sources(place, NO_TEXT)]

    def train() -> Iterator[str]:
        size = 0
        for text in _unseen(filter(None, map(_source, dict.fromkeys([*files, *tests]))), held):
            yield text
            size += len(text.encode())
            if train_bytes and size >= train_bytes:
                return

    return Splits(
        train,
        [text for digest, text in held.items() if digest[0] % 2 == 0],
        [text for digest, text in held.items() if digest[0] % 2 == 1],
        masked,
    )


def _sources(place: Path, without: set[str]) -> list[Path]:
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [
        path
        for path in found
        if path.suffix in (".py", ".txt", ".rst")
        and not without.intersection(path.parts[len(place.parts) - 1 :])
        and path.is_file()
    ]


def _source(path: Path) -> str:
    """The text of a file; "" if it is short or not UTF-8 (some tests of the library are invalid on purpose)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return ""
    return text if len(text) >= LEAST else ""


def from_files(path: Path, validation_bytes: int, test_bytes: int) -> Splits:
    """Text of txt, jsonl (key ``text``) or parquet (column ``text``) files, split by a hash of each document.

    The documents with the lowest hashes are validation, the next ones test. Duplicates are removed. ``path`` is a file
    or a folder. Each of the two splits has at most a tenth of all documents.

    Raises:
        DataError: there is no readable text, or there are too few documents for three splits.
    """
    files = text_files(path)
    sizes: dict[bytes, int] = {}
    for text in _texts(files):
        sizes.setdefault(_digest(text), len(text.encode()))
    if not sizes:
        raise DataError(f"{path} holds no text.")
    if len(sizes) < FEWEST:
        raise DataError(
            f"{path} holds {len(sizes)} different document{'s' if len(sizes) > 1 else ''}; training, validation and "
            f"test need at least {FEWEST} in all. (A txt file is cut at empty lines, at {PIECE} characters or more.)"
        )
    ranked, most = iter(sorted(sizes)), max(1, len(sizes) // 10)
    validation, test = (_take(ranked, sizes, wanted, most) for wanted in (validation_bytes, test_bytes))
    held: dict[bytes, str] = {}
    for text in _texts(files):
        if (digest := _digest(text)) in validation or digest in test:
            held.setdefault(digest, text)
    return Splits(
        lambda: _unseen(_texts(files), held),
        [text for digest, text in held.items() if digest in validation],
        [text for digest, text in held.items() if digest in test],
    )


def _unseen(texts: Iterable[str], apart: Collection[bytes]) -> Iterator[str]:
    """The texts, each once, without those whose digest is in ``apart``."""
    seen = set(apart)
    for text in texts:
        if (digest := _digest(text)) not in seen:
            seen.add(digest)
            yield text


def _take(ranked: Iterator[bytes], sizes: dict[bytes, int], wanted: int, most: int) -> set[bytes]:
    taken, size = set(), 0
    for digest in itertools.islice(ranked, most):
        taken.add(digest)
        size += sizes[digest]
        if size >= wanted:
            break
    return taken


def text_files(path: Path) -> list[Path]:
    """The files of known formats at ``path``, a file or folder. Raises DataError if there is none."""
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    known = [f for f in files if f.suffix in FORMATS]
    if not known:
        raise DataError(
            f"{path} {'holds' if path.is_dir() else 'is'} no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file."
        )
    return known


def _texts(files: list[Path]) -> Iterator[str]:
    for file in files:
        try:
            yield from (text for text in _READERS[file.suffix](file) if text.strip())
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 text ({error.reason}).") from None


def _read_jsonl(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError, IndexError):
                text = None
            if not isinstance(text, str):
                raise DataError(f'{path}, line {number}: not a JSON object with a string under the key "text".')
            yield text.encode("utf-8", "replace").decode()  # JSON can contain a lone surrogate


def _read_parquet(path: Path) -> Iterator[str]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path}: reading parquet needs pyarrow. Install it: pip install pyarrow") from None
    try:
        with parquet.ParquetFile(path) as table:
            if "text" not in table.schema_arrow.names:
                raise DataError(f'{path} has no column "text"; it has: {", ".join(table.schema_arrow.names)}.')
            for batch in table.iter_batches(batch_size=1024, columns=["text"]):
                for text in batch.column(0).to_pylist():
                    if isinstance(text, str):
                        yield text
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable parquet file: {error}") from None


def _read_txt(path: Path) -> Iterator[str]:
    """Cut into documents of at least ``PIECE`` characters at empty lines, or at a line's end if they are too long."""
    with path.open(encoding="utf-8") as lines:
        held: list[str] = []
        size, whole = 0, True
        while line := lines.readline(PIECE):
            empty = whole and not line.strip()
            whole = line.endswith("\n")
            held.append(line)
            size += len(line)
            if size >= PIECE and (empty or size >= 4 * PIECE):
                yield _document(held)
                held, size = [], 0
        if size:
            yield _document(held)


def _document(lines: list[str]) -> str:
    """Without trailing empty lines: equal documents are equal at every place of a file."""
    return "".join(lines).rstrip("\n") + "\n"


_READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
