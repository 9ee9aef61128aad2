"""API keys as the gateway checks them."""

from typing import Annotated, Protocol

from msgspec import Meta, Struct

Most = Annotated[int, Meta(ge=0, le=10**12)]
"""A limit; 0 is none."""


class KeyLimits(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one key may do."""

    models: tuple[str, ...] = ()
    """The models it may use; all, if empty."""
    requests_minute: Most = 0
    tokens_minute: Most = 0
    at_once: Most = 0
    """Requests held or in work."""
    held: Most = 0
    """Requests held."""
    priority: int = 0
    """Held requests of a higher one are served first."""
    operator: bool = False
    """It opens the admin listener away from loopback, and no model."""


NO_LIMITS = KeyLimits()


class OperatorKeys(Protocol):
    """The keys that open the admin listener away from loopback."""

    def operator_of(self, credential: bytes) -> str | None:
        """Return the name of an operator's key, None if it is none, or not in use."""
        ...

    def is_operator(self, name: str) -> bool:
        """Return whether there is an operator's key of this name that is neither revoked nor expired."""
        ...


class KeyRing(Protocol):
    """API keys as the gateway checks them: a dictionary look-up on the warm path."""

    @property
    def required(self) -> bool:
        """Whether any key is configured, so that a request must bring one."""
        ...

    def in_use(self, name: str) -> bool:
        """Return whether there is a key of this name that is neither revoked nor expired."""
        ...

    def name_of(self, credential: bytes) -> str | None:
        """Return the key's name for a presented secret, None if it is unknown, revoked or expired."""
        ...

    def limits(self, name: str) -> KeyLimits:
        """Return what a key may do; a key that is not in use has no limits."""
        ...
