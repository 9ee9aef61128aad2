"""Engines that can sleep, for the driver tests: llama.cpp for real, the others as fakes with their traps."""

import http.client
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from poorwill.core.launch import Launch, Running
from poorwill.engines.sleeping import engine_sleeps
from poorwill.engines.weights.gguf_model import make_model
from poorwill.tiers.asleep.driver import AsleepDriver
from poorwill.tiers.proof import free_port

from .conftest import Fleet

IDLE_S = 1
"""How soon the real llama.cpp falls asleep; it counts in whole seconds."""

Program = Callable[[int, str], tuple[str, tuple[str, ...], dict[str, str]]]


def _vllm(port: int, model: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    words = ("--served-model-name", "tiny", "--port", str(port), "--enable-sleep-mode")
    return "vllm", words, {"VLLM_SERVER_DEV_MODE": "1"}


def _sglang(port: int, model: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    words = ("--model-path", model, "--port", str(port), "--enable-memory-saver")
    return "sglang", words, {}


def _sglang_backup(port: int, model: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    program, words, env = _sglang(port, model)
    return program, (*words, "--enable-weights-cpu-backup"), env


def _ollama(port: int, model: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    return "ollama", ("--model", "tiny", "--port", str(port)), {}


def _llamacpp(port: int, model: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    words = ("--model", model, "--port", str(port), "--context", "256", "--parallel", "1")
    return "llamacpp_server", (*words, "--sleep-idle-seconds", str(IDLE_S)), {}


PROGRAMS: dict[str, Program] = {
    "vllm": _vllm,
    "vllm-2": _vllm,
    "sglang": _sglang,
    "sglang with-backup": _sglang_backup,
    "ollama": _ollama,
    "llama.cpp": _llamacpp,
}
FAKE_ENGINES = Path(__file__).parents[1] / "sleeping_engines"
FAKES = tuple(kind for kind in PROGRAMS if kind != "llama.cpp")


def fake_engine(name: str) -> str:
    """The program that has an engine's sleep routes and traps, but no model."""
    return str(FAKE_ENGINES / f"{name}.py")


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny.gguf", size="5m")


def launch_of(fleet: Fleet, kind: str, model: Path, *switches: str, replica: str = "tiny") -> Launch:
    port = free_port()
    program, words, env = PROGRAMS[kind](port, str(model))
    engine = (
        ("-m", f"poorwill.engines.programs.{program}") if kind == "llama.cpp" else (fake_engine(program),)
    )
    return replace(
        fleet.launch(replica=replica, port=port),
        argv=(sys.executable, "-P", "-u", *engine, *words, *switches),
        env=env,
        sleep=kind.partition(" ")[0],
        engine_model="tiny",
    )


def new_asleep(fleet: Fleet) -> AsleepDriver:
    return AsleepDriver(
        processes=fleet.processes,
        sleeps=engine_sleeps(),
        clock=fleet.clock,
        log=fleet.log,
        park_limit_s=20.0,
        wake_limit_s=20.0,
    )


def complete(running: Running, *, tokens: int = 8, timeout_s: float = 20.0) -> str:
    """The engine's greedy text."""
    connection = http.client.HTTPConnection(running.host, running.port, timeout=timeout_s)
    body = {"model": "tiny", "prompt": "A bird", "max_tokens": tokens, "temperature": 0}
    headers = {"content-type": "application/json", "connection": "close"}
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read())
        return str(answer["choices"][0]["text"])
    finally:
        connection.close()
