"""An engine's own sleep, for those that have one."""

from typing import Protocol

from poorwill.core.launch import Launch, Running


class EngineSleep(Protocol):
    """One engine's own sleep. The replica has no requests in flight, and the caller has a deadline."""

    def refusal(self, launch: Launch) -> str:
        """Return why this launch must not be put to sleep, or an empty string."""
        ...

    async def sleep(self, running: Running, launch: Launch) -> None:
        """Return when the engine sleeps, by its own word if it gives one. Raises DriverError."""
        ...

    async def wake(self, running: Running, launch: Launch) -> None:
        """Return when the engine is awake with its weights in place. Raises DriverError.

        Also undoes a sleep that was not completed.
        """
        ...
