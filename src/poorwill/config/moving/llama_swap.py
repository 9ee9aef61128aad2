"""llama-swap's YAML as a fleet (its config.example.yaml and config-schema.json, version 237)."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from poorwill.config.moving.carried import (
    Carried,
    CarriedModel,
    Left,
    carried_model,
    list_of,
    model_name,
    refuse,
    table_of,
)
from poorwill.config.moving.command_lines import carry_line
from poorwill.core.errors import OperatorFault
from poorwill.hosts.containers.run_line import run_line

_MACRO = re.compile(r"\$\{([\w.-]+)\}")
_WINDOWS = re.compile(r"(?:^|[\s\"'])[A-Za-z]:\\")
_DEEPEST = 20
_UNIT_MIB = 1024
"""What stands for all the memory there is: llama-swap knows which models exclude each other, not why."""
_OF_MODELS: Mapping[str, str] = {
    "filters": "setParamsByID becomes presets; stripParams and setParams are for presets or clients",
    "description": "is not kept",
    "metadata": "is not kept",
    "unlisted": "every model is listed; keys can be scoped to models",
    "sendLoadingState": "heartbeats keep held clients: docs/clients.md",
    "timeouts": "[gateway] upstream_timeout_s, for all models",
    "capabilities": "/v1/models shows what poorwill knows of the engine",
}
_OF_FILE: Mapping[str, str] = {
    "apiKeys": "poorwill keys add",
    "hooks": "no preload: floor = true keeps a model ready, always or in windows of the week",
    "matrix": "models stay together as far as memory allows: put in what each needs",
    "scheduler": "keys have priorities: poorwill keys add --priority",
    "profiles": "a client names the model",
    "selectors": "a client names the model; replicas share its requests",
    "sendLoadingState": "heartbeats keep held clients: docs/clients.md",
}
_QUIET = frozenset(
    "models macros peers groups routing healthCheckTimeout globalTTL startPort logLevel logTimeFormat "
    "logToStdout logRequests metricsMaxInMemory performance ui".split()
)
"""Keys of the file that are carried over, or that nobody will miss."""
_READ = frozenset(
    ("cmd", "name", "env", "proxy", "checkEndpoint", "ttl", "useModelName", "aliases", "macros", "cmdStop")
)


def carry_llama_swap(document: Mapping[str, object], env: Mapping[str, str]) -> Carried:
    """Return the fleet of a llama-swap configuration. Raises OperatorFault if it has no model."""
    models, left, found = table_of(document.get("models")), [], []
    for name, entry in models.items():
        try:
            found.append(_model(str(name), table_of(entry), document, env))
        except OperatorFault as fault:
            left.append(Left(str(name), f"{fault.message}; {fault.hint}"))
    if not found:
        why = "; ".join(f"{one.where}: {one.what}" for one in left) or "it has no models"
        raise refuse(f"nothing to carry over: {why}", "docs/moving.md has the keys side by side")
    names = {model.name for model in found}
    found += [model for model in _peers(document, env, left) if model.name not in names]
    for key, value in {**document, **_routing(document)}.items():
        if value and key not in _QUIET:
            left.append(Left(key, _OF_FILE.get(key, "is not known")))
    fleet, sized, notes = _memory(_routing(document), found)
    source = "a llama-swap configuration"
    return Carried(source=source, models=tuple(sized), left=(*left, *notes), fleet=fleet)


def _model(
    name: str, entry: Mapping[str, object], document: Mapping[str, object], env: Mapping[str, str]
) -> CarriedModel:
    macros = {**table_of(document.get("macros")), **table_of(entry.get("macros")), "PORT": "{port}"}
    macros |= {"MODEL_ID": name, "PID": "${PID}"}

    def filled(key: str) -> str:
        return _filled(str(entry.get(key) or ""), macros, env)

    proxy = urlsplit(filled("proxy"))
    written = str(entry.get("cmd") or "").splitlines()
    # Comments go first, as with llama-swap: a macro of several lines would end one early.
    command = _filled("\n".join(line for line in written if not line.strip().startswith("#")), macros, env)
    if _WINDOWS.search(command):
        command = command.replace("\\", "\\\\")
    if not command.strip():
        if not proxy.netloc:
            raise refuse("has neither a cmd nor a proxy", "nothing says what serves it")
        keys = {"url": proxy.geturl()} | _names(entry, name, macros, env)
        what = f"was: served at {proxy.netloc}, and not llama-swap's to start"
        return carried_model(name, keys=keys, origin=what, left=_left(entry))
    try:
        words = shlex.split(command.replace("\\\n", " "))
    except ValueError as error:
        raise refuse(f"its cmd cannot be read: {error}", "look at its quotes") from error
    model, _ = carry_line(words, env, name=name, port=proxy.netloc.rpartition(":")[2])
    keys, left = dict(model.keys), [*model.left, *_left(entry)]
    keys |= _names(entry, name, macros, env)
    keys |= _stop_command(filled("cmdStop"), words, left)
    variables = dict(str(one).split("=", 1) for one in list_of(entry.get("env")) if "=" in str(one))
    if own := {k: _filled(v, macros, env) for k, v in variables.items()}:
        keys["env"] = {**table_of(keys.get("env")), **own}
    check = filled("checkEndpoint")
    if check == "none":
        left.append(Left("checkEndpoint", "a model is ready when its ready_path answers, /health by default"))
    elif check not in ("", "/health"):
        keys["ready_path"] = check
    if limit := _number(entry.get("concurrencyLimit")):
        keys["max_concurrency"] = limit
    seconds = max(15, _number(document.get("healthCheckTimeout")) or 120)
    keys |= {"wake_budget_s": seconds, "wake_cap_s": max(900, seconds)}
    if ttl := _ttl(entry, document):
        keys["policy"] = {"name": "fixed", "idle_s": ttl, "allow_short_idle": True}
    else:
        left.append(Left("ttl", "it stayed until another took its place; now the policy parks it when idle"))
    return replace(model, keys=keys, left=tuple(left))


def _peers(
    document: Mapping[str, object], env: Mapping[str, str], left: list[Left]
) -> Iterator[CarriedModel]:
    """Yield the models that other servers have, which are asked for them."""
    macros = table_of(document.get("macros"))
    for name, value in table_of(document.get("peers")).items():
        peer = table_of(value)
        left += [Left(f"peers.{name}", "its models are always ready, and cost nothing on the bill")]
        keys: dict[str, object] = {"url": _filled(str(peer.get("proxy") or ""), macros, env)}
        key = re.fullmatch(r"\$\{env\.(\w+)\}", str(peer.get("apiKey") or ""))
        if key:
            keys["url_key_env"] = key[1]
        elif peer.get("apiKey"):
            left.append(Left(f"peers.{name}.apiKey", "put it into a variable, named by url_key_env"))
        if peer.get("filters"):
            left.append(Left(f"peers.{name}.filters", _OF_MODELS["filters"]))
        for model in map(str, list_of(peer.get("models"))):
            yield carried_model(model, keys={**keys, "engine_model": model}, origin=f"was: peer {name}")


def _routing(document: Mapping[str, object]) -> dict[str, object]:
    """Return which models are together, as older versions have it at the top of the file."""
    routing = table_of(document.get("routing"))
    router = table_of(routing.get("router"))
    settings = table_of(router.get("settings")) or document
    used = "matrix" if router.get("use") == "matrix" or not settings.get("groups") else "groups"
    return {used: settings.get(used), "scheduler": table_of(routing.get("scheduler")).get("settings")}


def _names(
    entry: Mapping[str, object], name: str, macros: Mapping[str, object], env: Mapping[str, str]
) -> dict[str, object]:
    """Return the names that clients use, and the one that the engine knows."""
    names = [str(table_of(one).get("id", one)) for one in list_of(entry.get("aliases"))]
    found = {"aliases": names, "presets": _presets(entry, name, macros, env)}
    found["engine_model"] = str(entry.get("useModelName") or "")
    return {key: value for key, value in found.items() if value}


def _stop_command(ends: str, words: Sequence[str], left: list[Left]) -> dict[str, object]:
    """Return the key that `cmdStop` becomes, if one is needed."""
    if "${PID}" in ends or (ends and run_line(words)):
        left.append(Left("cmdStop", "containers are removed, and process groups get SIGTERM, without it"))
        return {}
    return {"stop_command": shlex.split(ends)} if ends else {}


def _ttl(entry: Mapping[str, object], document: Mapping[str, object]) -> int:
    of_all = _number(document.get("globalTTL"))
    ttl = _number(entry.get("ttl"), of_all)
    return of_all if ttl < 0 else ttl


def _presets(
    entry: Mapping[str, object], name: str, macros: Mapping[str, object], env: Mapping[str, str]
) -> dict[str, object]:
    """Return the other names that set parameters of their own."""
    by_id = table_of(table_of(entry.get("filters")).get("setParamsByID"))
    found = {_filled(key, macros, env): table_of(values) for key, values in by_id.items()}
    return {key: values for key, values in found.items() if key != name and values}


def _left(entry: Mapping[str, object]) -> Iterator[Left]:
    for key, what in _OF_MODELS.items():
        if entry.get(key):
            yield Left(key, what)
    for key in entry:
        if key not in _OF_MODELS and key not in _READ and key != "concurrencyLimit":
            yield Left(str(key), "is not known")


def _memory(
    document: Mapping[str, object], models: Sequence[CarriedModel]
) -> tuple[dict[str, object], list[CarriedModel], list[Left]]:
    """Return `[fleet]` and models with shares of memory that keep out of each other's way as they did.

    Without groups, and within a group, llama-swap keeps one model at a time; a group with `swap: false` keeps
    all of its own; a persistent one is unloaded by no other.
    """
    groups = [table_of(one) for one in table_of(document.get("groups")).values()]
    members = [(group, [model_name(str(one)) for one in list_of(group.get("members"))]) for group in groups]
    together = {m: len(names) for group, names in members if group.get("swap") is False for m in names}
    persistent = {m for group, names in members if group.get("persistent") for m in names}
    here = [model for model in models if "url" not in model.keys]
    if len(here) < 2 or document.get("matrix"):
        return {}, list(models), []
    sized = []
    for model in models:
        share = max(1, _UNIT_MIB // together.get(model.name, 1))
        extra = {"memory": f"{share} MiB"} | ({"priority": 100} if model.name in persistent else {})
        sized.append(replace(model, keys={**model.keys, **extra}) if model in here else model)
    what = "stands for what llama-swap's groups say, one model at a time; put in what there is and each needs"
    return {"memory": f"{_UNIT_MIB} MiB"}, sized, [Left("memory", what)]


def _filled(text: str, macros: Mapping[str, object], env: Mapping[str, str]) -> str:
    """Return a text without macros. Raises OperatorFault for one that is not known."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("env."):
            if name[4:] not in env:
                raise refuse(
                    f"${{{name}}} is not set in the environment", f"export {name[4:]}=... and try again"
                )
            return env[name[4:]]
        if name not in macros:
            raise refuse(
                f"there is no macro {name!r}", "macros are set at the top of the file or in the model"
            )
        return str(macros[name])

    for _ in range(_DEEPEST):
        if (after := _MACRO.sub(value, text)) == text:
            return text
        text = after
    raise refuse("its macros lead in a circle", "a macro can hold only macros before it")


def _number(value: object, otherwise: int = 0) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
