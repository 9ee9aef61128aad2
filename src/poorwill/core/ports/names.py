"""The names that clients use for models."""

from collections.abc import Callable
from dataclasses import dataclass

from poorwill.core.words import ModelName


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a name means that is not a model's own."""

    model: ModelName
    adapter: str = ""
    """The engine knows it by this very name."""
    changed: Callable[[bytes], bytes] | None = None
    """Returns a body with the values of a preset."""
