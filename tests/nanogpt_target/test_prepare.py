"""Prepared data: made once, checked by hash, shown to a trial in two steps."""

from __future__ import annotations

import itertools
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import SPEC

from nanogpt_target import tokenizer
from nanogpt_target.corpus import DataError
from nanogpt_target.prepare import Prepared, prepare, release, stage_before, unpack
from nanogpt_target.presets import PRESETS, write_target


def rows_of(prepared: Prepared, name: str) -> np.ndarray:
    return np.fromfile(prepared.directory / name, np.uint16).reshape(-1, prepared.sequence_length + 1)


def files_of(prepared: Prepared) -> dict[str, np.ndarray]:
    return {path.name: np.fromfile(path, np.uint8) for path in prepared.directory.iterdir()}


def test_rows_begin_with_bos_and_hold_the_text(prepared: Prepared, corpus_file: Path) -> None:
    coder = tokenizer.load(prepared.directory / "tokenizer.json")
    text = corpus_file.read_text(encoding="utf-8")
    for name in ("train-00000.bin", "validation.bin", "test.bin"):
        rows = rows_of(prepared, name)
        assert (rows[:, 0] == 0).all()
        assert rows.max() < prepared.vocab_size
        piece = coder.decode([int(t) for t in rows[0] if t], skip_special_tokens=False)
        assert piece.strip("�")[2:20] in text


def test_splits_share_no_row(prepared: Prepared) -> None:
    train, validation, test = (
        {row.tobytes() for row in rows_of(prepared, name)} for name in ("train-00000.bin", "validation.bin", "test.bin")
    )
    assert not validation & test
    assert not train & (validation | test)


def test_second_call_reuses_prepared_data(corpus_file: Path, tmp_path: Path) -> None:
    said: list[str] = []
    spec = {"source": str(corpus_file), **SPEC}
    first = prepare(spec, tmp_path, said.append)
    assert len(said) == 1
    assert prepare(spec, tmp_path, said.append) == first
    assert len(said) == 1
    other = prepare({**spec, "sequence_length": 16}, tmp_path)
    assert other.hash != first.hash
    assert other.directory != first.directory


def test_unpack_fetches_data_once(prepared: Prepared, tmp_path: Path) -> None:
    sent, key = [], prepared.directory.name

    def fetch() -> dict[str, np.ndarray]:
        sent.append(key)
        return files_of(prepared)

    there = [unpack(key, prepared.hash, tmp_path / "there", fetch) for _ in range(2)]
    assert sent == [key]
    assert there[0] == there[1]
    assert (there[0].directory, there[0].hash) == (tmp_path / "there" / key, prepared.hash)
    for file in prepared.directory.iterdir():
        assert (there[0].directory / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(DataError, match="hash"):
        unpack(key, "0" * 16, tmp_path / "there", fetch)


def test_unpack_rejects_damaged_data(prepared: Prepared, tmp_path: Path) -> None:
    damaged = files_of(prepared)
    damaged["validation.bin"] = damaged["validation.bin"] + 1
    with pytest.raises(DataError, match=r"validation\.bin has another hash"):
        unpack("key", prepared.hash, tmp_path, lambda: damaged)


def test_changed_source_file_is_prepared_again(tmp_path: Path, corpus_file: Path) -> None:
    copy = tmp_path / "text.txt"
    copy.write_text(corpus_file.read_text())
    first = prepare({"source": str(copy), **SPEC}, tmp_path / "cache")
    copy.write_text(corpus_file.read_text().replace("night", "day"))
    assert prepare({"source": str(copy), **SPEC}, tmp_path / "cache").hash != first.hash


def test_damaged_prepared_data_is_data_error(corpus_file: Path, tmp_path: Path) -> None:
    spec = {"source": str(corpus_file), **SPEC}
    place = prepare(spec, tmp_path).directory
    victim = place / "validation.bin"
    data = victim.read_bytes()
    victim.chmod(0o644)
    victim.write_bytes(data[:-4] + bytes(4))
    with pytest.raises(DataError, match=r"validation\.bin has another hash"):
        prepare(spec, tmp_path)
    victim.write_bytes(data[:-2])
    with pytest.raises(DataError, match=r"validation\.bin is missing or has another size"):
        prepare(spec, tmp_path)
    victim.write_bytes(data)
    assert prepare(spec, tmp_path, verify=True).directory == place
    (place / "manifest.json").chmod(0o644)
    (place / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest.json is damaged"):
        prepare(spec, tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"vocab": 300}, "'vocab_size'"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"vocab_size": 10}, "vocab_size = 10"),
        ({"sequence_length": 2}, "sequence_length"),
        ({"files": [3]}, "files"),
        ({"source": "/nowhere.txt"}, "/nowhere.txt"),
    ],
)
def test_wrong_spec_is_data_error_and_writes_nothing(tmp_path: Path, spec: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as found:
        prepare(spec, tmp_path)
    assert message in str(found.value)
    assert [p.name for p in tmp_path.iterdir() if p.name != "lock"] == []


def test_too_little_text_is_data_error(tmp_path: Path, corpus_file: Path) -> None:
    with pytest.raises(DataError, match=r"too little text: \w+ has [\d,]+ tokens"):
        prepare({"source": str(corpus_file), **SPEC, "sequence_length": 4096}, tmp_path)


def test_trial_sees_text_only_after_release(prepared: Prepared, tmp_path: Path) -> None:
    stage_before(prepared, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["meta.json"]
    assert json.loads((tmp_path / "meta.json").read_text()) == {"vocab_size": 320, "sequence_length": 32}
    release(prepared, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "meta.json", "train-00000.bin"]
    assert set(json.loads((tmp_path / "manifest.json").read_text())) == {"train_shards", "sequence_length"}


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_is_searchable_target(preset: str, tmp_path: Path) -> None:
    from agent.space.space import SearchSpace
    from agent.target import load_target

    write_target(preset, tmp_path)
    source = (tmp_path / "train.py").read_text()
    assert len(source.splitlines()) <= 450
    target, _ = load_target(tmp_path)
    assert target.score == "trusted"
    space = SearchSpace.from_toml(tmp_path / "target.toml", source=source)
    assert len(space.params) == 14
    assert not space.valid(space.defaults)


def test_unknown_preset_is_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tpu"):
        write_target("tpu", tmp_path)


def test_models_of_presets_build_at_all_bounds(tmp_path: Path, python) -> None:  # type: ignore[no-untyped-def]
    """The default model of preset gpu has about fifty million parameters."""
    shape = ("DEPTH", "ASPECT_RATIO", "HEAD_DIM", "WINDOW_PATTERN")
    cases = []
    for preset in sorted(PRESETS, key="gpu".__eq__):  # the last one writes the train.py that is imported
        write_target(preset, tmp_path)
        toml = tomllib.loads((tmp_path / "target.toml").read_text())
        bounds = {p["name"]: p.get("choices", ())[:2] or [p["low"], p["high"]] for p in toml["hyperparameters"]}
        cases += [(*values, toml["data"]["vocab_size"]) for values in itertools.product(*(bounds[n] for n in shape))]
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport math, torch, train\n"
        f"for depth, aspect, head, pattern, vocab in {cases!r}:\n"
        "    width = math.ceil(depth * aspect / head) * head\n"
        "    with torch.device('meta'):\n"
        "        model = train.GPT(train.Config(vocab, 16, depth, head, width, pattern))\n"
        "        assert model(torch.zeros(2, 16, dtype=torch.long)).shape == (2, 16, vocab)\n"
        "with torch.device('meta'): model = train.GPT(train.Config(8192, 2048))\n"
        "print(sum(p.numel() for p in model.parameters()))"
    )
    assert 45e6 < int(python(program)) < 55e6
