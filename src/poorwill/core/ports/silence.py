"""What is known of a replica on a host that answers nobody: nothing."""

from collections.abc import Awaitable, Callable

from poorwill.core.ports.driver import DriverError


class HostSilent(DriverError):
    """A replica's host answers nobody: what is on it may go on, and cannot be seen. `back` waits for it."""

    def __init__(self, message: str, *, back: Callable[[], Awaitable[None]]) -> None:
        super().__init__(message)
        self.back = back
