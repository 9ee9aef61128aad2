"""Names of the hub, the choice of files, and other programs' caches."""

import hashlib
import json
from pathlib import Path

import pytest

from poorwill.compose.hub.on_disk import models_on_disk, path_of
from poorwill.config import load_fleet
from poorwill.config.values.hub_names import HubName, hub_name
from poorwill.core.problems import ConfigFault
from poorwill.remote.hub.choose import choose_all, choose_gguf, whole


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf:org/name", HubName(repo="org/name")),
        ("hf:org/n.a-me:Q4_K_M", HubName(repo="org/n.a-me", which="Q4_K_M")),
        (
            "hf:org/name:sub/f-00001-of-00002.gguf@v1.0",
            HubName(repo="org/name", which="sub/f-00001-of-00002.gguf", revision="v1.0"),
        ),
        ("hf:org/name@refs/pr/1", HubName(repo="org/name", revision="refs/pr/1")),
        ("hf:name", None),
        ("hf:org/name:", None),
        ("hf:org/name:../../etc/passwd", None),
        ("hf:org/../x", None),
        ("org/name", None),
    ],
)
def test_names(text: str, name: HubName | None) -> None:
    assert hub_name(text) == name
    if name is not None:
        assert str(name) == text


FILES = [
    "README.md",
    "mmproj-F16.gguf",
    "m-Q2_K.gguf",
    "m-Q4_K_M.gguf",
    "m-IQ4_K_M.gguf",
    "BF16/m-BF16-00001-of-00002.gguf",
    "BF16/m-BF16-00002-of-00002.gguf",
]


@pytest.mark.parametrize(
    ("which", "chosen"),
    [
        ("", ["m-Q4_K_M.gguf"]),
        ("q2_k", ["m-Q2_K.gguf"]),
        ("BF16", FILES[5:]),
        (FILES[6], FILES[5:]),
        ("m-Q2_K.gguf", ["m-Q2_K.gguf"]),
        ("Q3", []),
        ("F16", []),
    ],
)
def test_the_choice_of_a_gguf(which: str, chosen: list[str]) -> None:
    assert list(choose_gguf(FILES, which)) == chosen


def test_the_choice_for_a_directory() -> None:
    files = [
        "config.json",
        "model.safetensors",
        "consolidated.safetensors",
        "pytorch_model.bin",
        "onnx/m.onnx",
    ]
    assert list(choose_all(files)) == ["config.json", "model.safetensors"]
    assert list(choose_all(["pytorch_model.bin", "config.json", "m.gguf"])) == [
        "config.json",
        "pytorch_model.bin",
    ]
    assert not whole(["a-00001-of-00002.safetensors"])


def test_caches_of_llamacpp_and_ollama_are_found(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    llama = tmp_path / ".cache/llama.cpp"
    llama.mkdir(parents=True)
    (llama / "org_name_m-Q4_K_M.gguf").write_bytes(b"GGUF")
    (llama / "org_name_m-Q8_0-00001-of-00002.gguf").write_bytes(b"GGUF")
    digest = hashlib.sha256(b"x").hexdigest()
    manifest = tmp_path / ".ollama/models/manifests/hf.co/org/other/Q4_K_M"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    blob = tmp_path / f".ollama/models/blobs/sha256-{digest}"
    blob.parent.mkdir()
    blob.write_bytes(b"GGUF")

    def found(text: str) -> str | None:
        name = hub_name(text)
        assert name
        return path_of(name, "llama.cpp", env)

    assert found("hf:org/name:Q4_K_M") == str(llama / "org_name_m-Q4_K_M.gguf")
    assert found("hf:org/name:Q8_0") is None, "half of a model is none"
    assert found("hf:org/other:q4_k_m") == str(blob)
    assert found("hf:org/name:Q4_K_M@v2") is None
    caches = {one.name: one.cache for one in models_on_disk((), env)}
    assert caches["hf.co/org/other:Q4_K_M"] == "ollama"
    assert caches["org_name_m-Q4_K_M.gguf"] == "llama.cpp"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('path = "hf:org"', "names no model of the hub"),
        ('path = "hf:org/name"\nladder = ["suspended", "cold"]', "not a model by name"),
    ],
)
def test_check_says_what_is_no_name(tmp_path: Path, keys: str, said: str) -> None:
    (tmp_path / "fleet.toml").write_text(f"[models.a]\n{keys}\n")
    with pytest.raises(ConfigFault) as fault:
        load_fleet(str(tmp_path / "fleet.toml"), {}, machine=False)
    assert any(said in problem.what for problem in fault.value.problems)
