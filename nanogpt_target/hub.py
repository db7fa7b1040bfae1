"""Files of a hub data set, by name, over HTTP: downloads go on where they broke off, and are checked."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from nanogpt_target.corpus import DataError

DEFAULT_ENDPOINT = "https://huggingface.co"
RETRIES = 8


def download(
    name: str,
    files: Sequence[str],
    folder: Path,
    progress: Callable[[str], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch ``files`` of the data set ``owner/name`` into ``folder``; what is complete there is not fetched again.

    The address of the hub is taken from HF_ENDPOINT. Raises ``DataError`` after the last retry.
    """
    endpoint = os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    places = []
    for file in files:
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise DataError(f"{file!r} is no file name of a data set.")
        place = folder / file.replace("/", "--")
        if not place.exists():
            _fetch(f"{endpoint}/datasets/{name}/resolve/main/{file}", place, progress, sleep)
        places.append(place)
    return places


def _fetch(url: str, place: Path, progress: Callable[[str], None] | None, sleep: Callable[[float], None]) -> None:
    part = place.with_name(place.name + ".part")
    problem = "no answer"
    for attempt in range(RETRIES):
        have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                if answer.status != 206:
                    have = 0  # the server sends it whole
                total = have + int(answer.headers["Content-Length"]) if answer.headers["Content-Length"] else None
                with part.open("ab" if have else "wb") as file:
                    while chunk := answer.read(1 << 20):
                        file.write(chunk)
            if total is None or part.stat().st_size == total:
                part.replace(place)
                return
            problem = f"broke off at {part.stat().st_size} of {total} bytes"
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is longer than the file: it belongs to another version
                part.unlink(missing_ok=True)
            elif error.code in (401, 403, 404):
                raise DataError(f"{url}: HTTP {error.code}. Is the name right, and the data set public?") from None
            problem = f"HTTP {error.code}"
        except (OSError, ValueError) as error:
            problem = str(error)
        if progress:
            progress(f"{place.name}: {problem}; trying again")
        sleep(min(60.0, 0.5 * 2**attempt))
    raise DataError(f"{url}: {problem}, {RETRIES} times. What was fetched is kept; the same command goes on from there.")
