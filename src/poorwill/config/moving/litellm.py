"""LiteLLM's proxy configuration as a fleet (docs.litellm.ai, "Proxy configs" and "Fallbacks").

LiteLLM knows where an engine listens, not how it is started: what its model's name tells is what there is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from poorwill.config.moving.carried import (
    Carried,
    CarriedModel,
    Left,
    carried_model,
    list_of,
    refuse,
    table_of,
)

_ENGINES: Mapping[str, str] = {
    "hosted_vllm": "vllm",
    "vllm": "vllm",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "sglang": "sglang",
}
_APIS: Mapping[str, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "groq": "https://api.groq.com/openai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "together_ai": "https://api.together.xyz/v1",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "fireworks_ai": "https://api.fireworks.ai/inference/v1",
}
_KEYS: Mapping[str, str] = {"together_ai": "TOGETHERAI_API_KEY"}
_SECTIONS: Mapping[str, str] = {
    "master_key": "poorwill keys add",
    "database_url": "the ledger is a file beside fleet.toml",
    "success_callback": "[fleet] has OpenTelemetry; poorwill bill has the money",
    "callbacks": "[fleet] has OpenTelemetry; poorwill bill has the money",
    "cache": "answers are not cached",
    "max_budget": "[spend] day_usd, month_usd",
    "drop_params": "bodies are passed on as they came",
    "routing_strategy": "replicas of a model are chosen by poorwill: as few busy as will do",
    "num_retries": "a request that the engine never saw is tried again by itself",
    "guardrails": "bodies are passed on as they came",
    "request_timeout": "[gateway] upstream_timeout_s",
}
_SECTIONS_READ = ("litellm_settings", "router_settings", "general_settings")
_PATTERN = "is a pattern: put the names that clients write into aliases of {}"


def carry_litellm(document: Mapping[str, object], env: Mapping[str, str]) -> Carried:
    """Return the fleet of a LiteLLM configuration. Raises OperatorFault if it has no engine of one's own."""
    entries = [table_of(one) for one in list_of(document.get("model_list"))]
    fallbacks = dict(_fallbacks(document))
    hosted = {str(one.get("model_name")): table_of(one.get("litellm_params")) for one in entries}
    models: dict[str, CarriedModel] = {}
    left: list[Left] = []
    for entry in sorted(entries, key=lambda entry: "*" in str(entry.get("model_name"))):
        name, parameters = str(entry.get("model_name")), table_of(entry.get("litellm_params"))
        provider, _, upstream = str(parameters.get("model", "")).partition("/")
        url = _own_url(provider, parameters)
        if provider not in _ENGINES and not url:
            what = "is a hosted API: it stays where it is, or becomes a bridge (docs/bridge.md)"
            left.append(Left(name, f"{provider}/{upstream} {what}"))
        elif name in models:
            left.append(Left(name, "a second entry of the same name: replicas = 2, if the model has devices"))
        elif same := next((one for one, model in models.items() if model.origin == _origin(parameters)), ""):
            models[same] = _also(models[same], name, left)
        else:
            keys, notes = _engine(_ENGINES.get(provider, ""), upstream, url, parameters)
            nexts = [(one, hosted[one]) for one in fallbacks.get(name, ()) if one in hosted]
            bridge, more = _bridge(nexts, env)
            keys |= {"hosted": bridge} if bridge else {}
            called = upstream if "*" in name else name
            models[name] = carried_model(
                called, keys=keys, origin=_origin(parameters), left=(*notes, *more, *_unknown(entry))
            )
            if called != name:
                left.append(Left(name, _PATTERN.format(called)))
    if not models:
        hint = (
            "poorwill serves your own models; hosted APIs stay at LiteLLM, or become a bridge: docs/bridge.md"
        )
        raise refuse("no entry of model_list is an engine that poorwill could start", hint)
    for other, target in _group_aliases(document):
        if target in models:
            models[target] = _also(models[target], other, left)
        else:
            left.append(Left(f"router_settings.model_group_alias.{other}", f"{target} is not carried over"))
    left += [Left(key, "is not known") for key in document if key not in (*_SECTIONS_READ, "model_list")]
    for section in _SECTIONS_READ:
        for key, value in table_of(document.get(section)).items():
            if value and key not in ("fallbacks", "model_group_alias"):
                left.append(Left(f"{section}.{key}", _SECTIONS.get(key, "is not known")))
    return Carried(source="a LiteLLM configuration", models=tuple(models.values()), left=tuple(left))


def _origin(parameters: Mapping[str, object]) -> str:
    return f"was: {parameters.get('model')} at {parameters.get('api_base', 'its usual address')}"


def _also(model: CarriedModel, name: str, left: list[Left]) -> CarriedModel:
    """Return a model with one more name; a pattern is listed."""
    if "*" in name:
        left.append(Left(name, _PATTERN.format(model.name)))
        return model
    aliases = [*list_of(model.keys.get("aliases")), name]
    return replace(model, keys={**model.keys, "aliases": aliases})


def _unknown(entry: Mapping[str, object]) -> Iterator[Left]:
    for key in table_of(entry.get("litellm_params")):
        if key not in ("model", "api_base", "api_key", "rpm", "tpm"):
            yield Left(key, "is not known; presets hold values for the body")
    if entry.get("model_info"):
        yield Left("model_info", "is not kept")


def _group_aliases(document: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    aliases = table_of(table_of(document.get("router_settings")).get("model_group_alias"))
    for name, target in aliases.items():
        yield name, str(table_of(target).get("model", target))


def _own_url(provider: str, parameters: Mapping[str, object]) -> str:
    """Return where a server of one's own is that poorwill cannot start: another machine's, or unknown."""
    url = str(parameters.get("api_base", ""))
    host = urlsplit(url).hostname or ""
    here = host in ("", "localhost", "127.0.0.1", "::1", "0.0.0.0")
    if not url.startswith(("http://", "https://")) or (here and provider in _ENGINES):
        return ""
    known = provider in ("openai", *_ENGINES) and host != urlsplit(_APIS["openai"]).hostname
    return url.rstrip("/") if known else ""


def _engine(
    kind: str, upstream: str, url: str, parameters: Mapping[str, object]
) -> tuple[dict[str, object], list[Left]]:
    keys: dict[str, object] = {"engine": kind} if kind else {}
    left = []
    if url:
        keys |= {"url": url, "engine_model": upstream}
        key = str(parameters.get("api_key", ""))
        if key.startswith("os.environ/"):
            keys |= {"url_key_env": key.removeprefix("os.environ/")}
        elif key:
            left.append(Left("api_key", "put it into a variable, and name that with url_key_env"))
        what = "it is served there, always ready; poorwill parks what it starts: path and engine, or command"
        left.append(Left("api_base", what))
    elif kind == "ollama":
        keys |= {"engine_model": upstream}
    else:
        keys |= {"path": upstream, "ladder": ["cold"]}
        left.append(Left("options", "LiteLLM did not start the engine: put its options into options or args"))
    for key, what in (("rpm", "requests a minute"), ("tpm", "tokens a minute")):
        if key in parameters:
            left.append(Left(key, f"{what} are limits of a key: poorwill keys add --help"))
    return keys, left


def _bridge(
    nexts: Sequence[tuple[str, Mapping[str, object]]], env: Mapping[str, str]
) -> tuple[dict[str, object], list[Left]]:
    """Return the hosted API that a model falls back to."""
    for name, parameters in nexts:
        provider, _, upstream = str(parameters.get("model", "")).partition("/")
        url = str(parameters.get("api_base") or _APIS.get(provider, ""))
        if not url.startswith("https://"):
            continue
        key = str(parameters.get("api_key", ""))
        usual = _KEYS.get(provider, f"{provider.upper()}_API_KEY")
        variable = key.removeprefix("os.environ/") if key.startswith("os.environ/") else usual
        on = bool(env.get(variable))
        bridge = {"provider": provider, "model": upstream, "url": url, "key_env": variable}
        what = f"set {variable}, then bridge = true; nothing is sent to {provider} until then"
        return {**bridge, "bridge": on, "when": "failed"}, [] if on else [Left(f"fallback to {name}", what)]
    return {}, [Left(f"fallback to {name}", "is no API that a bridge can lead to") for name, _ in nexts]


def _fallbacks(document: Mapping[str, object]) -> Iterator[tuple[str, list[str]]]:
    for section in ("litellm_settings", "router_settings"):
        for one in list_of(table_of(document.get(section)).get("fallbacks")):
            for name, others in table_of(one).items():
                yield name, [str(other) for other in list_of(others)]
