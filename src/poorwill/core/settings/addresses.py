"""Addresses, and which of them only this machine can reach."""

import ipaddress
from typing import NamedTuple


class Address(NamedTuple):
    """Where to listen or connect."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class EngineUrl(NamedTuple):
    """Where an engine elsewhere serves."""

    host: str
    port: int
    prefix: str = ""
    """The path before its own paths, without a slash at its end."""
    secure: bool = False

    def __str__(self) -> str:
        return f"http{'s' if self.secure else ''}://{self.named}{self.prefix}"

    @property
    def named(self) -> str:
        """Host and port as the `Host` header has them: the usual port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
