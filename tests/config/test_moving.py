"""What other servers are configured with becomes a fleet that loads; what does not is listed."""

import hashlib
import json
import tomllib
from pathlib import Path

import pytest

from poorwill.config import load_fleet
from poorwill.config.moving.carried import Carried, fleet_text, toml
from poorwill.config.moving.source import carry
from poorwill.core.errors import OperatorFault
from poorwill.core.settings import FleetSettings, ModelSettings

DATA = Path(__file__).with_name("moving")
ENV = {"HOME": "/home/me", "MODELS": "/srv/models"}


def loaded(carried: Carried, directory: Path) -> FleetSettings:
    path = directory / "fleet.toml"
    path.write_text(fleet_text(carried))
    return load_fleet(str(path), {}, machine=False)


def one(line: str, directory: Path, *, env: dict[str, str] | None = None) -> tuple[ModelSettings, Carried]:
    carried = carry(line, ENV if env is None else env)
    (model,) = loaded(carried, directory).models
    return model, carried


def left(carried: Carried) -> dict[str, str]:
    return {each.where: each.what for each in carried.everything_left}


def test_llama_swap_as_people_have_it(tmp_path: Path) -> None:
    carried = carry(str(DATA / "llama-swap.yaml"), ENV)
    fleet = loaded(carried, tmp_path)
    models = {str(model.name): model for model in fleet.models}
    assert set(models) == {"qwen3-8b", "coder", "gpt-oss", "vllm-qwen", "speech", "elsewhere"}
    assert models["elsewhere"].away is not None and models["elsewhere"].memory_bytes == 0
    qwen, coder, container = models["qwen3-8b"], models["coder"], models["gpt-oss"]
    flags = ("-c", "16384", "--flash-attn", "on", "--jinja", "-np", "2", "--temp", "0.6")
    front = ("llama-server", "-m", "{path}", "--host", "{host}", "--port", "{port}")
    assert qwen.engine.command == front + flags
    assert qwen.engine.path == "/srv/models/Qwen3-8B-Q4_K_M.gguf"
    assert (qwen.replica.max_concurrency, qwen.replica.wake.budget_us) == (2, 180_000_000)
    assert qwen.policy.idle_us == 600_000_000
    assert qwen.aliases == ("gpt-4o-mini",)
    assert dict(qwen.presets) == {"qwen3-8b:quick": {"chat_template_kwargs": {"enable_thinking": False}}}
    assert coder.engine.path == "/srv/models/My Coder.gguf"
    assert "32768" in coder.engine.command and "secret" not in coder.engine.command
    assert coder.engine.env["GGML_CUDA_ENABLE_UNIFIED_MEMORY"] == "1"
    assert (coder.policy.idle_us, coder.replica.max_concurrency) == (60_000_000, 4)
    assert coder.engine.ready_path == "/v1/models"
    assert container.engine.command[:6] == (
        *("docker", "run", "--rm", "-p", "127.0.0.1:{port}:8080", "--init"),
    )
    assert container.engine.stop_command == ()  # poorwill ends containers itself
    assert container.replica.park.ladder == ("cold",)
    assert models["vllm-qwen"].engine.options == {"max_model_len": 8192, "enable_prefix_caching": True}
    assert models["vllm-qwen"].engine.engine_model == "Qwen/Qwen3-4B"
    assert models["speech"].engine.port == 9007 or "{port}" in models["speech"].engine.command
    assert models["speech"].policy.name == "break-even"


def test_llama_swap_models_make_room_as_before(tmp_path: Path) -> None:
    fleet = loaded(carry(str(DATA / "llama-swap.yaml"), ENV), tmp_path)
    need = {str(model.name): model.memory_bytes for model in fleet.models}
    assert need["qwen3-8b"] == need["gpt-oss"] == fleet.memory_bytes
    assert need["speech"] + need["coder"] <= fleet.memory_bytes
    assert {str(m.name) for m in fleet.models if m.priority == 100} == {"speech", "coder"}


def test_llama_swap_lists_what_it_left(tmp_path: Path) -> None:
    carried = carry(str(DATA / "llama-swap.yaml"), ENV)
    told = left(carried)
    for where in ("apiKeys", "hooks", "sendLoadingState", "memory", "coder: --api-key"):
        assert where in told, told
    assert {"qwen3-8b: filters", "qwen3-8b: --host", "speech: ttl", "speech: checkEndpoint"} <= set(told)
    text = fleet_text(carried)
    assert all(f"#   {where}: " in text for where in told)
    assert "sk-home" not in text and "secret" not in text


def test_llama_swap_as_it_is_written_now(tmp_path: Path) -> None:
    carried = carry(str(DATA / "llama-swap-routing.yaml"), ENV)
    models = {str(model.name): model for model in loaded(carried, tmp_path).models}
    assert set(models) == {"chat-one", "draw", "windows", "far/away", "house"}
    chat, draw, far = models["chat-one"], models["draw"], models["far/away"]
    assert chat.engine.command[:3] == ("/opt/llama-server", "-m", "{path}")
    assert chat.engine.path == "/m/chat.gguf"
    assert draw.engine.command[-2:] == ("--listen-port", "{port}") and draw.engine.ready_path == "/"
    assert models["windows"].engine.command[0] == r"C:\llama\llama-server.exe"
    assert str(far.elsewhere.engine) == "https://far.example.org/api"
    assert (far.engine.engine_model, far.elsewhere.url_key_env) == ("far/away", "FAR_KEY")
    assert chat.memory_bytes + draw.memory_bytes <= models["windows"].memory_bytes
    told = left(carried)
    assert "clients write chat-one" in told["chat-one: name"]
    assert {"scheduler", "novelty", "peers.near", "peers.near.apiKey", "peers.near.filters"} <= set(told)
    assert "logLevel" not in told and "chat-one: --host" not in told
    assert "sk-near" not in fleet_text(carried)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {a: {cmd: 'llama-server --port ${NOPE} -m x.gguf'}}", "no macro 'NOPE'"),
        ("models: {a: {cmd: '${env.NOPE}/llama-server --port ${PORT} -m x.gguf'}}", "NOPE"),
        ("macros: {a: '${b}', b: '${a}'}\nmodels: {m: {cmd: '${a}'}}", "circle"),
        ('models: {a: {cmd: "llama-server \'x"}}', "cannot be read"),
        ("models: {a: {cmd: server}}", "cannot tell where server listens"),
        ("models: {a: {ttl: 60}}", "neither a cmd nor a proxy"),
        ("models: []", "no models"),
        ("models: {a: 1", "no YAML"),
        ("[" * 5000, "nested"),
        ("- just\n- a list\n", "neither"),
        ("model_list: [{model_name: a, litellm_params: {model: openai/gpt-4o}}]", "no entry"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(text)
    with pytest.raises(OperatorFault) as fault:
        carry(str(path), ENV)
    assert said in str(fault.value.message) and fault.value.hint


def test_litellm_entries_and_fallbacks(tmp_path: Path) -> None:
    carried = carry(str(DATA / "litellm.yaml"), {**ENV, "OPENAI_API_KEY": "sk"})
    models = {str(model.name): model for model in loaded(carried, tmp_path).models}
    assert list(models) == ["qwen", "llama3", "mystery"]
    qwen, mystery = models["qwen"], models["mystery"]
    assert (qwen.engine.kind, qwen.engine.engine_model) == ("vllm", "Qwen/Qwen3-8B")
    assert [str(one.elsewhere.engine) for one in (qwen, mystery)] == [
        "http://10.0.0.5:8000",
        "http://localhost:5000",
    ]
    assert models["llama3"].engine.engine_model == "llama3.2:3b"
    hosted, off = models["qwen"].hosted, models["llama3"].hosted
    assert hosted and (hosted.bridge, hosted.when, hosted.url) == (
        True,
        "failed",
        "https://api.openai.com/v1",
    )
    assert off and (off.bridge, off.key_env) == (False, "MY_CLAUDE")
    told = left(carried)
    assert {"gpt-4o", "claude", "general_settings.master_key", "qwen: api_base"} <= set(told)
    assert "sk-1234" not in fleet_text(carried)


def test_litellm_names_of_one_engine(tmp_path: Path) -> None:
    """Two entries at one address are one engine: two of it would not fit where one did."""
    path = tmp_path / "litellm.yaml"
    engine = "{model: hosted_vllm/Qwen/Q, api_base: 'http://localhost:8000/v1', timeout: 9}"
    other = engine.replace("Qwen/Q", "Qwen/R")
    path.write_text(
        f"model_list:\n- {{model_name: 'claude-*', litellm_params: {engine}}}\n"
        f"- {{model_name: q, litellm_params: {engine}, model_info: {{max_tokens: 9}}}}\n"
        f"- {{model_name: also, litellm_params: {engine}}}\n"
        f"- {{model_name: 'gpt-*', litellm_params: {other}}}\n"
        "router_settings: {model_group_alias: {usual: q, hidden: {model: q, hidden: true}, odd: nobody}}\n"
        "litellm_settings: {modify_params: true}\nenvironment_variables: {A: b}\n"
    )
    carried = carry(str(path), ENV)
    models = {str(model.name): model for model in loaded(carried, tmp_path).models}
    assert {name: model.aliases for name, model in models.items()} == {
        "q": ("also", "usual", "hidden"),
        "Qwen/R": (),
    }
    told = left(carried)
    assert "aliases of q" in told["claude-*"] and "aliases of Qwen/R" in told["gpt-*"]
    assert {"q: timeout", "q: model_info", "litellm_settings.modify_params", "environment_variables"} <= set(
        told
    )
    assert "router_settings.model_group_alias.odd" in told


def test_what_a_script_sets_for_its_engine(tmp_path: Path) -> None:
    script = tmp_path / "serve.sh"
    script.write_text(
        "#!/bin/sh\nsource venv/bin/activate\nexport HF_HOME=/srv/hf\nexport HF_TOKEN=$(cat token)\n"
        "vllm serve a/B --host 127.0.0.1 &\n"
    )
    model, carried = one(str(script), tmp_path)
    assert dict(model.engine.env) == {"HF_HOME": "/srv/hf"}
    assert set(left(carried)) == {"activate", "a/B: HF_TOKEN"}


def test_a_unit_of_vllm(tmp_path: Path) -> None:
    model, carried = one(str(DATA / "vllm.service"), tmp_path)
    assert (model.name, model.engine.path) == ("qwen", "Qwen/Qwen3-8B")
    assert model.engine.command == ("/opt/vllm/bin/vllm", "serve")
    assert model.engine.options == {
        "max_model_len": 8192,
        "max_num_seqs": 64,
        "gpu_memory_utilization": "0.90",
        "enable_auto_tool_choice": True,
        "tool_call_parser": "hermes",
    }
    assert model.engine.args == ("--lora-modules", "sql=/srv/lora/sql", "fin=/srv/lora/fin", "-tp", "2")
    assert model.replica.max_concurrency == 64
    assert carried.port == 8000
    assert model.aliases == ("gpt-4o",)
    assert dict(model.engine.env) == {"HF_HOME": "/srv/hf", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert {"qwen: --api-key", "qwen: --host", "EnvironmentFile", "WorkingDirectory"} <= set(left(carried))
    assert "sk-old" not in fleet_text(carried)


def test_a_container_of_vllm(tmp_path: Path) -> None:
    line = (
        "docker run -d --runtime nvidia --gpus all -v ~/.cache/huggingface:/root/.cache/huggingface "
        '--env "HF_TOKEN=$HF_TOKEN" -e VLLM_LOGGING_LEVEL=INFO -p 9000:8000 --ipc=host --restart always '
        "vllm/vllm-openai:latest --model mistralai/Mistral-7B-v0.1 --max-model-len 4096"
    )
    model, carried = one(line, tmp_path)
    assert model.name == "mistralai/Mistral-7B-v0.1"
    assert model.engine.command == (
        *("docker", "run", "--rm", "-p", "127.0.0.1:{port}:8000", "--runtime", "nvidia", "--gpus", "all"),
        *("-v", "/home/me/.cache/huggingface:/root/.cache/huggingface", "--env", "HF_TOKEN"),
        *("-e", "VLLM_LOGGING_LEVEL=INFO", "--ipc", "host", "vllm/vllm-openai:latest"),
        *("--model", "mistralai/Mistral-7B-v0.1", "--max-model-len", "4096"),
    )
    assert carried.port == 9000
    assert any("HF_TOKEN" in where for where in left(carried))


@pytest.mark.parametrize(
    ("line", "name", "words"),
    [
        ("podman run -it --network host vllm/vllm-openai Qwen/Q --port 8001", "Qwen/Q", ("--port", "{port}")),
        (
            "docker run ghcr.io/ggml-org/llama.cpp:server -m /m/a-b.gguf",
            "a-b",
            ("-p", "127.0.0.1:{port}:8080"),
        ),
        ("docker run --name mine -p 1:8000 vllm/vllm-openai --model /model", "mine", ("--model", "/model")),
        ("uv run vllm serve a/B --port 8002 &", "a/B", ("uv", "run", "vllm", "serve")),
        ("HF_HOME=/x llama-server -hf ggml-org/gemma:Q4", "ggml-org/gemma:Q4", ("-hf", "ggml-org/gemma:Q4")),
        ("python3 -m sglang.launch_server --model-path a/B --tp 2", "a/B", ()),
        (
            "python -m vllm.entrypoints.openai.api_server --model a/B",
            "a/B",
            ("vllm.entrypoints.openai.api_server",),
        ),
    ],
)
def test_lines_of_other_kinds(tmp_path: Path, line: str, name: str, words: tuple[str, ...]) -> None:
    model, _ = one(line, tmp_path)
    assert model.name == name
    command = " ".join(model.engine.command)
    assert " ".join(words) in command
    assert model.engine.engine_model == ("/model" if name == "mine" else "")
    if model.engine.kind == "sglang":
        assert model.engine.options == {"tp": 2}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("vllm serve --port 1", "names no model"),
        ("docker run -p 1:2", "no image"),
        ("docker run some/server --model x", "which port"),
        ("docker run -p 80:80 some/server --flag", "names no model"),
        ("my-server --fast", "cannot tell where my-server listens"),
        ("vllm serve 'x", "look at its quotes"),
        ("nothing.yaml", "no such file"),
    ],
)
def test_lines_that_say_too_little(line: str, said: str) -> None:
    with pytest.raises(OperatorFault) as fault:
        carry(line, ENV)
    assert said in f"{fault.value.message} {fault.value.hint}"


def ollama(home: Path, where: str, digest: str, **extra: object) -> None:
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": 4}]
    (home / "blobs").mkdir(parents=True, exist_ok=True)
    (home / "blobs" / f"sha256-{digest}").write_bytes(b"GGUF")
    for kind, content in extra.items():
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        (home / "blobs" / f"sha256-{name}").write_text(json.dumps(content))
        layers.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{name}"})
    path = home / "manifests" / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": layers}))


def test_ollama_models_by_their_names(tmp_path: Path) -> None:
    home = tmp_path / "models"
    params = {"num_ctx": 8192, "temperature": 0.7, "stop": ["</s>"]}
    ollama(home, "registry.ollama.ai/library/llama3.2/3b", "a" * 64, params=params, system="be nice")
    ollama(home, "registry.ollama.ai/library/llama3.2/latest", "a" * 64)
    ollama(home, "registry.ollama.ai/me/mine/latest", "b" * 64, projector="x")
    ollama(home, "hf.co/bartowski/Qwen/Q4_K_M", "c" * 64)
    (home / "manifests/registry.ollama.ai/library/broken").mkdir()
    (home / "manifests/registry.ollama.ai/library/broken/latest").write_text("{")
    ollama(home, "registry.ollama.ai/library/gone/latest", "d" * 64)
    (home / "blobs" / ("sha256-" + "d" * 64)).unlink()
    carried = carry("ollama", {"OLLAMA_MODELS": str(home)})
    models = {str(model.name): model for model in loaded(carried, tmp_path).models}
    assert list(models) == ["hf.co/bartowski/Qwen:Q4_K_M", "llama3.2:3b", "me/mine"]
    assert models["llama3.2:3b"].engine.context == 8192
    assert models["llama3.2:3b"].aliases == ("llama3.2",)
    told = left(carried)
    assert {"gone", "me/mine: projector", "llama3.2:3b: system", "llama3.2:3b: parameters"} <= set(told)
    assert "temperature, stop" in told["llama3.2:3b: parameters"]
    assert carry(str(home), {}).models == carried.models


def test_no_models_of_ollama(tmp_path: Path) -> None:
    with pytest.raises(OperatorFault, match="no models of Ollama"):
        carry("ollama", {"HOME": str(tmp_path)})


@pytest.mark.parametrize(
    "value", ['a "b" \\ \n\x7f\x01', True, 3, 0.5, ["--a", "b"] * 40, {"a b": {"c": [1, "x"]}}, []]
)
def test_values_are_written_as_toml(value: object) -> None:
    assert tomllib.loads(f"x = {toml(value)}") == {"x": value}
