"""What `make_engine` builds for each kind: launch, digest, port, environment, and clear refusals."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from poorwill.compose.clock import SystemClock
from poorwill.core.errors import OperatorFault
from poorwill.core.problems import ConfigFault
from poorwill.core.settings import EngineSettings, ModelSettings, OptionKind, ReplicaSettings
from poorwill.core.words import ModelName, Phase, ReplicaId, Tier
from poorwill.engines.kinds import ENGINE_KINDS, make_engine
from poorwill.engines.measured.expectation import expected_rate, expected_wakes, known_start
from poorwill.engines.measured.storage_speed import (
    StorageSpeed,
    file_system,
    keep_speed,
    kept_speed,
    measure_storage,
)
from poorwill.engines.programs.llamacpp_server import arguments as llamacpp_arguments
from poorwill.engines.programs.toy_server import arguments as toy_arguments
from poorwill.engines.recipe import flags
from poorwill.engines.recipes import llamacpp, toy
from poorwill.policies.coldstart.prediction import HostPace, total

REPLICA = ReplicaId("m-0")


def settings(kind: str, **engine: object) -> ModelSettings:
    name = ModelName("m")
    return ModelSettings(
        name=name,
        engine=EngineSettings(kind=kind, **engine),
        replica=ReplicaSettings(model=name),
    )


def engine(directory: Path, model: ModelSettings, env: dict[str, str] | None = None):
    return make_engine(model, directory=str(directory), clock=SystemClock.started(), env=env or {})


@pytest.fixture
def program(tmp_path) -> str:
    """A program that can be found, so that a launch can be made without the engine."""
    path = tmp_path / "bin" / "server"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def launched(directory, model, env=None):
    return engine(directory, model, env).launch(replica=REPLICA, generation=1)


def test_a_replica_keeps_its_port(tmp_path):
    first = launched(tmp_path, settings("toy"))
    again = engine(tmp_path, settings("toy")).launch(replica=REPLICA, generation=7)
    other = engine(tmp_path, settings("toy")).launch(replica=ReplicaId("m-1"), generation=1)
    assert first.port == again.port != other.port
    assert 20_000 <= first.port < 32_000


def test_a_launch_inherits_listed_variables_only(tmp_path):
    env = {
        "PATH": "/usr/bin",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "HF_TOKEN": "s3cret",
        "HOME": "/h",
    }
    launch = launched(tmp_path, settings("toy", env={"EXTRA": "1"}), env)
    assert launch.env == {"PATH": "/usr/bin", "LANG": "C.UTF-8", "HOME": "/h", "EXTRA": "1"}


def test_the_digest_follows_weights_and_flags(tmp_path, tiny_model):
    model = settings("llama.cpp", path=str(tiny_model))
    first = launched(tmp_path, model)
    assert launched(tmp_path, model).digest == first.digest
    more = replace(model, engine=replace(model.engine, options={"parallel": 8}))
    assert launched(tmp_path, more).digest != first.digest
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny_model.read_bytes())
    same_path = settings("llama.cpp", path=str(copy))
    before = launched(tmp_path, same_path).digest
    os.utime(copy, ns=(1, 1))
    assert launched(tmp_path, same_path).digest != before


def test_flags_and_caches_of_each_engine(tmp_path, program):
    vllm = launched(tmp_path, settings("vllm", path="/m", command=(program, "serve")))
    assert vllm.argv[:3] == (program, "serve", "/m")
    assert ("--served-model-name", "m") == vllm.argv[-2:]
    assert vllm.env["VLLM_CACHE_ROOT"] == str(tmp_path / "cache" / "vllm" / "vllm")
    assert vllm.sleep is None
    sglang = launched(
        tmp_path,
        settings("sglang", path="/m", command=(program,), options={"sleep": True, "tp": 2}),
    )
    assert "--enable-memory-saver" in sglang.argv and "--enable-metrics" in sglang.argv
    assert sglang.argv[-2:] == ("--tp", "2")
    assert sglang.sleep == "sglang"
    ollama = launched(tmp_path, settings("ollama", command=(program,), engine_model="q:1b"))
    assert ollama.env["OLLAMA_HOST"] == f"127.0.0.1:{ollama.port}"
    assert (ollama.engine_model, ollama.ready_path) == ("q:1b", "/api/version")
    assert "OLLAMA_NUM_PARALLEL" not in ollama.env, "unlimited: as Ollama has it"
    at_once = replace(
        settings("ollama", command=(program,), engine_model="q:1b"),
        replica=ReplicaSettings(model=ModelName("m"), max_concurrency=3),
    )
    assert launched(tmp_path, at_once).env["OLLAMA_NUM_PARALLEL"] == "3"
    transformers = launched(tmp_path, settings("transformers", path="/m", command=(program,)))
    assert transformers.engine_model == "/m"


def test_transformers_serves_a_local_model(tmp_path, program):
    """It answers only to the path it was given, so the name has to be a path where it runs."""
    model_dir = tmp_path / "weights"
    model_dir.mkdir()
    launch = launched(tmp_path, settings("transformers", path=str(model_dir), command=(program,)))
    assert launch.argv[1] == launch.engine_model == "m"
    assert os.path.samefile(Path(launch.cwd) / "m", model_dir)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    again = launched(tmp_path, settings("transformers", path=str(moved), command=(program,)))
    assert os.path.samefile(Path(again.cwd) / "m", moved)


def test_a_command_is_filled_in(tmp_path, program):
    model = settings(
        "command",
        path="/m.gguf",
        command=(program, "-m", "{path}", "--port={port}", "--at", "{host}"),
    )
    launch = launched(tmp_path, model)
    assert launch.argv == (program, "-m", "/m.gguf", f"--port={launch.port}", "--at", "127.0.0.1")


def test_hub_weights_are_found_in_the_cache(tmp_path, program):
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(bytes(1000))
    (snapshot / "config.json").write_text("{}")
    model = settings("vllm", path="org/name", command=(program,))
    launch = launched(tmp_path, model, {"HF_HUB_CACHE": str(tmp_path / "hub")})
    assert launch.weights_path == str(snapshot)


@pytest.mark.parametrize(
    ("kind", "engine_settings", "message"),
    [
        ("llama.cpp", {"path": "/nowhere.gguf"}, "No such file"),
        ("command", {}, "needs a command"),
        ("command", {"command": ("no-such-program-here",)}, "no program 'no-such-program-here'"),
        ("vllm", {"command": ("sh",)}, "needs a path"),
        ("ollama", {"command": ("sh",)}, "needs engine_model"),
    ],
)
def test_an_impossible_launch_has_a_hint(tmp_path, kind, engine_settings, message):
    with pytest.raises(OperatorFault, match=message) as caught:
        launched(tmp_path, settings(kind, **engine_settings), {"PATH": "/bin:/usr/bin"})
    assert caught.value.hint


def test_unknown_kinds_and_options_are_refused(tmp_path):
    with pytest.raises(ConfigFault) as caught:
        engine(tmp_path, settings("llama.cpp", options={"paralel": 4, "colour": 1}))
    near, far = map(str, caught.value.problems)
    assert "m.engine.options.paralel" in near and "did you mean 'parallel'?" in near
    assert "m.engine.options.colour" in far and "known: parallel" in far
    with pytest.raises(ConfigFault, match="1 problem"):
        engine(tmp_path, settings("lama.cpp"))
    assert set(ENGINE_KINDS) >= {"llama.cpp", "command", "toy", "vllm", "sglang", "ollama"}


@pytest.mark.parametrize(
    ("options", "parse", "needed"),
    [
        (toy.OPTIONS, toy_arguments, ["--port", "1"]),
        (llamacpp.OPTIONS, llamacpp_arguments, ["--port", "1", "--model", "m"]),
    ],
)
def test_programs_accept_every_known_option(options, parse, needed):
    samples = {OptionKind.WHOLE: 3, OptionKind.NUMBER: 1.5, OptionKind.FLAG: True}
    given = {name: kind[-1] if isinstance(kind, tuple) else samples[kind] for name, kind in options.items()}
    parsed = vars(parse([*needed, *flags(given)]))
    assert {name: parsed[name] for name in given} == given


def test_a_first_wake_is_predicted(tmp_path, tiny_model):
    model = settings("llama.cpp", path=str(tiny_model))
    wakes = expected_wakes(model, directory=str(tmp_path), env={})
    expected = {tier: total(phases).expected_us for tier, phases in wakes.items()}
    assert 0 < expected[Tier.FROZEN] < expected[Tier.COLD] < 5_000_000
    assert Tier.HIBERNATED not in expected
    slow = expected_wakes(model, directory=str(tmp_path), env={}, host=HostPace(factor=4.0))
    assert total(slow[Tier.COLD]).expected_us > expected[Tier.COLD], "the host's own factor counts"
    assert expected_wakes(settings("vllm", path="org/none"), directory=str(tmp_path), env={}) == {}


def hub_model(directory: Path, config: object, size: int = 32_000_000) -> Path:
    path = directory / "weights"
    path.mkdir()
    with (path / "model.safetensors").open("wb") as file:
        file.truncate(size)
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("config", "bits", "layers"),
    [
        ({"num_hidden_layers": 36, "torch_dtype": "bfloat16"}, 16, 36),
        ({"num_hidden_layers": 94, "quantization_config": {"quant_method": "fp8"}}, 8, 94),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, 4, None),
        ({"text_config": {"num_hidden_layers": 40, "dtype": "float32"}}, 32, 40),
        ([], 16, None),
    ],
)
def test_size_and_layers_come_from_config_json(tmp_path, config, bits, layers):
    model = settings("vllm", path=str(hub_model(tmp_path, config)))
    start = known_start(model, directory=str(tmp_path), env={})
    assert start is not None
    assert start.parameters == 32_000_000 * 8 / bits
    assert start.layers == layers and start.weight_bytes == 32_000_000


def test_experts_come_from_config_and_options(tmp_path):
    config = {"num_experts": 128, "num_experts_per_tok": 8, "quantization_config": {"bits": 8}}
    path = str(hub_model(tmp_path, config))
    options = {
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
        "enable_expert_parallel": True,
    }
    spread = settings("vllm", path=path, options={**options, "load_format": "runai_streamer_sharded"})
    start = known_start(spread, directory=str(tmp_path), env={})
    assert start is not None and start.active is not None
    assert 0.08 < start.active / start.parameters < 0.15, "as in Qwen3-30B-A3B: 3.3 of 30.5"
    assert (start.ranks, start.stages, start.experts_apart) == (8, 2, True)
    assert start.loader == "runai-sharded"
    plain = known_start(settings("vllm", path=path), directory=str(tmp_path), env={})
    assert plain is not None and (plain.ranks, plain.stages, plain.experts_apart) == (1, 1, False)


def test_a_later_start_finds_its_compile_cache(tmp_path, program):
    model = settings("vllm", path=str(hub_model(tmp_path, {})))

    def phases(**options: object) -> set[Phase]:
        eager = replace(model, engine=replace(model.engine, options=options))
        found = expected_wakes(eager, directory=str(tmp_path), env={})[Tier.COLD]
        return {estimate.phase for estimate in found}

    assert Phase.COMPILE_MISS in phases() and Phase.COMPILE_HIT not in phases()
    started = replace(model, engine=replace(model.engine, command=(program,)))
    launch = launched(tmp_path, started)
    kept = Path(launch.env["VLLM_CACHE_ROOT"], "torch_compile_cache", "0a1b2c")
    kept.mkdir(parents=True)
    assert Phase.COMPILE_HIT in phases() and Phase.COMPILE_MISS not in phases()
    assert not phases(enforce_eager=True) & {Phase.COMPILE_HIT, Phase.COMPILE_MISS, Phase.GRAPHS}


def test_storage_is_measured_once_and_kept(tmp_path, tiny_model):
    assert kept_speed(str(tmp_path)) is None
    assert expected_rate(settings("llama.cpp"), directory=str(tmp_path)) is None
    speed = measure_storage(str(tiny_model), at_us=7)
    assert isinstance(speed, StorageSpeed)
    assert speed.bytes_s > 1e6
    assert speed.took_s >= 0.25
    keep_speed(str(tmp_path), speed)
    assert kept_speed(str(tmp_path)) == speed
    rate = expected_rate(settings("llama.cpp"), directory=str(tmp_path))
    assert rate is not None and 0 < rate <= speed.bytes_s


def test_a_file_too_small_to_tell_is_not_measured(tmp_path):
    small = tmp_path / "small"
    small.write_bytes(b"x" * 100)
    assert measure_storage(str(small), at_us=0) is None
    assert measure_storage(str(tmp_path / "none"), at_us=0) is None


def test_the_file_system_of_a_path(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "40 21 0:30 / /mnt/my\\040models rw - nfs4 host:/x rw\n"
        "41 21 0:31 / /mnt/bucket rw - fuse.s3 s3 rw\n"
        "42 41 0:32 / /mnt/bucket rw - tmpfs tmpfs rw\n"
        "damaged line\n"
    )

    def of(path: str) -> str:
        return file_system(path, mounts=str(table))

    assert of("/mnt/my models/w.gguf") == "nfs4"
    assert of("/mnt/my modelsX") == "ext4"
    assert of("/mnt/bucket/w") == "tmpfs", "what was mounted last hides the rest"
    assert file_system("/x", mounts=str(tmp_path / "none")) == ""
    remote = [
        StorageSpeed(
            path="", bytes_s=1, read_bytes=1, took_s=1, direct=True, at_us=0, file_system=kind
        ).remote
        for kind in ("nfs4", "fuse.s3", "ext4", "")
    ]
    assert remote == [True, True, False, False]
