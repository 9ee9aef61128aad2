"""Whether a model's files are whole: what a broken download looks like; a sound one is left alone."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poorwill.engines.weights.integrity import weights_fault


def safetensors(path: Path, data: int = 1000) -> Path:
    tensor = {"dtype": "U8", "shape": [data], "data_offsets": [0, data]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": tensor}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(data))
    return path


def test_complete_weights_have_no_fault(tmp_path: Path) -> None:
    assert weights_fault(str(safetensors(tmp_path / "model.safetensors"))) is None
    assert weights_fault(str(tmp_path)) is None
    (tmp_path / "notes.bin").write_bytes(b"anything")
    assert weights_fault(str(tmp_path / "notes.bin")) is None


def test_a_cut_file_says_what_is_missing(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "model.safetensors", data=5000)
    path.write_bytes(path.read_bytes()[:-1234])
    for asked in (path, tmp_path):
        fault = weights_fault(str(asked))
        assert fault is not None
        assert "1,234 bytes are missing" in fault[0] and str(path) in fault[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cut off within its header"),
        (b"\xff" * 40, "no safetensors file"),
        ((9).to_bytes(8, "little") + b"not json!", "is damaged"),
        ((2).to_bytes(8, "little") + b"[]", "is damaged"),
    ],
)
def test_what_is_no_safetensors_file_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    fault = weights_fault(str(path))
    assert fault is not None and told in fault[0] and fault[1]


def test_files_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    index = {"weight_map": {f"layer.{number}": name for number, name in enumerate(names)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    safetensors(tmp_path / names[0])
    fault = weights_fault(str(tmp_path))
    assert fault is not None
    assert "2 of the 3 files that its index names are missing" in fault[0] and names[1] in fault[0]
    for name in names:
        safetensors(tmp_path / name)
    assert weights_fault(str(tmp_path)) is None
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    fault = weights_fault(str(tmp_path))
    assert fault is not None and "no index" in fault[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=200))
def test_no_file_makes_it_fail(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    assert weights_fault(str(tmp_path / "model.safetensors"))
    weights_fault(str(tmp_path))
