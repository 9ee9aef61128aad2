"""The kinds of values that say where: paths relative to the file, and addresses to listen on."""

import os.path
import re
from dataclasses import dataclass

from poorwill.config.kinds import Json, quoted, toml_name
from poorwill.config.sheet import Bad, Place, Sheet

_HOST = re.compile(r"[A-Za-z0-9._-]*|[0-9A-Fa-f:.]+(%\w+)?")


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""`owner/name` on the Hugging Face hub; a relative path can look the same."""


def absolute(path: str, sheet: Sheet) -> str:
    """Return a path as counted from the directory of `fleet.toml`, `~` being the home directory."""
    if sheet.home and (path == "~" or path.startswith("~/")):
        path = sheet.home + path[1:]
    return os.path.normpath(os.path.join(sheet.base, path))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePath:
    """A path; a relative one counts from the directory of `fleet.toml`, `~` is the home directory."""

    or_hub: bool = False
    """Whether `owner/name`, a model id of the hub, is left as it is; `absolute` decides later."""

    @property
    def words(self) -> str:
        """Return what may be written."""
        return "a path, relative to the file" + (", or a model id of the hub" if self.or_hub else "")

    def read(self, raw: object, place: Place) -> str | Bad:
        """Return the absolute path."""
        if not isinstance(raw, str):
            return place.wrong(f"must be a path, not {toml_name(raw)}")
        if not raw.strip() or "\0" in raw:
            return place.wrong("must be a path, not empty")
        if self.or_hub and _HUB_ID.fullmatch(raw):
            return raw
        return absolute(raw, place.sheet)

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"type": "string", "minLength": 1}

    def show(self, value: object) -> str:
        """Return the path in quotes."""
        return quoted(value)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: `"HOST:PORT"`, `"[IPV6]:PORT"` or `":PORT"`; port 0 takes a free one."""

    words: str = 'an address: `"127.0.0.1:8080"`; port 0 takes a free one'

    def read(self, raw: object, place: Place) -> tuple[str, int] | Bad:
        """Return host and port. `":8080"` is every address of the machine."""
        if not isinstance(raw, str):
            hint = f'write "127.0.0.1:{raw}"' if isinstance(raw, int) else ""
            return place.wrong(f"must be an address, not {toml_name(raw)}", hint)
        host, colon, digits = raw.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            return place.wrong(f"{raw!r} is not an address", "put IPv6 in brackets: [::1]:8080")
        if not colon or not re.fullmatch(r"\d{1,5}", digits) or int(digits) > 65_535:
            return place.wrong(f"{raw!r} has no port from 0 to 65535", "e.g. 127.0.0.1:8080")
        if not _HOST.fullmatch(host):
            return place.wrong(f"{host!r} is not a host", "e.g. 127.0.0.1:8080")
        return host or "0.0.0.0", int(digits)

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"type": "string", "pattern": r"^.*:\d{1,5}$"}

    def show(self, value: object) -> str:
        """Return host and port in quotes."""
        assert isinstance(value, tuple)
        host, port = value
        return quoted(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
