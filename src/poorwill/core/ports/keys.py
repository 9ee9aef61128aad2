"""API keys as the gateway checks them."""

from typing import Protocol


class KeyRing(Protocol):
    """API keys as the gateway checks them: a dictionary look-up on the warm path."""

    @property
    def required(self) -> bool:
        """Whether any key is configured, so that a request must bring one."""
        ...

    def in_use(self, name: str) -> bool:
        """Return whether there is a key of this name that is not revoked."""
        ...

    def name_of(self, credential: bytes) -> str | None:
        """Return the key's name for a presented secret, None if it is unknown or revoked."""
        ...
