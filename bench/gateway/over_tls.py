"""What TLS to an engine costs on the warm path: CPU of the gateway a request, as a ratio to plain HTTP.

    python bench/gateway/over_tls.py [--requests 4000] [--connections 16] [--rounds 3]

Gateway, engine and load are processes of their own, the gateway's CPU is counted alone. Both ways have the
same engine and load, alternate, and keep their connections; the figures are medians over the rounds.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from processes import free_port, started, until_answers  # noqa: E402

BODY = b'{"model": "m1", "messages": [{"role": "user", "content": "%s"}]}' % (b"x" * 200)
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer sk-bench\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 300\r\n\r\n" + b" " * 300


class Engine(asyncio.Protocol):
    """Answers each request alike; every request ends with its only `}]}`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"}]}"))  # type: ignore[attr-defined]


async def engine(port: int, pem: str) -> None:
    from tests.gateway.bridge_site import serving_tls

    tls = serving_tls(Path(pem)) if pem else None
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", port, ssl=tls)
    await server.serve_forever()


async def load(port: int, connections: int, requests: int) -> None:
    async def one(count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count):
            writer.write(ASK)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(300)
        writer.close()

    await asyncio.gather(*(one(requests // connections) for _ in range(connections)))


def measured(pem: str, options: argparse.Namespace, folder: Path) -> float:
    """Return microseconds of the gateway's CPU a request."""
    port, engine_port = free_port(), free_port()
    serve = [sys.executable, __file__, "--engine", str(engine_port), "--pem", pem]
    gateway = [sys.executable, str(HERE / "static_gateway.py"), str(port), str(engine_port), pem]
    with (
        started(serve, core=1, log=folder / "engine.log"),
        started(gateway, core=0, log=folder / "gateway.log") as process,
    ):
        assert until_answers(port, ASK, process, limit_s=60) is not None, (folder / "gateway.log").read_text()
        asyncio.run(load(port, options.connections, options.requests // 4))
        before = process.cpu_s()
        asyncio.run(load(port, options.connections, options.requests))
        return (process.cpu_s() - before) / options.requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("--requests", 4000), ("--connections", 16), ("--rounds", 3), ("--engine", 0)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--pem", default="")
    options = parser.parse_args()
    if options.engine:
        import uvloop

        uvloop.run(engine(options.engine, options.pem))
        return
    from tests.gateway.bridge_site import certificate

    with tempfile.TemporaryDirectory() as folder:
        pem = str(certificate(Path(folder)))
        rounds = [
            (measured("", options, Path(folder)), measured(pem, options, Path(folder)))
            for _ in range(options.rounds)
        ]
    plain, tls = (statistics.median(values) for values in zip(*rounds, strict=True))
    print(f"plain {plain:.0f} us, over TLS {tls:.0f} us a request: {tls / plain:.2f} times")


if __name__ == "__main__":
    main()
