"""Engines elsewhere as HTTP reaches them: over TLS or not, below a path, with a key of their own."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.ports.driver import DriverError
from poorwill.core.settings import EngineElsewhere, EngineUrl

PROXY_STATUSES = frozenset({502, 504, *range(520, 531)})
"""What proxies answer for an engine that they cannot reach or wait for no longer: 520 to 530 are
Cloudflare's, which RunPod's proxy stands behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One engine elsewhere."""

    url: EngineUrl
    tls: ssl.SSLContext | None = None
    """None: plain HTTP."""
    key: str = field(default="", repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """What every request carries."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """What the HTTP client verifies by."""
        return self.tls or False

    async def status(self, path: str, *, limit_s: float = 5.0) -> int | None:
        """Return the status of a GET; None if nobody answers, or a proxy in the engine's place.

        Raises DriverError if its certificate does not verify: that does not mend itself. Cancelled: the
        connection is closed.
        """
        try:
            status = await http_status(self, path, limit_s=limit_s)
        except ssl.SSLCertVerificationError as error:
            raise DriverError(f"{self.url.named}: {unverified(error)}") from error
        return None if status in PROXY_STATUSES else status


class Relayed(Protocol):
    """A host whose engines are reached through its relay."""

    async def connect(self, new: Callable[[], asyncio.BaseProtocol], port: int) -> None:
        """Connect a protocol to one of its engines, or raise OSError. Cancelled: nothing is left."""
        ...

    def now(self) -> Mapping[str, object]:
        """Return how the host stands, as `/status` has it."""
        ...


async def http_status(reach: Reach, path: str, *, limit_s: float = 5.0) -> int | None:
    """Return the status of a GET, or None if nobody answers within `limit_s`.

    Raises ssl.SSLCertVerificationError. The connection is closed by us, also if cancelled: an open one would
    keep a replica from being parked.
    """
    writer, url = None, reach.url
    lines = [f"GET {url.prefix}{path} HTTP/1.1", f"Host: {url.named}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in reach.headers.items()]
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(url.host, url.port, ssl=reach.tls)
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
            line = await reader.readline()
            words = line.split(None, 2)
            return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else None
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, TimeoutError, ValueError):
        return None
    finally:
        if writer is not None:
            writer.transport.abort()


def verifying(ca: str = "") -> ssl.SSLContext:
    """Return a TLS context that trusts whom the system trusts, or whom a file of certificates names.

    Raises OSError (ssl.SSLError) if the file cannot be read.
    """
    context = ssl.create_default_context(cafile=ca or None)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def unverified(error: BaseException | None) -> str:
    """Return, for people, why a certificate did not verify, if that is behind an error; else nothing."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            mend = "; url_ca names the file of the authority that signed it" if _own(error) else ""
            return f"its certificate does not verify: {error.verify_message}{mend}"
        error = error.__cause__ or error.__context__
    return ""


def _own(error: ssl.SSLCertVerificationError) -> bool:
    """Return whether nobody known has signed it: X509_V_ERR_* 18 to 21 of x509_vfy.h."""
    return error.verify_code in (18, 19, 20, 21)


def reach_of(there: EngineElsewhere, env: Mapping[str, str]) -> Reach:
    """Return how an engine elsewhere is reached.

    Raises OperatorFault if its key is not in `env`, or its authority's file cannot be read.
    """
    assert there.engine is not None
    key = env.get(there.url_key_env, "") if there.url_key_env else ""
    if there.url_key_env and not key:
        what = f"{there.url_key_env} is not set in the environment"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint="it holds the API key of the engine")
    try:
        tls = verifying(there.url_ca) if there.engine.secure else None
    except OSError as error:
        what = f"cannot read certificates from {there.url_ca}: {error.strerror or error}"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint="a file in PEM format") from error
    return Reach(url=there.engine, tls=tls, key=key)
