"""Models by name: downloaded once, checked, continued where they ended; against a fake of the hub's API."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poorwill.compose.hub.fetch import Fetcher
from poorwill.compose.hub.on_disk import path_of
from poorwill.config.values.hub_names import HubName, hub_name
from poorwill.core.errors import OperatorFault

from .fake_hub import COMMIT, FakeHub, serving

pytest.importorskip("huggingface_hub")
MIB = 2**20
BIG = os.urandom(MIB) * 25
"""huggingface_hub writes ten MiB at a time."""
Env = Callable[[FakeHub], dict[str, str]]


@pytest.fixture
def env(tmp_path: Path) -> Env:
    def variables(hub: FakeHub) -> dict[str, str]:
        known = {"HF_ENDPOINT": hub.url, "HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "cache")}
        return {**known, "PATH": os.defpath}

    return variables


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    files = {
        "README.md": b"hello",
        "config.json": b"{}",
        "small-Q4_K_M.gguf": BIG,
        "small-Q8_0.gguf": b"GGUF8",
        "split/small-BF16-00001-of-00002.gguf": b"GGUF1",
        "split/small-BF16-00002-of-00002.gguf": b"GGUF2",
    }
    with serving(FakeHub(files=files)) as served:
        yield served


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def names(path: str) -> set[str]:
    return set(os.listdir(path))


def name(text: str) -> HubName:
    found = hub_name(text)
    assert found is not None
    return found


async def fetched(text: str, env: dict[str, str], engine: str = "llama.cpp") -> str:
    return await Fetcher(env=env).fetch(name(text), engine)


async def test_the_usual_quantisation_is_had(hub: FakeHub, env: Env) -> None:
    told: list[tuple[int, int]] = []
    variables = env(hub)
    assert path_of(name("hf:org/name"), "llama.cpp", variables) is None
    path = await Fetcher(env=variables).fetch(
        name("hf:org/name"), "llama.cpp", progress=lambda done, need: told.append((done, need))
    )
    assert content(path) == BIG
    assert path.endswith(f"snapshots/{COMMIT}/small-Q4_K_M.gguf")
    assert told[-1] == (len(BIG), len(BIG))
    assert path_of(name("hf:org/name"), "llama.cpp", variables) == path
    before = hub.sent
    assert await fetched("hf:org/name:q4_k_m", variables) == path
    assert hub.sent == before


async def test_parts_of_a_split_model_are_one(hub: FakeHub, env: Env) -> None:
    variables = env(hub)
    path = Path(await fetched("hf:org/name:BF16@main", variables))
    assert path.name == "small-BF16-00001-of-00002.gguf"
    second = path.with_name("small-BF16-00002-of-00002.gguf")
    assert second.read_bytes() == b"GGUF2"
    second.unlink()
    assert path_of(name("hf:org/name:BF16"), "llama.cpp", variables) is None


async def test_shards_and_configuration_are_one(env: Env) -> None:
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
        ).encode(),
        "model-1.safetensors": b"one",
        "model-2.safetensors": b"two",
        "pytorch_model.bin": b"the same again",
        "original/consolidated.00.pth": b"and again",
    }
    with serving(FakeHub(files=files)) as hub:
        variables = env(hub)
        path = Path(await fetched("hf:org/name", variables, "vllm"))
        assert names(str(path)) == set(files) - {
            "pytorch_model.bin",
            "original/consolidated.00.pth",
        }
        assert path_of(name("hf:org/name"), "vllm", variables) == str(path)
        (path / "model-2.safetensors").unlink()
        assert path_of(name("hf:org/name"), "vllm", variables) is None


async def test_a_cut_connection_is_continued(hub: FakeHub, env: Env) -> None:
    hub.cut_after, hub.cuts = 12 * MIB, 2
    path = await fetched("hf:org/name:small-Q4_K_M.gguf", env(hub))
    assert content(path) == BIG
    assert hub.sent <= len(BIG) + 20 * MIB and len(hub.ranges) == 2


async def test_an_ended_download_goes_on_later(hub: FakeHub, env: Env) -> None:
    hub.cut_after, hub.cuts, hub.stall = 21 * MIB, 1, True
    far = asyncio.Event()

    def progress(done: int, need: int) -> None:
        if done >= 20 * MIB:
            far.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(
            Fetcher(env=env(hub)).fetch(name("hf:org/name"), "llama.cpp", progress=progress)
        )
        await far.wait()
        first.cancel()
    assert first.cancelled()
    assert path_of(name("hf:org/name"), "llama.cpp", env(hub)) is None
    path = await fetched("hf:org/name", env(hub))
    assert content(path) == BIG
    (begun,) = hub.ranges
    assert int(begun.removeprefix("bytes=").partition("-")[0]) >= 10 * MIB


async def test_a_damaged_file_is_fetched_again(hub: FakeHub, env: Env) -> None:
    hub.lies = 1
    path = await fetched("hf:org/name", env(hub))
    assert content(path) == BIG


@pytest.mark.nightly
async def test_what_stays_damaged_is_refused(hub: FakeHub, env: Env) -> None:
    hub.lies = 10
    with pytest.raises(OperatorFault, match="checksum"):
        await fetched("hf:org/name", env(hub))
    assert path_of(name("hf:org/name"), "llama.cpp", env(hub)) is None


async def test_a_gated_model_needs_the_token(hub: FakeHub, env: Env) -> None:
    hub.token = "hf_secret"
    with pytest.raises(OperatorFault) as fault:
        await fetched("hf:org/name:Q8_0", env(hub))
    assert "HF_TOKEN" in str(fault.value.hint)
    path = await fetched("hf:org/name:Q8_0", {**env(hub), "HF_TOKEN": "hf_secret"})
    assert content(path) == b"GGUF8"


async def test_the_disk_is_looked_at_first(hub: FakeHub, env: Env) -> None:
    hub.claims = 2**60
    with pytest.raises(OperatorFault) as fault:
        await fetched("hf:org/name", env(hub))
    assert "are to be downloaded and" in fault.value.message and "HF_HUB_CACHE" in str(fault.value.hint)
    assert hub.sent == 0


async def test_a_hub_that_does_not_answer_is_named(hub: FakeHub, env: Env) -> None:
    nowhere = "http://127.0.0.1:9"
    with pytest.raises(OperatorFault) as fault:
        await fetched("hf:org/name", {**env(hub), "HF_ENDPOINT": nowhere})
    assert f"no answer from {nowhere}" in fault.value.message and "HF_ENDPOINT" in str(fault.value.hint)


@pytest.mark.parametrize(
    ("text", "said"), [("hf:org/other", "no org/other"), ("hf:org/name:Q2_K", "has no Q2_K")]
)
async def test_what_is_not_there_is_said(hub: FakeHub, env: Env, text: str, said: str) -> None:
    with pytest.raises(OperatorFault) as fault:
        await fetched(text, env(hub))
    assert said in fault.value.message and fault.value.hint


async def test_offline_nothing_is_asked(hub: FakeHub, env: Env) -> None:
    with pytest.raises(OperatorFault, match="offline"):
        await fetched("hf:org/name", {**env(hub), "HF_HUB_OFFLINE": "1"})
    assert hub.asked == []
