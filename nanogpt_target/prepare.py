"""Text → tokenizer → packed rows, once; then what each side of a trial may see of it.

A prepared folder is named by a hash of its settings and its text, is checked by hash when it is used, and has: the
training shards, the validation and test rows, the tokenizer, the bytes of each token, and ``manifest.json``.
"""

from __future__ import annotations

import argparse
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

__all__ = ["DataError", "Prepared", "prepare", "release", "stage_before"]

VERSION = 1
SHARD_ROWS = 1 << 18
DEFAULTS: Mapping[str, Any] = {
    "source": "builtin",
    "files": [],
    "vocab_size": 1024,
    "sequence_length": 128,
    "validation_tokens": 60_000,
    "test_tokens": 60_000,
    "train_bytes": 0,  # of the built-in corpus; 0: all
}


@dataclass(frozen=True)
class Prepared:
    """A prepared data set on the host. ``hash`` is part of what makes two values comparable."""

    directory: Path
    hash: str
    vocab_size: int
    sequence_length: int
    tokens: Mapping[str, int]
    masked: tuple[str, ...]


def prepare(
    spec: Mapping[str, Any], cache: Path, progress: Callable[[str], None] | None = None, verify: bool = False
) -> Prepared:
    """The prepared form of ``spec`` (keys of ``DEFAULTS``), made now or taken from ``cache``.

    Raises:
        DataError: an unknown key, no usable text, or too little of it.
    """
    say = progress or (lambda _text: None)
    spec = _check(spec)
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        key = hashlib.sha256(json.dumps([VERSION, spec, _origin(spec)], sort_keys=True).encode()).hexdigest()[:16]
        place = cache / key
        if not (place / "manifest.json").exists():
            say(f"preparing data ({spec['source']}): vocabulary {spec['vocab_size']}, rows of {spec['sequence_length']}")
            _make(spec, _read(spec, cache, say), place)
        prepared = _load(place)
        if problem := _damage(place, full=verify):
            raise DataError(f"{place}: {problem}. Delete this folder; it is made again by the same command.")
        return prepared


def stage_before(prepared: Prepared, data: Path) -> None:
    """What a trial may see before the clock starts: sizes, no text."""
    meta = {"vocab_size": prepared.vocab_size, "sequence_length": prepared.sequence_length}
    (data / "meta.json").write_text(json.dumps(meta))


def release(prepared: Prepared, data: Path) -> None:
    """Make the training shards appear in a trial's data directory; the manifest comes last and starts the harness."""
    manifest = json.loads((prepared.directory / "manifest.json").read_text())
    for name in manifest["train_shards"]:
        _link(prepared.directory / name, data / name)
    shown = {"train_shards": manifest["train_shards"], "sequence_length": prepared.sequence_length}
    scratch = data / "manifest.new"
    scratch.write_text(json.dumps(shown))
    scratch.rename(data / "manifest.json")


def _link(source: Path, place: Path) -> None:
    """A symbolic link would lead out of the sandbox; a hard link shares the pages; a copy always works."""
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def _check(spec: Mapping[str, Any]) -> dict[str, Any]:
    import difflib

    for key in spec:
        if key not in DEFAULTS:
            close = difflib.get_close_matches(key, DEFAULTS, n=1)
            raise DataError(f"unknown key {key!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
    full = {**DEFAULTS, **spec}
    for key, default in DEFAULTS.items():
        if not isinstance(full[key], type(default)) or isinstance(full[key], bool):
            raise DataError(f"{key} must be a {type(default).__name__}, not {full[key]!r}.")
    if not 300 <= full["vocab_size"] <= 65_536:
        raise DataError(f"vocab_size = {full['vocab_size']} must be between 300 and 65536.")
    if full["sequence_length"] < 8 or full["validation_tokens"] < 1 or full["test_tokens"] < 1:
        raise DataError("sequence_length must be at least 8, validation_tokens and test_tokens at least 1.")
    return full


def _origin(spec: Mapping[str, Any]) -> str:
    """What the text depends on besides the settings."""
    source = spec["source"]
    if source == "builtin":
        return sys.version
    if source.startswith("hub:"):
        return source
    path = Path(source).expanduser()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.exists() else []
    return json.dumps([[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files])


def _read(spec: Mapping[str, Any], cache: Path, say: Callable[[str], None]) -> Splits:
    source = spec["source"]
    if source == "builtin":
        return corpus.builtin(spec["train_bytes"] or None)
    if source.startswith("hub:"):
        name = source[4:]
        if not spec["files"]:
            raise DataError(f"{source}: name its files, such as files = [\"shard_00000.parquet\"].")
        folder = cache / "hub" / name.replace("/", "--")
        hub.download(name, spec["files"], folder, say)
        return corpus.from_files(folder, 0.02)
    return corpus.from_files(Path(source).expanduser())


def _make(spec: Mapping[str, Any], splits: Splits, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
    try:
        sample, size = [], 0
        for text in splits.train:
            sample.append(text)
            size += len(text)
            if size > 4_000_000:
                break
        tokenizer.train(sample, spec["vocab_size"], scratch / "tokenizer.json")
        counts = tokenizer.token_bytes(scratch / "tokenizer.json")
        np.save(scratch / "token_bytes.npy", counts)
        length = spec["sequence_length"]
        tokens = {}
        for split in ("validation", "test"):
            ids = tokenizer.encode(scratch / "tokenizer.json", getattr(splits, split))
            rows = _pack(ids, length)[: max(1, spec[f"{split}_tokens"] // length)]
            tokens[split] = _enough(rows, split, 4, length) * length
            rows.tofile(scratch / f"{split}.bin")
        rows = _pack(tokenizer.encode(scratch / "tokenizer.json", splits.train), length)
        tokens["train"] = _enough(rows, "train", 64, length) * length
        shards = []
        for k in range(0, len(rows), SHARD_ROWS):
            shards.append(f"train-{k // SHARD_ROWS:05d}.bin")
            rows[k : k + SHARD_ROWS].tofile(scratch / shards[-1])
        manifest = {
            "version": VERSION,
            "spec": dict(spec),
            "vocab_size": len(counts),
            "sequence_length": length,
            "tokens": tokens,
            "masked": list(splits.masked),
            "train_shards": shards,
            "files": {f.name: [f.stat().st_size, _sha256(f)] for f in sorted(scratch.iterdir())},
        }
        (scratch / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for file in scratch.iterdir():
            file.chmod(0o644)
        scratch.chmod(0o755)
        scratch.rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _enough(rows: np.ndarray, split: str, least: int, length: int) -> int:
    if len(rows) < least:
        raise DataError(
            f"too little text: {len(rows)} rows of {length} tokens for {split}, at least {least} are needed. "
            f"Use more text, or a smaller sequence_length."
        )
    return len(rows)


def _pack(documents: list[np.ndarray], length: int) -> np.ndarray:
    """uint16 [N, length + 1]: every row begins with BOS (0), so does every document; what does not fit goes on in the next."""
    pieces: list[np.ndarray] = []
    room = 0
    bos = np.zeros(1, np.uint16)
    for ids in documents:
        while len(ids):
            if room < 2:  # a new row; a last single token of room is filled with BOS
                pieces.append(bos[:room])
                room = length + 1
            part = ids[: room - 1]
            pieces += [bos, part]
            ids = ids[len(part) :]
            room -= len(part) + 1
    flat = np.concatenate(pieces) if pieces else np.empty(0, np.uint16)
    whole = len(flat) // (length + 1)
    return flat[: whole * (length + 1)].reshape(whole, length + 1)


def _load(place: Path) -> Prepared:
    try:
        manifest = json.loads((place / "manifest.json").read_text())
        digest = hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()[:16]
        return Prepared(
            place, digest, manifest["vocab_size"], manifest["sequence_length"], manifest["tokens"], tuple(manifest["masked"])
        )
    except (ValueError, KeyError) as error:
        raise DataError(f"{place}/manifest.json is damaged ({error}). Delete the folder; it is made again.") from None


def _damage(place: Path, full: bool) -> str:
    files = json.loads((place / "manifest.json").read_text())["files"]
    for name, (size, digest) in files.items():
        path = place / name
        if not path.exists() or path.stat().st_size != size:
            return f"{name} is missing or has another size"
        if (full or size < 1 << 24) and _sha256(path) != digest:  # large files only on --verify
            return f"{name} has another hash"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two sessions that start at once prepare once."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nanogpt_target.prepare")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/overnight/data").expanduser())
    parser.add_argument("--source", default="builtin")
    arguments = parser.parse_args()
    try:
        print(prepare({"source": arguments.source}, arguments.cache, lambda t: print(t, file=sys.stderr)).directory)
    except DataError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
