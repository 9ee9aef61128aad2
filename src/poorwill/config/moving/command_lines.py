"""Command lines that start an engine, as the keys of a model: vLLM, SGLang, llama-server and others.

Flags as of vLLM 0.33 (`vllm serve --help=all`), SGLang 0.5.23 and llama.cpp's server README.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from poorwill.config.moving.carried import CarriedModel, Left, carried_model, file_name, model_name, refuse
from poorwill.config.moving.containers import container_model
from poorwill.config.moving.flags import Flags, expanded

_ASSIGNED = re.compile(r"[A-Za-z_]\w*=")
_WRAPPERS = frozenset(("exec", "env", "nohup", "time", "nice"))
_KEYED = "poorwill checks keys itself: poorwill keys add"
_MODULES: Mapping[str, str] = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "sglang.launch_server": "sglang",
}
_HOST = "is gone: engines listen on loopback; clients talk to [gateway] listen"
_LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1", "{host}"))
_LONG_PORTS = ("--port", "--http-port", "--listen-port")
_EXPORT = re.compile(r"(?:export|Environment=)\s*(.*)")
_OF_SCRIPTS: Mapping[str, tuple[str, str]] = {
    r"EnvironmentFile=.+": ("EnvironmentFile", "put what the engine needs of it into the model's env"),
    r"WorkingDirectory=.+": ("WorkingDirectory", "relative paths count from fleet.toml"),
    r"(?:source|\.) .*/activate": (
        "activate",
        "name the program by its full path, or start poorwill with that PATH",
    ),
}
"""What a script or a unit does for its engine that is not carried over, by a pattern of its lines."""


def lines_of_script(text: str) -> Iterator[list[str]]:
    """Yield the command lines of a script or a systemd unit that start an engine."""
    variables: list[str] = []
    for line in _lines(text):
        exported = _EXPORT.fullmatch(line)
        try:
            words = shlex.split(exported[1] if exported else line.removeprefix("ExecStart="), comments=True)
        except ValueError:
            continue
        if exported:
            variables += [word for word in words if _ASSIGNED.match(word)]
        elif starts_engine(words):
            yield [*variables, *words]


def left_of_script(text: str) -> Iterator[Left]:
    """Yield what else a script or a unit does for its engines, for people to carry over."""
    for line in _lines(text):
        yield from (Left(*left) for like, left in _OF_SCRIPTS.items() if re.fullmatch(like, line))


def _lines(text: str) -> Iterator[str]:
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        if (bare := line.strip()) and not bare.startswith("#"):
            yield bare


def starts_engine(words: Sequence[str]) -> bool:
    """Return whether words are a command line that poorwill reads as an engine's own."""
    plain = _without_wrappers(words)[1]
    return bool(plain) and _kind(plain)[0] != "command"


def carry_line(
    words: Sequence[str], env: Mapping[str, str], *, name: str = "", port: str = ""
) -> tuple[CarriedModel, int]:
    """Return the model that a command line serves, and the port it was served on (0: not said).

    `name` is what clients call it, and `port` where it listens, if that is known from elsewhere.
    Raises OperatorFault if the line names no model, or nothing tells where it listens.
    """
    variables, plain = _without_wrappers([expanded(word, env) for word in words])
    if not plain:
        raise refuse("an empty command line", "e.g. --from 'vllm serve Qwen/Qwen3-8B'")
    kind, rest = _kind(plain)
    if kind == "container":
        return container_model(plain, name=name, origin=_shown(words))
    flags = Flags(rest)
    left = [*_keys_left(flags)]
    port = flags.take_port() or port
    if not _LOOPBACK.issuperset(flags.take("--host") or ()):
        left.append(Left("--host", _HOST))
    if kind in ("vllm", "sglang"):
        keys, called = _python_engine(kind, plain, flags)
    elif kind == "llama-server":
        keys, called = _llama_server(plain, flags)
    else:
        keys, called = _any(plain, port, name)
    names = [name] if name else called
    if name and called and called[0] != name and kind in ("vllm", "sglang"):
        keys["engine_model"] = called[0]
    own = {name: value for name, value in variables.items() if "$" not in value and "`" not in value}
    if own:
        keys["env"] = own
    left += [
        Left(name, f"comes from your shell: put it into env = {{ {name} = ... }}")
        for name in variables
        if name not in own
    ]
    if len(names) > 1:
        keys["aliases"] = names[1:]
    found = carried_model(names[0], keys=keys, origin=_shown(words), left=left)
    return found, int(port) if port.isdecimal() else 0


def _keys_left(flags: Flags) -> Iterator[Left]:
    for flag in ("--api-key", "--api-key-file", "--ssl-keyfile", "--ssl-certfile", "--ssl-key-file"):
        if flags.take(flag):
            yield Left(flag, _KEYED if "api" in flag else "TLS is a proxy's business: docs/deploy.md")


def _shown(words: Sequence[str]) -> str:
    return "was: " + re.sub(r"(--api-key[= ]|TOKEN=|KEY=)\S+", r"\1...", shlex.join(words))[:400]


def _without_wrappers(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the variables that stand before a command, and the command."""
    variables: dict[str, str] = {}
    rest = [word for word in words if word not in ("&",)]
    while rest and (_ASSIGNED.match(rest[0]) or rest[0] in _WRAPPERS):
        word = rest.pop(0)
        if _ASSIGNED.match(word):
            variable, _, value = word.partition("=")
            variables[variable] = value
    return variables, rest


def _kind(plain: Sequence[str]) -> tuple[str, list[str]]:
    """Return what a command line starts, and the words after the program."""
    if list(plain[:2]) == ["uv", "run"]:
        return _kind(plain[2:]) if len(plain) > 2 else ("command", list(plain[1:]))
    program = plain[0].rpartition("/")[2]
    second = plain[1] if len(plain) > 1 else ""
    if program in ("docker", "podman") and second in ("run", "container"):
        return "container", []
    if program == "vllm" and second == "serve":
        return "vllm", list(plain[2:])
    if program == "sglang" and second == "serve":
        return "sglang", list(plain[2:])
    if program.startswith("llama-server"):
        return "llama-server", list(plain[1:])
    if re.fullmatch(r"python[\d.]*", program) and second == "-m" and len(plain) > 2 and plain[2] in _MODULES:
        return _MODULES[plain[2]], list(plain[3:])
    return "command", list(plain[1:])


def _python_engine(kind: str, plain: Sequence[str], flags: Flags) -> tuple[dict[str, object], list[str]]:
    """Return the keys of vLLM or SGLang, and the names it served under."""
    named = flags.take("--model") or flags.take("--model-path") or flags.positional()
    if not named:
        raise refuse(f"the {kind} line names no model", "write it first: vllm serve ORG/NAME --flag ...")
    served = flags.take("--served-model-name") or named[:1]
    keys: dict[str, object] = {"engine": kind, "path": named[0], "ladder": ["cold"]}
    runner = 2 if plain[0] == "uv" else 0
    program = list(plain[: runner + (3 if plain[runner + 1] == "-m" else 2)])
    if program not in (["vllm", "serve"], ["python3", "-m", "sglang.launch_server"]):
        keys["command"] = program
    options: dict[str, object] = {}
    if flags.take("--enable-sleep-mode") is not None or flags.take("--enable-memory-saver") is not None:
        options["sleep"] = True
        keys["ladder"] = ["asleep", "cold"]
    options |= flags.as_options()
    if options:
        keys["options"] = options
    if flags.words():
        keys["args"] = flags.words()
    return keys, served


def _llama_server(plain: Sequence[str], flags: Flags) -> tuple[dict[str, object], list[str]]:
    """Return the keys of llama.cpp's own server; its flags stay as they are."""
    keys: dict[str, object] = {"engine": "command"}
    alias = flags.take("--alias") or flags.take("-a") or []
    file = flags.take("--model") or flags.take("-m") or []
    hub = flags.peek("-hf") or flags.peek("-hfr") or flags.peek("--hf-repo") or []
    if not file and not hub:
        raise refuse("the llama-server line names no model", "it needs -m FILE or -hf ORG/NAME")
    slots = flags.peek("--parallel") or flags.peek("-np") or []
    model = ["-m", "{path}"] if file else []
    program = plain[: 3 if plain[0] == "uv" else 1]
    keys["command"] = [*program, *model, "--host", "{host}", "--port", "{port}", *flags.words()]
    if file:
        keys["path"] = file[0]
    if slots and slots[0].isdecimal() and int(slots[0]) > 0:
        keys["max_concurrency"] = int(slots[0])
    names = alias[0].split(",") if alias else []
    return keys, names or [file_name(file[0]) if file else model_name(hub[0])]


def _any(plain: Sequence[str], port: str, name: str) -> tuple[dict[str, object], list[str]]:
    """Return the keys of a program that nothing is known of, but where its port stands."""
    words = list(plain)
    for at, word in enumerate(words):
        flag, equals, _ = word.partition("=")
        following = words[at + 1] if at + 1 < len(words) else ""
        if flag in (*_LONG_PORTS, "-p") and equals:
            words[at] = f"{flag}={{port}}"
        elif following == port if port else following.isdecimal():
            if flag in _LONG_PORTS or (flag == "-p" and port):
                words[at + 1] = "{port}"
    keys: dict[str, object] = {"engine": "command", "command": words}
    if not any("{port}" in word for word in words):
        if not port.isdecimal():
            hint = "vllm serve, llama-server, sglang and docker run lines are read; others need --port"
            raise refuse(f"cannot tell where {plain[0]} listens", hint)
        keys["port"] = int(port)
    return keys, [name or file_name(plain[0])]
