"""Other hosts as the fleet knows them; what is known of a replica on one that answers nobody: nothing."""

from collections.abc import Awaitable, Callable

from poorwill.core.ports.driver import DriverError

ON_HOST = "host "
"""The detail of a wake's `provision`, before the name of the host that it chose."""


class HostSilent(DriverError):
    """A replica's host answers nobody: what is on it may go on, and cannot be seen. `back` waits for it."""

    def __init__(self, message: str, *, back: Callable[[], Awaitable[None]]) -> None:
        super().__init__(message)
        self.back = back
