"""The keys of `[models.NAME.cloud]`: the rented machine that a model's engine is on."""

import re
from dataclasses import dataclass

from poorwill.config.kinds import ENV_NAME, Json, Text, choice, quoted, toml_name
from poorwill.config.sheet import Bad, Place
from poorwill.config.tables import Field, Group
from poorwill.core.settings import CloudSettings

CLOUDS = ("hyperstack", "scaleway")
"""The clouds that a machine can be rented from, by the names of their drivers."""

_URL = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class EngineUrl:
    """Where an engine serves on another machine: `"http://HOST:PORT"`."""

    words: str = 'an address: `"http://203.0.113.7:8000"`'

    def read(self, raw: object, place: Place) -> tuple[str, int] | Bad:
        """Return host and port."""
        if not isinstance(raw, str):
            return place.wrong(f"must be an address, not {toml_name(raw)}")
        if raw.startswith("https:"):
            hint = "poorwill speaks plain HTTP to engines: use a private network, WireGuard or ssh -L"
            return place.wrong("https is not spoken to engines", hint)
        match = _URL.fullmatch(raw)
        port = int(match[2] or 80) if match else 0
        if match is None or not 0 < port <= 65_535:
            return place.wrong(f"{raw!r} is not an engine's address", "e.g. http://203.0.113.7:8000")
        return match[1].strip("[]"), port

    def schema(self) -> Json:
        """Return the JSON Schema."""
        return {"type": "string", "pattern": r"^http://[^/]+/?$"}

    def show(self, value: object) -> str:
        """Return the address in quotes."""
        assert isinstance(value, tuple)
        host, port = value
        return quoted(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


CLOUD = Group(
    makes=CloudSettings,
    fields=(
        Field(
            key="provider",
            kind=choice(*CLOUDS),
            required=True,
            doc="Who rents the machine out.",
        ),
        Field(
            key="id",
            kind=Text(pattern=r"([A-Za-z0-9-]{1,32}/)?[A-Za-z0-9_-]{1,64}", words="the id of a machine"),
            into="machine",
            required=True,
            doc="The machine's id at its provider, as text; for `scaleway` with its zone before it: "
            '`"fr-par-2/11111111-..."`.',
        ),
        Field(
            key="url",
            kind=EngineUrl(),
            into="host+port",
            required=True,
            doc="Where the machine's engine serves. The machine starts it by itself when it boots, e.g. as a "
            "systemd unit; the address must stay the same.",
        ),
        Field(
            key="key_env",
            kind=ENV_NAME,
            required=True,
            doc="The environment variable that holds the provider's API key.",
        ),
        Field(
            key="api",
            kind=Text(pattern=r"(https?://\S+)?", words="an http or https address"),
            doc="The address of the provider's API, where it is not the usual one.",
        ),
    ),
)
