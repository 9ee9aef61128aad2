"""Checks the files, programs, variables and ports that a configuration needs. Changes nothing."""

import errno
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType

from poorwill.config.key_lines import KeyPath
from poorwill.config.problems import FileProblems, ModelProblems
from poorwill.config.rules.cloud import SDKS
from poorwill.core.extras import install_extra
from poorwill.core.problems import Problem
from poorwill.core.settings import CloudSettings, EngineElsewhere, FleetSettings, ModelSettings
from poorwill.core.words import Tier
from poorwill.hosts.files.landlock import landlock_version
from poorwill.hosts.files.opening import UnsafeFile, check_own, open_to_read
from poorwill.hosts.files.user import engine_user, may_freeze_others

_GGUF = b"GGUF"
"""How every GGUF file begins (ggml's docs/gguf.md, `magic`)."""


_CREDENTIALS: Mapping[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = MappingProxyType(
    {
        "aws": (
            (
                *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
                *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            ),
            (("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), ("AWS_CONFIG_FILE", ".aws/config")),
        ),
        "gcp": (
            ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"),
            (("", ".config/gcloud/application_default_credentials.json"),),
        ),
    }
)
"""Where a cloud's SDK looks first: variables, and files with the variables that name other ones."""

WeightsFault = Callable[[str], tuple[str, str] | None]
"""Returns what is wrong with a model file and a hint; None if nothing is."""


def no_fault(path: str) -> tuple[str, str] | None:
    """Report nothing: for callers that do not look into model files."""
    return None


def check_machine(
    fleet: FleetSettings,
    found: FileProblems,
    env: Mapping[str, str],
    *,
    weights_fault: WeightsFault,
    source: str,
) -> None:
    """Report missing model files, programs and environment variables, and what others could change.

    `source` is the path of the configuration file.
    """
    for model in fleet.models:
        here = ModelProblems(name=model.name, found=found)
        if model.away is not None:
            _check_away(model, model.away, here, env)
        if model.hosted is not None and model.hosted.bridge and model.hosted.key_env:
            _check_key(model.hosted.key_env, "hosted.key_env", here, env, "or take bridge out")
        if model.hosts:
            continue  # its files are there
        if os.path.isabs(model.engine.path):
            _check_file(model, here, weights_fault)
        if model.engine.cwd and not os.path.isdir(model.engine.cwd):
            here.wrong(["cwd"], f"no such directory: {model.engine.cwd}")
        if model.engine.command:
            _check_program(model, here, env)
        if model.engine.user:
            _check_user(model, here)
    if fleet.encrypt_key_env and not env.get(fleet.encrypt_key_env):
        what = f"{fleet.encrypt_key_env} is not set in the environment"
        found.wrong(("fleet", "encrypt_key_env"), what)
    if fleet.confine_engines and not landlock_version():
        found.wrong(("fleet", "confine_engines"), "this kernel has no Landlock", "see `lsm=` of the kernel")
    if os.path.exists(fleet.directory) and not os.path.isdir(fleet.directory):
        found.wrong(("fleet", "directory"), f"{fleet.directory} is not a directory")
    _check_own(fleet.directory, ("fleet", "directory"), found)
    _check_own(source, (), found)


def _check_own(path: str, where: KeyPath, found: FileProblems) -> None:
    try:
        check_own(path)
    except UnsafeFile as error:
        hint = "whoever can change it can run programs as the user who runs poorwill"
        found.wrong(where, f"{path} {error.strerror}", hint)
    except OSError:  # it is made, or reported, later
        return


def _check_key(name: str, where: str, found: ModelProblems, env: Mapping[str, str], need: str) -> None:
    key = env.get(name, "")
    if not key:
        found.wrong([where], f"{name} is not set in the environment", f"export {name}=..., {need}")
    elif not re.fullmatch(r"[!-~]+", key):
        hint = "a key is one word of letters, digits and signs; look for a space or a line end"
        found.wrong([where], f"{name} does not hold an API key", hint)


def _check_cloud(cloud: CloudSettings, found: ModelProblems, env: Mapping[str, str]) -> None:
    provider = cloud.provider
    if cloud.key_env:
        _check_key(cloud.key_env, "cloud.key_env", found, env, f"the API key of {provider}")
    if provider in SDKS and not _is_installed(SDKS[provider]):
        what = f"{provider} needs the package {SDKS[provider]}, which is not installed"
        found.wrong(["cloud.provider"], what, install_extra(provider))
    named = env.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    if provider == "gcp" and named and not os.path.isfile(named):
        what = f"GOOGLE_APPLICATION_CREDENTIALS names {named}, which is no file"
        found.wrong(["cloud.provider"], what)


def _check_away(
    model: ModelSettings, away: EngineElsewhere, found: ModelProblems, env: Mapping[str, str]
) -> None:
    at = ""
    if model.cloud is not None:
        _check_cloud(model.cloud, found, env)
        at = "cloud."
    if away.url_key_env:
        _check_key(away.url_key_env, f"{at}url_key_env", found, env, "the API key of the engine")
    if away.url_ca and not os.path.isfile(away.url_ca):
        found.wrong([f"{at}url_ca"], f"no such file: {away.url_ca}")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


def cloud_cautions(fleet: FleetSettings, env: Mapping[str, str]) -> Iterator[Problem]:
    """Return a warning for each rented machine whose SDK will find no credentials in variables and files."""
    home = env.get("HOME", "")
    for model in fleet.models:
        names, files = _CREDENTIALS.get(model.cloud.provider if model.cloud else "", ((), ()))
        paths = [env.get(name) or os.path.join(home, usual) for name, usual in files]
        if model.cloud is None or not names or any(map(env.get, names)) or any(map(os.path.exists, paths)):
            continue
        yield Problem(
            where=f"models.{model.name}.cloud.provider",
            what=f"no credentials for {model.cloud.provider} in the environment or in {paths[0]}",
            hint="right only where this machine has a role of its own; poorwill doctor asks the cloud",
        )


def _check_file(model: ModelSettings, found: ModelProblems, weights_fault: WeightsFault) -> None:
    path = model.engine.path
    try:
        if model.engine.kind != "llama.cpp":
            os.stat(path)
            fault = weights_fault(path) if model.engine.kind in ("vllm", "sglang", "transformers") else None
            if fault is not None:
                found.wrong(["path"], *fault)
            return
        with open(open_to_read(path), "rb") as file:
            magic = file.read(len(_GGUF))
    except FileNotFoundError:
        found.wrong(["path"], f"no such file: {path}", "relative paths count from the file's directory")
    except OSError as error:
        hint = "llama.cpp needs one GGUF file" if error.errno == errno.EISDIR else ""
        found.wrong(["path"], f"cannot read {path}: {error.strerror}", hint)
    else:
        if magic != _GGUF:
            hint = "llama.cpp reads GGUF files; for other weights choose another engine"
            found.wrong(["path"], f"{path} is no GGUF file", hint)
        elif (fault := weights_fault(path)) is not None:
            found.wrong(["path"], *fault)


def _check_program(model: ModelSettings, found: ModelProblems, env: Mapping[str, str]) -> None:
    program = model.engine.command[0]
    if "{" in program or ("/" in program and not program.startswith("/")):
        return
    search = model.engine.env.get("PATH", env.get("PATH", os.defpath))
    if shutil.which(program, path=search) is None:
        found.wrong(["command"], f"no program {program!r} here", "give its full path, or install it")


def _check_user(model: ModelSettings, found: ModelProblems) -> None:
    name = model.engine.user
    try:
        user = engine_user(name)
    except ValueError as error:
        found.wrong(["engine_user"], str(error), f"useradd --system --create-home {name}")
        return
    if model.cloud is not None:
        found.wrong(["engine_user"], "is for engines of this machine, not of a rented one", "take it out")
    elif user is None or user.uid == os.geteuid():
        return
    elif os.geteuid() != 0:
        hint = "run poorwill as root, or take it out"
        found.wrong(["engine_user"], f"only root can start an engine as {name}", hint)
    elif Tier.FROZEN in model.replica.park.ladder and not may_freeze_others():
        what = "the tier `frozen` needs CAP_SYS_RESOURCE for an engine of another user"
        found.wrong(["engine_user"], what, "give it to poorwill, or take `frozen` out of the ladder")
    else:
        path, kind = model.engine.path, model.engine.kind
        caching = kind in ("vllm", "sglang", "transformers", "ollama")
        for access, does, what in (
            ("-r", "read", path if os.path.isabs(path) else ""),
            ("-x", "run", sys.executable if kind in ("llama.cpp", "toy") else ""),
            ("-w", "write to its home", user.home if caching else ""),
        ):
            if what and not user.may(access, what):
                hint = "look at the modes of every directory on the way"
                found.wrong(["engine_user"], f"{name} cannot {does} {what}", hint)


def taken_ports(fleet: FleetSettings, *, engines: bool = True) -> Sequence[Problem]:
    """Return a problem for each configured port that cannot be listened on now.

    Binds each port briefly and releases it. `engines` includes the engines' fixed ports; leave them out if
    engines of this fleet may be running already.
    """
    gateway = fleet.gateway
    wanted = [
        ("gateway.listen", *gateway.listen),
        ("gateway.admin", *gateway.admin),
        *((f"gateway.{name}", *address) for name, address in gateway.beside.items()),
    ]
    if engines:
        wanted += [(f"models.{model.name}.port", "127.0.0.1", model.engine.port) for model in fleet.models]
    tried = (_try_port(where, host, port) for where, host, port in wanted if port)
    return [problem for problem in tried if problem is not None]


def _try_port(where: str, host: str, port: int) -> Problem | None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        hints = {
            errno.EADDRINUSE: "another program uses it; is poorwill already running? port 0 takes a free one",
            errno.EACCES: "ports below 1024 need a privilege",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }
        what = f"cannot listen on {host}:{port}: {error.strerror or error}"
        return Problem(where=where, what=what, hint=hints.get(error.errno or 0, ""))
    return None
