"""A model is all its files: parts, shards, configuration, tokenizer, adapters."""

import os
import shutil
from pathlib import Path

import gguf
import pytest

from poorwill.core.errors import OperatorFault
from poorwill.engines.weights.files import gguf_parts, weights_of
from poorwill.engines.weights.gguf_header import read_gguf_header
from poorwill.engines.weights.gguf_model import make_model
from poorwill.engines.weights.integrity import weights_fault


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one model as one file, and split into parts by the format's own package."""
    home = tmp_path_factory.mktemp("split")
    whole = make_model(home / "whole.gguf", size="5m")
    reader = gguf.GGUFReader(whole)
    writer = gguf.GGUFWriter(home / "m.gguf", arch="llama", split_max_tensors=20)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return home


@pytest.fixture
def split(made: Path, tmp_path: Path) -> list[Path]:
    parts = sorted(made.glob("m-*.gguf"))
    assert len(parts) == 3
    return [Path(shutil.copy2(part, tmp_path)) for part in parts]


def test_any_part_stands_for_the_model(made: Path, split: list[Path]) -> None:
    whole = read_gguf_header(made / "whole.gguf")
    for part in split:
        header = read_gguf_header(part)
        assert header.path == str(split[0]), "an engine is given the first"
        assert (header.parameters, header.context) == (whole.parameters, whole.context)
        assert header.file_bytes == sum(each.stat().st_size for each in split)
        assert gguf_parts(part) == split
        assert weights_of(str(part)).bytes == header.file_bytes


def test_a_missing_part_is_named(split: list[Path]) -> None:
    split[2].unlink()
    for part in split[:2]:
        with pytest.raises(OperatorFault, match=r"m-00003-of-00003\.gguf: No such file") as caught:
            read_gguf_header(part)
        assert "finish the download" in (caught.value.hint or "")
    assert weights_fault(str(split[0])) is not None


def test_a_cut_part_is_named(split: list[Path]) -> None:
    os.truncate(split[1], split[1].stat().st_size - 1000)
    with pytest.raises(OperatorFault, match=r"m-00002-of-00003\.gguf is truncated: 1,000 bytes"):
        read_gguf_header(split[0])


def test_every_part_changes_the_digest(split: list[Path]) -> None:
    for part in split:
        before = weights_of(str(split[0])).mark
        part.touch()
        assert weights_of(str(split[0])).mark != before


def test_a_restored_time_is_noticed(split: list[Path]) -> None:
    was = split[0].stat()
    before = weights_of(str(split[0])).mark
    with split[0].open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"tampered")
    os.utime(split[0], ns=(was.st_atime_ns, was.st_mtime_ns))
    now = split[0].stat()
    assert (now.st_size, now.st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    assert weights_of(str(split[0])).mark != before


FILES = ("config.json", "tokenizer.json", "model-1.safetensors", "model-2.safetensors", "lora/adapter.bin")


@pytest.mark.parametrize("name", FILES)
def test_each_file_of_a_directory_counts(tmp_path: Path, name: str) -> None:
    for each in (
        "config.json",
        "tokenizer.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "lora/adapter.bin",
    ):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_bytes(b"1234")
    before = weights_of(str(tmp_path))
    assert before.bytes == 8, "of the weights alone"
    (tmp_path / name).write_bytes(b"4321")
    assert weights_of(str(tmp_path)).mark != before.mark


def test_a_link_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"1234")
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").symlink_to(blob)
    before = weights_of(str(model))
    assert before.bytes == 4
    blob.write_bytes(b"43210")
    assert weights_of(str(model)).bytes == 5 and weights_of(str(model)).mark != before.mark


def test_an_adapter_in_the_arguments_counts(tmp_path: Path) -> None:
    model, adapter = tmp_path / "m.gguf", tmp_path / "lora.gguf"
    model.write_bytes(b"model")
    adapter.write_bytes(b"adapter")
    words = ("--lora-modules", f"mine={adapter}", "--port", "8000")
    before = weights_of(str(model), words=words)
    assert before.bytes == 5
    adapter.write_bytes(b"another")
    assert weights_of(str(model), words=words).mark != before.mark


def test_a_hub_model_is_the_one_main_refers_to(tmp_path: Path) -> None:
    home = tmp_path / "models--org--m"
    for commit, size in {"aaa": 10, "bbb": 20}.items():
        (home / "snapshots" / commit).mkdir(parents=True)
        (home / "snapshots" / commit / "model.safetensors").write_bytes(b"x" * size)
    os.utime(home / "snapshots" / "aaa", ns=(1, 1))
    assert weights_of("org/m", cache=str(tmp_path)).bytes == 20, "without a reference the newest"
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("aaa")
    assert weights_of("org/m", cache=str(tmp_path)).bytes == 10
