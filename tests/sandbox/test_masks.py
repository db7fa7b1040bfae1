"""Standard libraries are found wherever a program brings its own Python."""

from __future__ import annotations

from pathlib import Path

from sandbox import masks


def test_finds_bundled_standard_libraries(tmp_path: Path) -> None:
    for place in ("lib/python3", "lib/tool/bundled/lib/python3.12", "share/odd/library"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "os.py").touch()
    (tmp_path / "lib/python3/dist-packages/thing").mkdir(parents=True)
    (tmp_path / "lib/python3/dist-packages/thing/os.py").touch()
    found = {str(Path(p).relative_to(tmp_path)) for p in masks.libraries(str(tmp_path))}
    assert found == {"lib/python3", "lib/tool/bundled/lib/python3.12", "share/odd/library"}


def test_finds_packages_files_and_compiled_files() -> None:
    names = {Path(path).name.split(".")[0] for path in masks.find(("wsgiref", "turtle.py"))}
    assert names >= {"wsgiref"}
    assert masks.find(()) == []
