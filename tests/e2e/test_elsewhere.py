"""A model whose engine somebody else runs, served by the real program: over TLS, with a key, below a path."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.gateway.bridge_site import certificate
from tests.waiting import wait_until

from poorwill.tiers.proof import free_port

from .program import Program, assert_tiles, notes, spans, wakes
from .tls_proxy import tls_proxy

TOY = (sys.executable, "-m", "poorwill.engines.programs.toy_server", "--model", "big", "--port")
KEY = "s3cret-of-the-engine"


@pytest.fixture
def engine() -> Iterator[int]:
    """The port of an engine that is none of poorwill's."""
    port = free_port()
    with subprocess.Popen([*TOY, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield port
        process.kill()


def written(fleet: Path, url: str, *lines: str) -> Path:
    own = "\n".join([f'url = "{url}"', 'engine = "vllm"', 'engine_model = "big"', *lines])
    (fleet / "fleet.toml").write_text(f'[models.toy]\n{own}\n\n[[rates]]\nmodel = "toy"\nactive_usd_h = 1\n')
    return fleet


def test_an_engine_elsewhere(fleet: Path, engine: int) -> None:
    pem = certificate(fleet)
    with tls_proxy(pem, engine, key=KEY) as proxy:
        written(fleet, f"{proxy.url}/v1", 'url_key_env = "ENGINE_KEY"', f'url_ca = "{pem}"')
        program = Program.start(fleet, ENGINE_KEY=KEY)
        wait_until(lambda: program.status()["state"] == "ready")
        assert program.ask().json()["choices"] and proxy.keys == {f"Bearer {KEY}"}
        assert "its floor (always) holds" in program.operator("park").text, "nobody parks it"
        program.kill()
        program = Program.start(fleet, ENGINE_KEY=KEY)
        wait_until(lambda: program.status()["state"] == "ready")
        assert program.ask().status_code == 200
        assert "adopted" in dict(notes(fleet))
        assert program.stop() == 0
    assert httpx2.get(f"http://127.0.0.1:{engine}/health", timeout=5).status_code == 200, "it runs on"
    assert_tiles(fleet)
    assert {"floor", "serving", "unobserved"} <= {cause for cause, *_ in spans(fleet)}


def test_a_reload_changes_where_it_is(fleet: Path, engine: int) -> None:
    program = Program.start(written(fleet, f"http://127.0.0.1:{engine}"))
    assert program.ask().json()["choices"]
    written(fleet, f"http://localhost:{engine}")
    assert httpx2.post(f"http://{program.admin}/reload", timeout=60).status_code == 200
    wait_until(lambda: len(wakes(fleet)) == 2)
    assert program.ask().json()["choices"]
    assert program.stop() == 0
