"""Sources of text: splits by document, and errors of one line."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_text

from nanogpt_target import corpus
from nanogpt_target.corpus import DataError, builtin, from_files

PLENTY = 1 << 30


def test_builtin_splits_share_no_document() -> None:
    splits = builtin(2_000_000)
    train, validation, test = set(splits.train()), set(splits.validation), set(splits.test)
    assert train
    assert validation
    assert test
    assert not train & (validation | test)
    assert not validation & test
    assert sum(len(text.encode()) for text in train) < 3_000_000


def test_held_out_text_comes_from_masked_files() -> None:
    splits = builtin(1)
    root = Path(sysconfig.get_path("stdlib"))
    assert splits.masked
    assert all((root / name).exists() for name in splits.masked)
    allowed = {
        path.read_text(encoding="utf-8")
        for name in splits.masked
        for path in ([root / name] if (root / name).is_file() else (root / name).rglob("*"))
        if path.suffix in (".py", ".txt", ".rst")
    }
    assert {*splits.validation, *splits.test} <= allowed


def test_training_libraries_import_no_masked_module(python: Callable[[str], str]) -> None:
    """Includes the compiler, whose modules load late."""
    loaded = python(
        "import torch, numpy, safetensors.torch, sys\n"
        "import torch._dynamo, torch._inductor.compile_fx, torch.nn.attention.flex_attention, torch.utils.data\n"
        "import torch.distributed, torch.profiler, torch.utils.cpp_extension, torch.utils.checkpoint\n"
        "print('\\n'.join(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)))"
    ).splitlines()
    root = Path(sysconfig.get_path("stdlib"))
    parts = {Path(name).relative_to(root).parts[0] for name in loaded if Path(name).is_relative_to(root)}
    assert "json" in parts
    assert not parts & set(corpus.HELD_OUT)


def test_builtin_corpus_of_small_python_installation(tmp_path: Path) -> None:
    for name in ("wave.py", "ftplib.py", "json/decoder.py", "test/test_json.py", "distutils/core.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n" + "x = 1\n" * 50)
    (tmp_path / "copied.py").write_text((tmp_path / "wave.py").read_text())
    splits = builtin(root=tmp_path)
    assert splits.masked == ("ftplib.py", "wave.py")
    assert len(splits.validation) + len(splits.test) == 2
    assert [text.splitlines()[0] for text in splits.train()] == ["# json/decoder.py", "# test/test_json.py"]


@pytest.fixture
def documents() -> list[str]:
    return [f"document {k}: {make_text(k, 1)}" for k in range(40)]


def write(path: Path, documents: list[str]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": d, "url": "u"}) + "\n" for d in documents))
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"text": documents}), path)
    else:
        path.write_text("\n\n".join(d + "." * corpus.PIECE for d in documents))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".txt"])
def test_every_document_is_in_one_split(tmp_path: Path, documents: list[str], suffix: str) -> None:
    splits = from_files(write(tmp_path / f"a{suffix}", [*documents, documents[0]]), PLENTY, PLENTY)
    train, validation, test = list(splits.train()), splits.validation, splits.test
    numbers = sorted(text.split(":")[0] for text in (*train, *validation, *test))
    assert numbers == sorted(f"document {k}" for k in range(40))
    assert len(validation) == len(test) == 4


def test_split_of_document_is_independent_of_file(tmp_path: Path, documents: list[str]) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.jsonl", documents[:7])
    write(tmp_path / "folder" / "b.parquet", documents[7:])
    write(tmp_path / "all.jsonl", documents)
    apart, whole = from_files(tmp_path / "folder", PLENTY, 1), from_files(tmp_path / "all.jsonl", PLENTY, 1)
    assert set(apart.validation) == set(whole.validation)
    assert apart.test == whole.test
    assert len(whole.test) == 1
    assert set(apart.train()) == set(whole.train())


def test_long_file_without_empty_lines_is_cut(tmp_path: Path) -> None:
    text = "".join(f"line {k} of a long log\n" for k in range(20_000))
    (tmp_path / "a.txt").write_text(text)
    splits = from_files(tmp_path, PLENTY, PLENTY)
    assert sum(map(len, [*splits.train(), *splits.validation, *splits.test])) == len(text)


def test_lone_surrogate_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{k} \\ud83d"}}\n' for k in range(20)))
    splits = from_files(tmp_path, 1, 1)
    assert {*splits.train(), *splits.validation, *splits.test} == {f"{k} ?" for k in range(20)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "holds no text"),
        ("a.txt", " \n\n ", "holds no text"),
        ("a.txt", "one short line\n", "holds 1 different document;"),
        ("a.csv", "text\n", "no .txt, .jsonl or .parquet file"),
        ("a.jsonl", '{"text": "fine"}\n{"body": 1}\n', "a.jsonl, line 2"),
        ("a.jsonl", '["text"]\n', "a.jsonl, line 1"),
        ("a.jsonl", "{\n", "a.jsonl, line 1"),
        ("a.parquet", "no parquet", "not a readable parquet file"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_unusable_text_is_data_error(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        from_files(tmp_path / name, PLENTY, PLENTY)
    assert "\n" not in str(caught.value)


def test_missing_files_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        from_files(tmp_path / "nowhere", 1, 1)
    with pytest.raises(DataError, match=r"holds no \.txt, \.jsonl or \.parquet file"):
        from_files(tmp_path, 1, 1)


def test_parquet_without_text_column_is_data_error(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"body": ["a"], "url": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match='no column "text"; it has: body, url'):
        from_files(tmp_path, 1, 1)
