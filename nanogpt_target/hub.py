"""Downloads the files of a hub data set over HTTP; resumes interrupted downloads and checks size and hash."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt_target.corpus import FORMATS, DataError

DEFAULT_ENDPOINT = "https://huggingface.co"
RETRIES = 8  # attempts without a new byte
TIMEOUT = 60.0  # longest wait for an answer, in seconds
CHUNK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set. ``size`` (in bytes) and ``sha256`` are None if the hub does not report them."""

    name: str
    size: int | None = None
    sha256: str | None = None


def download(
    dataset: str,
    files: Sequence[str],
    folder: Path,
    progress: Callable[[str], None] | None = None,
    most_bytes: float = 2e9,
    endpoint: str = "",
    pause: float = 0.5,
) -> list[Path]:
    """Download files of a data set; complete files are not downloaded again.

    Args:
        dataset: ``owner/name``.
        files: names or patterns (``shard_0000?.parquet``). If empty, text files in the order of their names.
        folder: where the files go.
        progress: called with messages for people.
        most_bytes: bound on the total size if ``files`` is empty.
        endpoint: address of the hub; default: HF_ENDPOINT, else the public hub.
        pause: seconds before the first retry, doubled for each further one.

    Returns:
        The paths of the downloaded files.

    Raises:
        DataError: the data set or a file does not exist, has another size or hash, or the last retry failed.
    """
    say = progress or (lambda _text: None)
    endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if len(parts := dataset.split("/")) != 2 or not all(parts):
        raise DataError(f"hub:{dataset}: write hub:owner/name.")
    folder.mkdir(parents=True, exist_ok=True)
    places = []
    for file in _choose(_listing(endpoint, dataset, pause, say), files, dataset, most_bytes):
        if Path(file.name).is_absolute() or ".." in Path(file.name).parts:
            raise DataError(f"hub:{dataset}: {file.name!r} leads out of the data set.")
        place = folder / file.name.replace("/", "--")
        if not place.exists():
            url = f"{endpoint}/datasets/{dataset}/resolve/main/{urllib.parse.quote(file.name)}"
            _fetch(url, file, place, pause, say)
        places.append(place)
    return places


def _listing(endpoint: str, dataset: str, pause: float, say: Callable[[str], None]) -> list[RemoteFile]:
    """All files of a data set. The hub returns pages; the header Link has the address of the next one."""
    url = f"{endpoint}/api/datasets/{dataset}/tree/main?recursive=true"
    found: list[RemoteFile] = []
    while url:
        for attempt in range(RETRIES):
            try:
                with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                    entries, link = json.load(answer), answer.headers.get("Link", "")
                break
            except (OSError, ValueError) as error:
                _raise_if_final(error, url)
                say(f"{dataset}: {error}; trying again")
                time.sleep(pause * 2**attempt)
        else:
            raise DataError(f"{url}: no list of files after {RETRIES} attempts. Is this machine online?")
        for entry in entries:
            if entry.get("type") == "file":
                large = entry.get("lfs") or {}
                found.append(RemoteFile(str(entry["path"]), entry.get("size"), large.get("oid")))
        url = link.split(">")[0].lstrip("<") if 'rel="next"' in link else ""
    return found


def _choose(there: list[RemoteFile], wanted: Sequence[str], dataset: str, most_bytes: float) -> list[RemoteFile]:
    there = sorted((f for f in there if f.name.endswith(FORMATS)), key=lambda f: f.name)
    if wanted:
        for pattern in wanted:
            if not any(fnmatch.fnmatchcase(f.name, pattern) for f in there):
                some = ", ".join(f.name for f in there[:3]) or "no txt, jsonl or parquet file"
                raise DataError(
                    f"hub:{dataset} has no file {pattern!r}; it has {some}{', …' if len(there) > 3 else ''}."
                )
        return [f for f in there if any(fnmatch.fnmatchcase(f.name, pattern) for pattern in wanted)]
    chosen: list[RemoteFile] = []
    size = 0
    for file in there:
        size += file.size or 0
        if chosen and size > most_bytes:
            break
        chosen.append(file)
    if not chosen:
        raise DataError(f"hub:{dataset} holds no txt, jsonl or parquet file.")
    return chosen


def _fetch(url: str, file: RemoteFile, place: Path, pause: float, say: Callable[[str], None]) -> None:
    part = place.with_name(place.name + ".part")
    problem, failures = "no answer", 0
    while failures < RETRIES:
        have = part.stat().st_size if part.exists() else 0
        if file.size is not None and have >= file.size:
            break
        try:
            complete = _fetch_more(url, part, have)
            if complete and file.size is None:
                break
            problem = f"interrupted at {part.stat().st_size:,} of {file.size or 0:,} bytes"
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:  # a part of another version
                part.unlink(missing_ok=True)
            _raise_if_final(error, url)
            problem = str(error)
        gained = (part.stat().st_size if part.exists() else 0) > have
        failures = 0 if gained else failures + 1
        if file.size is None or (part.stat().st_size if part.exists() else 0) < file.size:
            say(f"{place.name}: {problem}; continuing")
            time.sleep(min(60.0, pause * 2**failures))
    else:
        raise DataError(f"{url}: {problem} after {RETRIES} attempts. The same command continues the download.")
    size, digest = part.stat().st_size, _sha256(part)
    if (file.size is not None and size != file.size) or (file.sha256 and digest != file.sha256):
        part.unlink()
        raise DataError(f"{url}: size or hash differs from the hub's. The file was deleted; try again.")
    part.replace(place)


def _fetch_more(url: str, part: Path, have: int) -> bool:
    """Append the missing bytes to ``part``; whether the answer was complete."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        resumed = have > 0 and answer.status == 206  # otherwise the server sends the file from its start
        length = answer.headers.get("Content-Length")
        came = 0
        with part.open("ab" if resumed else "wb") as out:
            while chunk := answer.read1(CHUNK):
                out.write(chunk)
                came += len(chunk)
    return length is None or came == int(length)


def _raise_if_final(error: Exception, url: str) -> None:
    if isinstance(error, urllib.error.HTTPError) and error.code in (400, 401, 403, 404):
        raise DataError(f"{url}: HTTP {error.code}. Is the name right, and the data set public?") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
