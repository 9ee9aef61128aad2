"""`init --from` and `init --engine`: what they write passes `check` where programs and models are there."""

import json
import stat
from pathlib import Path

import pytest
from tests.conftest import Poorwill

from poorwill.config import load_fleet
from poorwill.engines.weights.gguf_model import make_model

DATA = Path(__file__).parents[1] / "config" / "moving"


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    """An environment with the programs and models that the examples name."""
    (tmp_path / "bin").mkdir()
    for name in ("llama-server", "docker", "whisper-server", "vllm", "sglang", "ollama"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("Qwen3-8B-Q4_K_M.gguf", "My Coder.gguf"):
        make_model(tmp_path / name)
    return {"PATH": str(tmp_path / "bin"), "MODELS": str(tmp_path), "HOME": str(tmp_path)}


async def test_llama_swap_passes_check(poorwill: Poorwill, tmp_path: Path, here: dict[str, str]) -> None:
    ran = await poorwill("init", str(tmp_path), "--from", str(DATA / "llama-swap.yaml"), **here)
    assert (ran.status, ran.err) == (0, "")
    assert "qwen3-8b, coder, gpt-oss" in ran.out and "apiKeys: poorwill keys add" in ran.out
    assert "to mend" not in ran.out and f"poorwill serve {tmp_path}" in ran.out
    checked = await poorwill("check", str(tmp_path), **here)
    assert (checked.status, checked.err) == (0, ""), checked.out
    assert stat.S_IMODE((tmp_path / "fleet.toml").stat().st_mode) == 0o600


async def test_what_is_missing_here_is_told(poorwill: Poorwill, tmp_path: Path) -> None:
    source = str(DATA / "llama-swap.yaml")
    ran = await poorwill("init", str(tmp_path), "--from", source, "--json", MODELS="/none", PATH="/none")
    shown = json.loads(ran.out)
    assert ran.status == 0
    assert shown["models"][:2] == ["qwen3-8b", "coder"]
    assert {"where": "apiKeys", "what": "poorwill keys add"} in shown["left"]
    assert any("no program 'llama-server'" in one["what"] for one in shown["problems"])
    assert all(one["line"] for one in shown["problems"])


async def test_an_engine_that_is_missing_is_told(poorwill: Poorwill, tmp_path: Path) -> None:
    ran = await poorwill("init", str(tmp_path), "--from", "vllm serve Qwen/Qwen3-8B", PATH="/none")
    assert ran.status == 0 and "no program 'vllm'" in ran.out and f"poorwill check {tmp_path}" in ran.out


async def test_a_line_keeps_the_port_of_its_clients(
    poorwill: Poorwill, tmp_path: Path, here: dict[str, str]
) -> None:
    line = "vllm serve Qwen/Qwen3-8B --port 8000 --max-model-len 8192"
    ran = await poorwill("init", str(tmp_path), "--from", line, "--name", "qwen", **here)
    assert ran.status == 0, ran.err
    fleet = load_fleet(str(tmp_path / "fleet.toml"), here)
    assert fleet.gateway.listen.port == 8000
    assert (fleet.models[0].name, fleet.models[0].engine.engine_model) == ("qwen", "Qwen/Qwen3-8B")


async def test_from_ollama_names_blobs(poorwill: Poorwill, tmp_path: Path) -> None:
    digest = "e" * 64
    manifest = tmp_path / "models/manifests/registry.ollama.ai/library/qwen3/0.6b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    (tmp_path / "models/blobs").mkdir()
    blob = make_model(tmp_path / f"models/blobs/sha256-{digest}")
    every = await poorwill(
        "init", str(tmp_path / "a"), "--from", "ollama", OLLAMA_MODELS=f"{tmp_path}/models"
    )
    single = await poorwill("init", str(tmp_path / "b"), "--model", str(blob))
    assert (every.status, single.status) == (0, 0), every.err + single.err
    for directory in ("a", "b"):
        (model,) = load_fleet(str(tmp_path / directory / "fleet.toml"), {}).models
        assert (model.name, model.engine.path) == ("qwen3:0.6b", str(blob))
        assert (await poorwill("check", str(tmp_path / directory))).status == 0


@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers", "ollama"])
async def test_init_for_an_installed_engine(
    poorwill: Poorwill, tmp_path: Path, here: dict[str, str], engine: str
) -> None:
    named = "qwen3:0.6b" if engine == "ollama" else "Qwen/Qwen3-8B"
    ran = await poorwill("init", str(tmp_path), "--engine", engine, "--model", named, **here)
    assert ran.status == 0, ran.err
    (model,) = load_fleet(str(tmp_path / "fleet.toml"), here).models
    assert model.name == ("qwen3:0.6b" if engine == "ollama" else "Qwen3-8B")
    assert model.engine.kind == engine
    checked = await poorwill("check", str(tmp_path), **here)
    assert checked.status == 0 and "will be skipped" not in checked.out, checked.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--engine", "vllm"), "needs --model"),
        (("--from", "ollama", "--model", "x"), "tells engine and model"),
        (("--from", "no-such.yaml"), "no such file"),
    ],
)
async def test_init_says_what_does_not_fit(
    poorwill: Poorwill, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    ran = await poorwill("init", str(tmp_path / "new"), *words, HOME=str(tmp_path))
    assert ran.status == 2
    assert said in ran.err
    assert not (tmp_path / "new").exists()
