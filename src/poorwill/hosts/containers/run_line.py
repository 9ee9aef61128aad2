"""`docker run` and `podman run` lines: read, and completed so that their container is found and ended.

The process of a run line is a client. The container belongs to Docker's daemon or Podman's monitor and
outlives a client that is killed, so it is named after its replica and removed by that name. Options as of
Docker 28 and Podman 5 (docs.docker.com, `docker container run`; docs.podman.io, podman-run).
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

RUNTIMES = frozenset({"docker", "podman", "nerdctl"})
SWITCHES = frozenset(
    (
        *("--detach", "--rm", "--interactive", "--tty", "--init", "--privileged", "--read-only", "--quiet"),
        *("--publish-all", "--no-healthcheck", "--oom-kill-disable", "--sig-proxy", "--replace"),
        *("--disable-content-trust", "--no-hosts", "--rmi", "--tls-verify", "--env-host", "--http-proxy"),
    )
)
"""The options without a value; all others have one."""
_SHORT: Mapping[str, str] = MappingProxyType(
    {"-d": "--detach", "-i": "--interactive", "-t": "--tty", "-P": "--publish-all", "-q": "--quiet"}
)
CLIENT_VARIABLES = (
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    *("CONTAINER_HOST", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "REGISTRY_AUTH_FILE"),
    *("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DBUS_SESSION_BUS_ADDRESS"),
)
"""Variables by which a client finds its daemon, its images and, rootless, its containers."""

_EVERY_DEVICE = re.compile(r"all|\d+|-1")
_CDI_ALL = "nvidia.com/gpu=all"
_VISIBLE = "NVIDIA_VISIBLE_DEVICES"

_MENDS: Mapping[str, str] = MappingProxyType(
    {
        r"cannot connect to the docker daemon": "start it: systemctl start docker",
        r"permission denied.*docker": "let poorwill's user into the group docker, or use rootless podman",
        r"could not select device driver|unresolvable CDI devices": "install nvidia-container-toolkit",
        r"no such image|pull access denied|manifest unknown|short-name": "pull it first, by its whole name",
        r"port is already allocated|address already in use": "publish {port}: -p 127.0.0.1:{port}:8000",
        r"name .* is already in use": "remove that container, and leave --name out",
    }
)
"""What clients say when a container cannot be run, and what mends it."""


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run line in its parts."""

    client: tuple[str, ...]
    """The program and its own options, up to `run`."""
    options: tuple[tuple[str, str], ...]
    """Each with its value, empty for a switch."""
    image: str
    arguments: tuple[str, ...]

    def has(self, *names: str) -> bool:
        """Return whether any of these options is given, whatever its value."""
        return any(name in names for name, _ in self.options)

    def values(self, *names: str) -> Iterator[str]:
        """Yield the values of these options."""
        return (value for name, value in self.options if name in names)

    def words(self) -> tuple[str, ...]:
        """Return the whole line."""
        options = (word for pair in self.options for word in pair if word)
        return (*self.client, "run", *options, self.image, *self.arguments)


def run_line(words: Sequence[str]) -> RunLine | None:
    """Return a command as a run line; None if it is none, or names no image."""
    client = _client(words)
    if client is None:
        return None
    rest = list(words[len(client) + 1 :])
    options: list[tuple[str, str]] = []
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if re.fullmatch(r"-[ditPq]+", word):
            options += [(_SHORT[f"-{letter}"], "") for letter in word[1:]]
        elif flag in SWITCHES:
            options.append((word, ""))
        elif equals and flag.startswith("--"):
            options.append((flag, value))
        elif word.startswith("--") or len(word) == 2:
            options.append((word, rest.pop(0) if rest else ""))
        else:
            options.append((word[:2], word[2:]))
    return RunLine(client, tuple(options), rest[0], tuple(rest[1:])) if rest else None


def _client(words: Sequence[str]) -> tuple[str, ...] | None:
    """Return the words before `run` if they are a container client with options of its own."""
    if not words or words[0].rpartition("/")[2] not in RUNTIMES or "run" not in words:
        return None
    client = tuple(words[: words.index("run")])
    for before, word in pairwise(client):
        if not (
            word.startswith("-") or word == "container" or (before.startswith("-") and "=" not in before)
        ):
            return None
    return client


def container_name(fleet: str, replica: str) -> str:
    """Return the name of a replica's container: the same at each start, and no other fleet's."""
    digest = hashlib.sha256(f"{fleet}\0{replica}".encode()).hexdigest()[:8]
    return f"poorwill-{re.sub(r'[^A-Za-z0-9_.-]', '-', replica)[:60]}-{digest}"


def completed(
    line: RunLine, *, name: str, devices: Sequence[str] | None, variables: Collection[str]
) -> RunLine:
    """Return the line with what poorwill needs, and with the devices and variables that the engine gets.

    `devices` are UUIDs or indices of NVIDIA devices; None: those that the line names. Variables are passed
    on by name alone, so that their values are in no list of processes.
    """
    options = [*_on_devices(line, devices)]
    named = {value.partition("=")[0] for value in line.values("-e", "--env")}
    ours = {*variables} - {*named} - {*CLIENT_VARIABLES}
    options += [("--env", variable) for variable in sorted(ours)]
    options += [] if line.has("--name") else [("--name", name)]
    options += [] if line.has("--rm", "--rm=true", "--rm=false") else [("--rm", "")]
    options.append(("--label", f"poorwill={name}"))
    return RunLine(line.client, tuple(options), line.image, line.arguments)


def _on_devices(line: RunLine, devices: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """Yield the options; where they give every device or a number of them, those of the replica instead.

    Docker takes a list of devices for one value if it stands in quotes of its own.
    """
    for name, value in line.options:
        if devices is None:
            yield name, value
        elif name == "--gpus" and _EVERY_DEVICE.fullmatch(value):
            if devices:
                yield name, f'"device={",".join(devices)}"'
        elif name == "--device" and value == _CDI_ALL:
            yield from ((name, f"nvidia.com/gpu={device}") for device in devices)
        elif name in ("-e", "--env") and value in (f"{_VISIBLE}=all", _VISIBLE):
            yield name, f"{_VISIBLE}={','.join(devices) or 'void'}"
        else:
            yield name, value
    by_runtime = "nvidia" in line.values("--runtime") and not line.has("--gpus")
    if devices is not None and by_runtime and not any(map(_says_visible, line.values("-e", "--env"))):
        yield "--env", f"{_VISIBLE}={','.join(devices) or 'void'}"


def _says_visible(value: str) -> bool:
    return value.partition("=")[0] == _VISIBLE


def removal(line: RunLine, name: str) -> tuple[str, ...]:
    """Return the command that ends and removes the container of this name, at once."""
    at_once = ("--ignore", "--time", "0") if line.client[0].endswith("podman") else ()
    return (*line.client, "rm", "--force", *at_once, name)


def mend_of(said: str) -> str:
    """Return what mends that a client failed, by what it said; empty if that is not known."""
    return next((mend for pattern, mend in _MENDS.items() if re.search(pattern, said, re.IGNORECASE)), "")
