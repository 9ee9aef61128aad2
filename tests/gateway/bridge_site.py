"""A gateway with a bridge to a fake hosted API: a real server on loopback, over HTTP or TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from poorwill.compose.bridges import bridged
from poorwill.core.token_prices import MTOK, TokenPrices
from poorwill.remote.hosted_api import HostedApi

from .site import M1, Site, post, running_site
from .talk import Answer, talk
from .toy_upstream import Asked, Script, ToyUpstream, answer, chat, toy_upstream

HOSTED_KEY = "sk-of-the-operator"
NAME = "fakeprovider/fake-8b"
ASK = {"model": "m1", "messages": [{"role": "user", "content": "hi"}], "top_k": 3}
STREAM = ASK | {"stream": True}


def prices(at_us: int, tokens_in: int) -> TokenPrices:
    """Prime numbers, so that no sum is right by accident."""
    return TokenPrices(input=101 * MTOK, output=307 * MTOK, parts={"cache_read": 11 * MTOK})


def fake_api(fake: ToyUpstream, **changes: object) -> HostedApi:
    api = HostedApi(
        serves=M1,
        name=NAME,
        provider="fakeprovider",
        model="fake-8b",
        url=f"http://127.0.0.1:{fake.port}/openai/v1",
        key=HOSTED_KEY,
        at_once=True,
        prices=prices,
        max_output_tokens=1000,
        tls=None,
    )
    return replace(api, **changes)  # type: ignore[arg-type]


def at_base(script: Script) -> Script:
    """Let a script that knows engines answer below the hosted API's base path."""

    async def below(asked: Asked, writer: object) -> None:
        assert asked.target.startswith("/openai/v1/"), asked.target
        await script(replace(asked, target=asked.target.removeprefix("/openai")), writer)  # type: ignore[arg-type]

    return below


@asynccontextmanager
async def bridged_site(
    script: Script = chat,
    *,
    parked: bool = True,
    api: dict[str, object] | None = None,
    **changes: object,
) -> AsyncIterator[tuple[Site, ToyUpstream]]:
    """A gateway whose model `m1` is parked, and the fake hosted API its requests go to meanwhile."""
    async with (
        toy_upstream(at_base(script)) as fake,
        running_site(parked=parked, hosted=bridged({M1: fake_api(fake, **(api or {}))}), **changes) as site,
    ):
        yield site, fake


async def ask(site: Site, body: object = ASK, **more: Any) -> Answer:
    """Ask on a connection of its own and return the answer."""
    async with talk(site.port) as client:
        client.send(post(body, **more))
        return await client.answer()


async def bridges(site: Site) -> list[dict[str, Any]]:
    """Return how the bridges stand, as the admin listener shows it."""
    async with httpx2.AsyncClient(base_url=site.admin) as client:
        return list((await client.get("/status")).json()["bridges"])


async def nothing(asked: Asked, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def says(status: int, *headers: str) -> Any:
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(status, b'{"error":{"message":"no"}}', *headers))

    return script


async def hangs_up(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def babbles(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"this is not HTTP\r\n\r\n")


def certificate(
    directory: Path, name: str = "localhost", *, until: datetime = datetime(2120, 1, 1, tzinfo=UTC)
) -> Path:
    """Write a self-signed certificate and its key into one file; it is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + built.public_bytes(serialization.Encoding.PEM)
    )
    return path


def serving_tls(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
