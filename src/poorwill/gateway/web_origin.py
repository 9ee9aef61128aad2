"""Whether a request may come from a web page, and which pages may read the answers.

A browser on the operator's machine reaches loopback as well as any program there, so a listener that asks for
no key must tell pages from programs: by `Host`, which a name that was re-bound to loopback gives away (DNS
rebinding), and by `Origin` and `Sec-Fetch-Site`, which pages cannot forge. Pages that may come in are listed
in the configuration.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

EVERY_ORIGIN = "*"
_FROM_ELSEWHERE = frozenset({"cross-site", "same-site"})


def foreign_page(
    *, host: str | None, origin: str | None, fetch_site: str, names: Collection[str], origins: Collection[str]
) -> str:
    """Return why a request to a listener without keys is refused, or nothing.

    `names` are the listener's own, besides addresses and localhost; `origins` the pages that may come in.
    """
    name = "" if host is None else _name(host)  # every browser sends a Host
    if host is not None and not (_is_local(name) or name in names):
        return f"this listener does not answer to the name {name[:100]!r}"
    if origin is not None and (origin in origins or (host and _authority(origin) == host.lower())):
        return ""
    if origin is not None or fetch_site in _FROM_ELSEWHERE:
        return f"this listener takes no requests from web pages of {(origin or 'other sites')[:100]}"
    return ""


def _name(host: str) -> str:
    """Return the name in a `Host` header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _authority(url: str) -> str:
    """Return host and port of a URL, empty if it has none."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _is_local(name: str) -> bool:
    """Return whether no DNS answer can make this name point here: an address, or localhost."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
