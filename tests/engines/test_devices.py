"""Engines see their devices alone, and vLLM uses them as far as nobody said otherwise by hand."""

from pathlib import Path

import pytest

from poorwill.compose.clock import SystemClock
from poorwill.core.launch import Launch, Place
from poorwill.core.settings import EngineSettings, ModelSettings, ReplicaSettings
from poorwill.core.words import ModelName, ReplicaId
from poorwill.engines.kinds import make_engine

GIB = 2**30
WHOLE = Place(devices=("GPU-a", "GPU-b"), total_bytes=80 * GIB)
SHARE = Place(devices=("GPU-a",), share_bytes=20 * GIB, total_bytes=80 * GIB)


def launch(tmp_path: Path, place: Place | None, *, kind: str = "vllm", **engine: object) -> Launch:
    program = tmp_path / "vllm"
    if not program.exists():
        program.write_text("#!/bin/sh\n")
        program.chmod(0o700)
    settings = ModelSettings(
        name=ModelName("m"),
        engine=EngineSettings(kind=kind, path="org/m", **engine),  # type: ignore[arg-type]
        replica=ReplicaSettings(model=ModelName("m")),
    )
    env = {"PATH": f"{tmp_path}:/bin", "CUDA_VISIBLE_DEVICES": "7"}
    served = make_engine(settings, directory=str(tmp_path), clock=SystemClock.started(), env=env)
    return served.launch(replica=ReplicaId("m-0"), generation=1, place=place)


@pytest.mark.parametrize("kind", ["vllm", "toy"])
def test_an_engine_sees_its_devices_alone(tmp_path: Path, kind: str):
    seen = {
        place: launch(tmp_path, place, kind=kind).env.get("CUDA_VISIBLE_DEVICES")
        for place in (None, Place(), SHARE, WHOLE)
    }
    assert seen == {None: "7", Place(): "", SHARE: "GPU-a", WHOLE: "GPU-a,GPU-b"}


def test_devices_without_a_uuid_are_counted_as_nvml_does(tmp_path: Path):
    env = launch(tmp_path, Place(devices=("1",), total_bytes=GIB)).env
    assert (env["CUDA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"]) == ("1", "PCI_BUS_ID")
    assert "CUDA_DEVICE_ORDER" not in launch(tmp_path, WHOLE).env


def test_vllm_uses_all_of_its_devices(tmp_path: Path):
    argv = launch(tmp_path, WHOLE).argv
    assert argv[argv.index("--tensor-parallel-size") + 1] == "2"
    assert "--gpu-memory-utilization" not in argv, "they are its own"


def test_vllm_serves_adapters_by_name(tmp_path: Path):
    argv = launch(tmp_path, None, adapters={"sql": "/loras/sql", "law": "/loras/law"}).argv
    at = argv.index("--lora-modules")
    assert argv[at - 1] == "--enable-lora"
    assert argv[at + 1 : at + 3] == ("sql=/loras/sql", "law=/loras/law")


def test_vllm_takes_its_share_of_a_device(tmp_path: Path):
    argv = launch(tmp_path, SHARE).argv
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.25"
    assert "--tensor-parallel-size" not in argv
    third = Place(devices=("GPU-a",), share_bytes=GIB, total_bytes=3 * GIB)
    argv = launch(tmp_path, third).argv
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.3333", "never more than its share"


@pytest.mark.parametrize(
    ("place", "engine", "flag"),
    [
        (WHOLE, {"options": {"tensor_parallel_size": 1}}, "--tensor-parallel-size"),
        (WHOLE, {"args": ("-tp", "2")}, "--tensor-parallel-size"),
        (WHOLE, {"args": ("--pipeline-parallel-size=2",)}, "--tensor-parallel-size"),
        (SHARE, {"options": {"gpu_memory_utilization": 0.5}}, "--gpu-memory-utilization"),
        (SHARE, {"args": ("--kv-cache-memory-bytes", "1G")}, "--gpu-memory-utilization"),
    ],
)
def test_what_is_set_by_hand_stays(tmp_path: Path, place: Place, engine: dict[str, object], flag: str):
    argv = launch(tmp_path, place, **engine).argv
    assert argv.count(flag) == (1 if flag.strip("-").replace("-", "_") in engine.get("options", {}) else 0)


def test_another_place_is_another_engine(tmp_path: Path):
    assert launch(tmp_path, WHOLE).identity() == launch(tmp_path, WHOLE).identity()
    assert launch(tmp_path, WHOLE).identity() != launch(tmp_path, SHARE).identity()
