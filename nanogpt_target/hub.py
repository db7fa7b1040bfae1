"""Downloads the files of a hub data set with huggingface_hub, and checks their size and hash."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nanogpt_target.corpus import FORMATS, DataError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile


def download(
    dataset: str,
    files: Sequence[str],
    folder: Path,
    progress: Callable[[str], None] | None = None,
    most_bytes: float = 2e9,
    endpoint: str | None = None,
) -> list[Path]:
    """Download files of a data set; complete files are not downloaded again. A broken connection is resumed.

    Args:
        dataset: ``owner/name``.
        files: names or patterns (``shard_0000?.parquet``). If empty, text files in the order of their names.
        folder: where the files go.
        progress: called with messages for people.
        most_bytes: bound on the total size if ``files`` is empty.
        endpoint: address of the hub; default: HF_ENDPOINT, else the public hub.

    Raises:
        DataError: the data set or a file does not exist, has another size or hash, or the last retry failed.
    """
    if len(parts := dataset.split("/")) != 2 or not all(parts):
        raise DataError(f"hub:{dataset}: write hub:owner/name.")
    with _data_errors(dataset):
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        hub = HfApi(endpoint)
        entries = list(hub.list_repo_tree(dataset, repo_type="dataset", recursive=True))
    there = [entry for entry in entries if isinstance(entry, RepoFile) and entry.path.endswith(FORMATS)]
    places = []
    for file in _choose(sorted(there, key=lambda file: file.path), files, dataset, most_bytes):
        if Path(file.path).is_absolute() or ".." in Path(file.path).parts:
            raise DataError(f"hub:{dataset}: {file.path!r} leads out of the data set.")
        if progress is not None:
            progress(f"{file.path}: {file.size / 1e6:,.1f} MB")
        with _data_errors(dataset):
            place = Path(hub.hf_hub_download(dataset, file.path, repo_type="dataset", local_dir=folder))
        if place.stat().st_size != file.size or (file.lfs is not None and sha256(place) != file.lfs.sha256):
            place.unlink()
            raise DataError(f"{place}: size or hash differs from the hub's. The file was deleted; try again.")
        places.append(place)
    return places


def _choose(there: list[RepoFile], wanted: Sequence[str], dataset: str, most_bytes: float) -> list[RepoFile]:
    some = ", ".join(file.path for file in there[:3]) or "no txt, jsonl or parquet file"
    for pattern in wanted:
        if not fnmatch.filter([file.path for file in there], pattern):
            raise DataError(f"hub:{dataset} has no file {pattern!r}; it has {some}{', …' if len(there) > 3 else ''}.")
    if wanted:
        return [file for file in there if any(fnmatch.fnmatchcase(file.path, pattern) for pattern in wanted)]
    if not there:
        raise DataError(f"hub:{dataset} has {some}.")
    sizes = itertools.accumulate(file.size for file in there)
    return [file for file, size in zip(there, sizes, strict=True) if size <= most_bytes] or there[:1]


@contextmanager
def _data_errors(dataset: str) -> Iterator[None]:
    """Turn every exception of a request into DataError."""
    try:
        yield
    except Exception as error:  # the exceptions of huggingface_hub and of its HTTP library have no common base
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"hub:{dataset}: {reason.rstrip('.')}. Is the name right, the data set public, and this machine online? "
            "The same command continues the download."
        ) from None


def sha256(path: Path) -> str:
    """The hash of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
