"""Metrics on an address of their own, read by a real Prometheus; every query of the dashboard is asked."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import httpx2
import pytest
from tests.waiting import wait_until

from .program import Program, write_fleet

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
PROMETHEUS = shutil.which("prometheus")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def with_metrics(fleet: Path) -> str:
    """Write a fleet whose metrics have an address of their own; return that."""
    address = f"127.0.0.1:{free_port()}"
    write_fleet(fleet, options="load_seconds = 0.05, tokens_per_second = 10")
    file = fleet / "fleet.toml"
    file.write_text(file.read_text().replace("[gateway]", f'[gateway]\nmetrics = "{address}"'))
    return address


def test_metrics_alone_on_their_own_address(fleet: Path) -> None:
    address = with_metrics(fleet)
    program = Program.start(fleet)
    try:
        assert program.ask().status_code == 200
        text = httpx2.get(f"http://{address}/metrics", timeout=30).text
        assert 'poorwill_requests_total{model="toy"' in text
        assert "poorwill_model_cost_today" in httpx2.get(f"http://{program.admin}/metrics", timeout=30).text
        assert httpx2.get(f"http://{address}/healthz", timeout=30).json() == {"status": "ok"}
        for path in ("/", "/status", "/history/costs"):
            assert httpx2.get(f"http://{address}{path}", timeout=30).status_code == 404
        assert httpx2.post(f"http://{address}/models/toy/park", timeout=30).status_code == 404
    finally:
        assert program.stop() == 0


def test_metrics_address_that_is_taken(fleet: Path) -> None:
    address = with_metrics(fleet)
    host, _, port = address.partition(":")
    with socket.create_server((host, int(port))):
        with pytest.raises(AssertionError, match="in use"):
            Program.start(fleet)


def queries() -> list[tuple[str, str]]:
    panels = json.loads((MONITORING / "grafana.json").read_text())["panels"]
    return [
        (panel["title"], target["expr"].replace("$model", ".*"))
        for panel in panels
        for target in panel["targets"]
    ]


@pytest.mark.skipif(PROMETHEUS is None, reason="no Prometheus here: apt install prometheus")
def test_prometheus_answers_every_query(fleet: Path, tmp_path: Path) -> None:
    assert PROMETHEUS is not None
    address, port = with_metrics(fleet), free_port()
    program = Program.start(fleet)
    config = tmp_path / "prometheus.yml"
    text = (MONITORING / "prometheus.yml").read_text()
    config.write_text(text.replace("127.0.0.1:9100", address).replace("15s", "1s"))
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    command = [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=log)
    try:

        def rows(query: str) -> list[str]:
            url = f"http://127.0.0.1:{port}/api/v1/query"
            try:
                answer = httpx2.get(url, params={"query": query}, timeout=30).json()
            except httpx2.TransportError:
                return []
            assert answer["status"] == "success", (query, answer)
            values = [row["value"][1] for row in answer["data"]["result"]]
            return [value for value in values if value != "NaN"]

        def unanswered() -> list[str]:
            return [title for title, query in queries() if not rows(query)]

        def held_request() -> None:
            assert program.operator("park").status_code == 200
            assert program.ask({"model": "toy", "messages": [], "max_tokens": 5}).status_code == 200

        held_request()
        wait_until(lambda: rows("poorwill_held_seconds_count == 1"), within_s=10)
        held_request()  # rates need a second one, and the ledger is looked at every ten seconds
        wait_until(lambda: not unanswered(), within_s=25)
        loaded = httpx2.get(f"http://127.0.0.1:{port}/api/v1/rules", timeout=30).json()["data"]["groups"]
        assert [rule["health"] for rule in loaded[0]["rules"] if rule["health"] == "err"] == []
    finally:
        server.terminate()
        server.wait(30)
        assert program.stop() == 0
