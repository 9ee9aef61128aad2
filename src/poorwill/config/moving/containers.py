"""`docker run` and `podman run` lines as the keys of a model (docs.docker.com, `docker container run`)."""

import re
from collections.abc import Sequence

from poorwill.config.moving.carried import CarriedModel, Left, carried_model, file_name, refuse
from poorwill.config.moving.flags import Flags
from poorwill.hosts.containers.run_line import run_line

_DROPPED = frozenset(("--detach", "--interactive", "--tty", "--rm", "--name", "--restart", "--replace"))
_PUBLISH = ("-p", "--publish")
_PORTS = (("vllm", "8000"), ("llama.cpp", "8080"), ("sglang", "30000"), ("text-generation-inference", "80"))
"""Where the servers of well-known images listen if nothing says otherwise."""


def container_model(words: Sequence[str], *, name: str, origin: str) -> tuple[CarriedModel, int]:
    """Return the model of a run line, and the port that it was published on (0: none).

    Raises OperatorFault if the line has no image, names no model, or its port cannot be told.
    """
    line = run_line(words)
    if line is None:
        hint = "e.g. docker run -p 8000:8000 vllm/vllm-openai --model ORG/NAME"
        raise refuse("the run line has no image", hint)
    options, image, inner = line.options, line.image, line.arguments
    flags = Flags(inner)
    served = flags.peek("--served-model-name") or flags.peek("--alias") or flags.peek("-a")
    model = flags.peek("--model") or flags.peek("--model-path") or flags.peek("-m")
    named = served or model or [word for word in inner[:1] if not word.startswith("-")]
    file = bool(named) and named[0].endswith(".gguf")
    known = name or (file_name(named[0]) if file else "".join(named[:1]))
    if known.startswith("/"):  # a directory inside the container, which vLLM calls its model by
        known = next((value for flag, value in options if flag == "--name"), file_name(known))
    if not known:
        raise refuse(f"the line of {image} names no model", "add --name NAME, as clients call it")
    left = (
        [Left("--api-key", "poorwill checks keys itself: poorwill keys add")]
        if flags.take("--api-key")
        else []
    )
    kept = [pair for pair in options if pair[0] not in _DROPPED and pair[0] not in _PUBLISH]
    published = next((value for flag, value in options if flag in _PUBLISH), "")
    ours, arguments, port = _port(published, kept, image, flags)
    secrets = [
        value for flag, value in kept if flag in ("-e", "--env") and re.search(r"=\$\{?\w+\}?$", value)
    ]
    for value in secrets:
        variable = value.partition("=")[0]
        left.append(
            Left(variable, f"comes from your shell: put it into the model's env = {{ {variable} = ... }}")
        )
    passed = [(flag, value.partition("=")[0] if value in secrets else value) for flag, value in kept]
    command = [*line.client, "run", "--rm", *ours]
    command += [word for pair in passed for word in pair if word] + [image, *arguments]
    keys: dict[str, object] = {"engine": "command", "command": command, "ladder": ["cold"]}
    if not name and len(named) > 1:
        keys["aliases"] = list(named[1:])
    if named and named[0] != known and not file:
        keys["engine_model"] = named[0]
    return carried_model(known, keys=keys, origin=origin, left=left), port


def _port(
    published: str, kept: Sequence[tuple[str, str]], image: str, flags: Flags
) -> tuple[list[str], list[str], int]:
    """Return our own options, the arguments of the image, and the port it was published on."""
    by_host = any(flag in ("--network", "--net") and value == "host" for flag, value in kept)
    if by_host:
        port = flags.take_port()
        return [], [*flags.words(), "--port", "{port}"], int(port) if port.isdecimal() else 0
    outer, _, inner = published.removesuffix("/tcp").rpartition(":")
    usual = next((port for part, port in _PORTS if part in image), "")
    inside = inner or next(iter(flags.peek("--port") or ()), "") or usual
    if not inside.isdecimal() and "{port}" not in outer:
        raise refuse(f"cannot tell which port of {image} is the server's", "publish it: -p 8000:8000")
    outside = outer.rpartition(":")[2]
    return ["-p", f"127.0.0.1:{{port}}:{inside}"], flags.words(), int(outside) if outside.isdecimal() else 0
