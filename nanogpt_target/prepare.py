"""Prepares data once: text to tokenizer to packed rows. Also shows a trial the parts that it may see.

A prepared folder is named by a hash of its settings and its text, and is checked by hash at every use. It holds the
training shards, the validation and test rows, the tokenizer, the bytes of each token, and ``manifest.json``.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt_target import corpus, hub, tokenizer
from nanogpt_target.corpus import DataError, Splits
from nanogpt_target.packing import pack, sample, write_shards

VERSION = 2
CHECKED_BYTES = 1 << 24  # files up to this size are hashed at every use, larger ones on request
FEWEST_ROWS = {"train": 64, "validation": 4, "test": 4}
DEFAULTS: Mapping[str, Any] = {
    "source": "builtin",
    "files": [],
    "vocab_size": 1024,
    "sequence_length": 128,
    "validation_tokens": 60_000,
    "test_tokens": 60_000,
    "train_bytes": 0,  # of the built-in corpus; 0 is all
    "download_gb": 2.0,  # of a hub data set without named files
}
_KINDS = {str: "a text", list: "a list of names", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Prepared:
    """A prepared data set on the host. Values can be compared only between equal hashes."""

    directory: Path
    hash: str
    vocab_size: int
    sequence_length: int
    tokens: Mapping[str, int]  # by split
    masked: tuple[str, ...]  # what sandboxes hide: names in the folders of the standard library and of packages


def prepare(
    spec: Mapping[str, Any], cache: Path, progress: Callable[[str], None] | None = None, verify: bool = False
) -> Prepared:
    """Prepare the data that ``spec`` describes, or take them from ``cache``.

    Args:
        spec: keys of ``DEFAULTS``.
        cache: folder of prepared data sets.
        progress: called with messages for people.
        verify: also check large files by hash.

    Raises:
        DataError: an unknown key, no usable text, or too little text.
    """
    say = progress or (lambda _text: None)
    spec = _check(spec)
    with _locked(cache):
        key = hashlib.sha256(json.dumps([VERSION, spec, _origin(spec)], sort_keys=True).encode()).hexdigest()[:16]
        place = cache / key
        if not (place / "manifest.json").exists():
            say(
                f"preparing data ({spec['source']}): vocabulary {spec['vocab_size']}, rows of {spec['sequence_length']}"
            )
            _make(spec, _read(spec, cache, say), place)
        return _load(place, full=verify)


def unpack(key: str, digest: str, cache: Path, fetch: Callable[[], Mapping[str, np.ndarray]]) -> Prepared:
    """The prepared data with hash ``digest`` in the folder ``key`` of ``cache``.

    If it is missing, ``fetch`` returns its files by name, uint8 arrays.

    Raises:
        DataError: the folder holds other or damaged data.
    """
    with _locked(cache):
        place = cache / key
        if fresh := not (place / "manifest.json").exists():
            with _made(place) as scratch:
                for name, data in fetch().items():
                    data.tofile(scratch / name)
        prepared = _load(place, full=fresh)
        if prepared.hash != digest:
            raise _damaged(place, "the hash differs from that of the session")
        return prepared


def stage_before(prepared: Prepared, data: Path) -> None:
    """Write what a trial may read before its clock starts: sizes, no text."""
    sizes = {"vocab_size": prepared.vocab_size, "sequence_length": prepared.sequence_length}
    (data / "meta.json").write_text(json.dumps(sizes))


def release(prepared: Prepared, data: Path) -> None:
    """Put the training shards into a trial's data directory. The manifest comes last: the harness waits for it."""
    manifest = json.loads((prepared.directory / "manifest.json").read_text())
    for name in manifest["train_shards"]:
        try:
            os.link(prepared.directory / name, data / name)
        except OSError:  # a symbolic link would lead out of the sandbox
            shutil.copyfile(prepared.directory / name, data / name)
    shown = {"train_shards": manifest["train_shards"], "sequence_length": prepared.sequence_length}
    scratch = data / "manifest.new"
    scratch.write_text(json.dumps(shown))
    scratch.rename(data / "manifest.json")


def _check(spec: Mapping[str, Any]) -> dict[str, Any]:
    full = {**DEFAULTS, **spec}
    for key, value in full.items():
        if key not in DEFAULTS:
            close = difflib.get_close_matches(key, DEFAULTS, n=1)
            raise DataError(f"unknown key {key!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        kind = type(DEFAULTS[key])
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            raise DataError(f"{key} must be {_KINDS[kind]}, not {value!r}.")
    if not all(isinstance(name, str) for name in full["files"]):
        raise DataError(f"files must be a list of names, not {full['files']!r}.")
    if not 300 <= full["vocab_size"] <= 65_536:
        raise DataError(f"vocab_size = {full['vocab_size']} must be between 300 and 65536.")
    if full["sequence_length"] < 8 or full["validation_tokens"] < 1 or full["test_tokens"] < 1:
        raise DataError("sequence_length must be at least 8, validation_tokens and test_tokens at least 1.")
    return full


def _origin(spec: Mapping[str, Any]) -> str:
    """The part of the key for the text: Python's version, the data set, or sizes and times of the files."""
    source: str = spec["source"]
    if source == "builtin":
        return sys.version
    if source.startswith("hub:"):
        return source
    files = corpus.text_files(Path(source).expanduser())
    return json.dumps([[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files])


def _read(spec: Mapping[str, Any], cache: Path, say: Callable[[str], None]) -> Splits:
    source = spec["source"]
    if source == "builtin":
        return corpus.builtin(spec["train_bytes"])
    # an upper bound in bytes, at 8 bytes a token; packing takes what it needs
    held = [8 * spec[f"{split}_tokens"] for split in ("validation", "test")]
    if not source.startswith("hub:"):
        return corpus.from_files(Path(source).expanduser(), *held)
    name = source.removeprefix("hub:")
    wanted = hashlib.sha256(json.dumps([spec["files"], spec["download_gb"]]).encode()).hexdigest()[:8]
    folder = cache / "hub" / name.replace("/", "--") / wanted
    hub.download(name, spec["files"], folder, say, most_bytes=spec["download_gb"] * 1e9)
    return corpus.from_files(folder, *held)


@contextmanager
def _made(place: Path) -> Iterator[Path]:
    """A folder to fill; it appears at ``place`` when it is complete."""
    with tempfile.TemporaryDirectory(prefix=".making-", dir=place.parent, ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        yield scratch
        for file in scratch.iterdir():
            file.chmod(0o444)  # trials share these files by hard links
        scratch.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)  # an incomplete folder
        scratch.rename(place)


def _make(spec: Mapping[str, Any], splits: Splits, place: Path) -> None:
    with _made(place) as scratch:
        tokenizer.train(sample(splits.train()), spec["vocab_size"], scratch / "tokenizer.json")
        coder = tokenizer.load(scratch / "tokenizer.json")
        counts = tokenizer.token_bytes(coder)
        np.save(scratch / "token_bytes.npy", counts)
        length = spec["sequence_length"]
        tokens = {}
        for split, texts in (("validation", splits.validation), ("test", splits.test)):
            rows = np.concatenate(list(pack(tokenizer.encode(coder, texts, counts), length)))
            wanted = max(1, spec[f"{split}_tokens"] // length)
            rows = rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:wanted])]  # from all documents
            tokens[split] = _enough(len(rows), split, length)
            rows.tofile(scratch / f"{split}.bin")
        shards, count = write_shards(pack(tokenizer.encode(coder, splits.train(), counts), length), length, scratch)
        tokens["train"] = _enough(count, "train", length)
        manifest = {
            "version": VERSION,
            "spec": dict(spec),
            "vocab_size": len(counts),
            "sequence_length": length,
            "tokens": tokens,
            "masked": list(splits.masked),
            "train_shards": shards,
            "files": {f.name: [f.stat().st_size, hub.sha256(f)] for f in sorted(scratch.iterdir())},
        }
        (scratch / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _enough(rows: int, split: str, length: int) -> int:
    least = FEWEST_ROWS[split]
    if rows < least:
        raise DataError(
            f"too little text: {split} has {rows * length:,} tokens ({rows} rows of {length}), at least "
            f"{least * length:,} are needed. Use more text, or a smaller sequence_length."
        )
    return rows * length


def _load(place: Path, full: bool) -> Prepared:
    """A prepared folder, checked. ``full``: large files by hash, too. Raises DataError if it is damaged."""
    try:
        manifest = json.loads((place / "manifest.json").read_text())
        built_in = manifest["spec"]["source"] == "builtin"
        digest = hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()[:16]
        prepared = Prepared(
            place,
            digest,
            manifest["vocab_size"],
            manifest["sequence_length"],
            manifest["tokens"],
            (*manifest["masked"], *(corpus.TRAINING_SOURCES if built_in else ())),
        )
    except (ValueError, KeyError) as error:
        raise _damaged(place, f"manifest.json is damaged ({error})") from None
    for name, (size, content) in manifest["files"].items():
        path = place / name
        if not path.exists() or path.stat().st_size != size:
            raise _damaged(place, f"{name} is missing or has another size")
        if (full or size <= CHECKED_BYTES) and hub.sha256(path) != content:
            raise _damaged(place, f"{name} has another hash")
    return prepared


def _damaged(place: Path, problem: str) -> DataError:
    return DataError(f"{place}: {problem}. Delete this folder; the next run makes or fetches it again.")


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Make the folder and lock it: of two sessions that start at the same time, one prepares."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
