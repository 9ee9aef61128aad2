"""Readers of paths and addresses: files, addresses to listen on, and addresses of engines."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from poorwill.config.problems import FileProblems, Location
from poorwill.config.values.hub_names import SCHEME, hub_name
from poorwill.config.values.scalars import BadValue, Json, ScalarReader, quoted, text_of, toml_name
from poorwill.core.settings import Address
from poorwill.core.settings.addresses import EngineUrl, is_loopback
from poorwill.core.settings.paths import absolute_path

_HOST = re.compile(r"[A-Za-z0-9._-]*|[0-9A-Fa-f:.]+(%\w+)?")
_ENGINE_URL = re.compile(
    r"http(s?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+|\{public\}|\{private\})(?::(\d{1,5}))?((?:/[\w.~%-]+)*)/?",
    re.ASCII,
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""`owner/name` on the Hugging Face hub; a relative path can look the same."""


def absolute(path: str, found: FileProblems) -> str:
    """Return a path as counted from the directory of `fleet.toml`, `~` being the home directory."""
    return absolute_path(path, base=found.base, home=found.home)


class FileReader:
    """Reads a path; a relative one counts from the directory of `fleet.toml`, `~` is the home directory."""

    def __init__(self, *, or_hub: bool) -> None:
        """`or_hub` leaves `owner/name`, a model id of the hub, as it is; `load` looks for the file later."""
        self._or_hub = or_hub
        self.words = "a path, relative to the file" + (", or a model id of the hub" if or_hub else "")
        self.schema: Json = {"type": "string", "minLength": 1}

    def read(self, raw: object, at: Location) -> object:
        """Return the absolute path."""
        if not isinstance(raw, str):
            return at.wrong(f"must be a path, not {toml_name(raw)}")
        if not raw.strip() or "\0" in raw:
            return at.wrong("must be a path, not empty")
        if self._or_hub and raw.startswith(SCHEME) and hub_name(raw) is None:
            return at.wrong(f"{raw!r} names no model of the hub", "hf:ORG/NAME:FILE or QUANT@REVISION")
        if self._or_hub and (_HUB_ID.fullmatch(raw) or raw.startswith(SCHEME)):
            return raw
        return absolute(raw, at.found)

    def show(self, value: object) -> str:
        """Return the path in quotes."""
        return quoted(value)


def parse_address(raw: object) -> Address:
    """Read `HOST:PORT`. Raises BadValue."""
    example = "e.g. 127.0.0.1:8080"
    if isinstance(raw, int) and not isinstance(raw, bool):
        raise BadValue(f"must be an address, not {toml_name(raw)}", f'write "127.0.0.1:{raw}"')
    text = text_of(raw, "an address")
    host, colon, digits = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise BadValue(f"{text!r} is not an address", "put IPv6 in brackets: [::1]:8080")
    if not colon or not re.fullmatch(r"\d{1,5}", digits) or int(digits) > 65_535:
        raise BadValue(f"{text!r} has no port from 0 to 65535", example)
    if not _HOST.fullmatch(host):
        raise BadValue(f"{host!r} is not a host", example)
    return Address(host or "0.0.0.0", int(digits))


def listen_addresses() -> ScalarReader:
    """Return the reader of `"HOST:PORT"`, `"[IPV6]:PORT"` and `":PORT"`, every address of the machine."""
    return ScalarReader(
        words='an address: `"127.0.0.1:8080"`; port 0 takes a free one',
        parse=parse_address,
        schema={"type": "string", "pattern": r"^.*:\d{1,5}$"},
    )


def engine_urls() -> ScalarReader:
    """Return the reader of the address of an engine on another machine: `"https://HOST:PORT/PREFIX"`."""

    def parse(raw: object) -> EngineUrl:
        text = text_of(raw, "an address")
        match = _ENGINE_URL.fullmatch(text)
        port = int(match[3] or (443 if match[1] else 80)) if match else 0
        if match is None or not 0 < port <= 65_535:
            raise BadValue(f"{text!r} is not an engine's address", "e.g. https://engine.example:8000")
        prefix = match[4].removesuffix("/v1")  # clients' paths begin with it
        return EngineUrl(match[2].strip("[]"), port, prefix, bool(match[1]))

    return ScalarReader(
        words='an address: `"https://engine.example"`, `"http://203.0.113.7:8000"`',
        parse=parse,
        schema={"type": "string", "pattern": r"^https?://[^/?#]+(/[^?#]*)?$"},
        shown=quoted,
    )


def in_the_clear(url: str) -> bool:
    """Return whether what is sent to a URL crosses a network unencrypted."""
    return url.startswith("http:") and not is_loopback(urlsplit(url).hostname or "")


def is_public(host: str) -> bool:
    """Return whether an address is reached over the Internet; unknown for a name, so False."""
    if host == "{public}":
        return True
    try:
        return ip_address(host).is_global
    except ValueError:
        return False
