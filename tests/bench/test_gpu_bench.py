"""bench/gpu without a GPU: what it writes and computes, how it refuses, and a whole run over a fake."""

# The test run is its own edge: where CRIU is, only the environment knows.
# ruff: noqa: TID251

import asyncio
import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from poorwill.tiers.frozen.criu import find_criu

BENCH = Path(__file__).parents[2] / "bench" / "gpu"
FAKE = Path(__file__).with_name("fake_gpu")
RUN = BENCH / "run.py"


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    spec = importlib.util.spec_from_file_location(f"bench_gpu_{name}", BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUN), *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("gigabytes", [0.5, 1, 2, 8, 16, 40, 100])
def test_models_of_any_size(gigabytes: float, monkeypatch: pytest.MonkeyPatch):
    size = loaded("random_llama", monkeypatch).size_for(gigabytes)
    assert size.bytes == pytest.approx(gigabytes * 1e9, rel=0.15)
    assert size.hidden % 128 == 0 and size.heads % size.kv_heads == 0


def test_weights_are_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    llama = loaded("random_llama", monkeypatch)
    size = llama.Size(256, 2)
    llama.write_weights(tmp_path / "w", size, seed=0)
    data = (tmp_path / "w").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    body = data[8 + length :]
    at = 0
    for tensor in header.values():
        begin, end = tensor["data_offsets"]
        assert begin == at and end - begin == 2 * int(np.prod(tensor["shape"]))
        at = end
    assert at == len(body) == size.bytes
    # bfloat16 is the upper half of a float32.
    halves = np.frombuffer(body, dtype=np.uint16).astype(np.uint32) << 16
    values = halves.view(np.float32)
    assert np.isfinite(values).all() and 0.001 < values.std() < 1


def test_table_of_median_wakes(
    monkeypatch: pytest.MonkeyPatch,
):
    bench = loaded("run", monkeypatch)
    rounds = [
        bench.Round(
            park_s=park_s,
            wake_s=wake_s,
            image_bytes=4_000_000_000,
            gpu_bytes=2_000_000_000,
            read_s=1.0,
            phases={},
        )
        for park_s, wake_s in ((3.0, 9.0), (5.0, 3.0), (4.0, 6.0))
    ]
    done = bench.Result(engine="vllm", gigabytes=2, way="frozen", rounds=rounds)
    bad = bench.Result(engine="vllm", gigabytes=2, way="asleep", failed="DriverError: no | pipe")
    head, rule, first, second = bench.table([done, bad], {"to_gpu": 2e9}).splitlines()
    assert head.count("|") == rule.count("|") == first.count("|") == second.count("|")
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells == ["vllm", "2", "frozen", "4.00", "6.00", "4.00", "2.00", "1.00", "1.00", "3.00"]
    assert "DriverError: no / pipe" in second


def test_missing_bindings_are_named(tmp_path: Path):
    if importlib.util.find_spec("cuda") is not None:
        pytest.skip("cuda-bindings are installed here")
    ran = run("--directory", str(tmp_path))
    assert ran.returncode == 1
    assert ran.stderr.strip() == "no cuda-bindings here: pip install 'poorwill[cuda]'"
    assert list(tmp_path.iterdir()) == []


def test_help_explains_every_option():
    said = run("--help").stdout
    for word in ("--engine", "--gigabytes", "--ways", "--rounds", "--directory", "--out"):
        assert said.count(word) >= 2
    assert "NVIDIA GPU" in said and "(default: 2 8)" in said


def test_whole_run_over_a_fake_gpu(tmp_path: Path):
    if os.geteuid() != 0 or asyncio.run(find_criu(os.environ)) is None:
        pytest.skip("it drops the page cache and freezes, so it needs root and CRIU")
    out = tmp_path / "out.json"
    words = ("--gigabytes", "0.05", "--rounds", "2", "--directory", str(tmp_path))
    ran = run(*words, "--out", str(out), PYTHONPATH=str(FAKE))
    assert ran.returncode == 0, ran.stderr
    told = json.loads(out.read_text())
    assert told["hardware"]["gpu"] == "no GPU at all" and told["bus_bytes_s"]["to_gpu"] > 0
    assert [each["way"] for each in told["results"]] == ["cold", "frozen"]
    for result in told["results"]:
        assert result["failed"] == "" and len(result["rounds"]) == 2
        for each in result["rounds"]:
            assert each["park_s"] > 0
            assert sum(each["phases"].values()) == pytest.approx(each["wake_s"], abs=0.05)
    frozen = told["results"][1]["rounds"][0]
    assert frozen["image_bytes"] > 50_000_000 and frozen["read_s"] > 0
    assert "| memory | 0.05 | frozen |" in ran.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
