"""Frames and archives from a container, in pieces of any size. tests/e2e uses a real engine."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.container import _frames, _Stream
from sandbox.docker import _amd_devices


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[k : k + size] for k in range(0, len(data), size)]


@given(st.lists(st.tuples(st.sampled_from([b"O", b"T", b"E"]), st.binary(max_size=40))), st.integers(1, 30))
def test_frames_survive_any_chunking(frames: list[tuple[bytes, bytes]], size: int) -> None:
    data = b"".join(struct.pack(">cI", kind, len(body)) + body for kind, body in frames)
    assert list(_frames(iter(pieces(data, size)))) == frames


def test_incomplete_frame_is_ignored() -> None:
    assert list(_frames(iter([b"O\0\0\0\x05abc"]))) == []


def test_oversized_frame_is_rejected() -> None:
    with pytest.raises(ValueError, match="too long"):
        list(_frames(iter([b"O\xff\xff\xff\xff"])))


@given(st.binary(max_size=3000), st.integers(1, 700))
def test_archive_survives_any_chunking(content: bytes, size: int) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("model")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    stream = _Stream(iter(pieces(packed.getvalue(), size)))
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        first = archive.next()
        assert first is not None
        source = archive.extractfile(first)
        assert source is not None
        assert source.read() == content


def test_amd_devices_come_with_their_groups(tmp_path: Path) -> None:
    (tmp_path / "dri").mkdir()
    for name in ("kfd", "dri/renderD128", "dri/card0"):
        (tmp_path / name).touch()
    nodes = [f"{tmp_path}/{name}" for name in ("kfd", "dri/renderD128")]
    assert _amd_devices(tmp_path) == {
        "devices": [f"{node}:{node}:rw" for node in nodes],
        "group_add": [tmp_path.stat().st_gid],
    }
