"""The names that clients use for models."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from poorwill.core.words import ModelName


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a name means that is not a model's own."""

    model: ModelName
    adapter: str = ""
    """The engine knows it by this very name."""
    changed: Callable[[bytes], bytes] | None = None
    """Returns a body with the values of a preset."""


def model_row(name: str, started_s: int) -> dict[str, object]:
    """Return what both kinds of clients need to list a model."""
    created = datetime.fromtimestamp(started_s, UTC).isoformat().replace("+00:00", "Z")
    return {
        "id": name,
        "object": "model",
        "created": started_s,
        "owned_by": "poorwill",
        "type": "model",
        "display_name": name,
        "created_at": created,
    }
