"""What can be asked of a cloud that rents machines, in the same words for all clouds.

Each cloud has a file with its client. A client makes one request and raises exceptions that
differ by what the caller can do about them; it never retries.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from poorwill.core.ports.driver import DriverError


class MachineState(StrEnum):
    """What a rented machine does, as far as the next request to its cloud depends on it."""

    RUNNING = "running"
    OFF = "off"  # stopped with all its hardware reserved: some clouds bill that in full
    PARKING = "parking"
    PARKED = "parked"
    MOVING = "moving"  # on its way to somewhere, and nothing may be asked meanwhile
    FAILED = "failed"  # only its owner can help it, at the cloud's console


class CloudAction(StrEnum):
    """What a cloud can be asked to do with a machine."""

    HIBERNATE = "hibernate"
    RESTORE = "restore"
    START = "start"
    REBOOT = "reboot"  # hard, as by a power switch


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineStatus:
    """A machine's state at the last request for it."""

    state: MachineState
    word: str
    """The cloud's own word for it, for people."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Its addresses now, by their names in `fleet.toml` (`{public}`), if the cloud tells them."""
    failure: DriverError | None = None
    """Why the last request for it came to nothing, if the cloud tells that only afterwards."""


class CloudBusy(DriverError):
    """The cloud did not do it, or did not say so: check the machine's state, then ask again."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CloudRefused(DriverError):
    """The cloud refuses for good: a wrong key, a machine that cannot do that."""


class MachineGone(DriverError):
    """The cloud knows of no such machine."""


class Cloud(Protocol):
    """A cloud's API, for the machines of one account."""

    @property
    def name(self) -> str:
        """The cloud's name, as in `fleet.toml`."""
        ...

    async def state(self, machine: str) -> MachineStatus:
        """Return what a machine does now; changes nothing.

        Raises CloudBusy, CloudRefused or MachineGone. Cancelled: the connection is closed.
        """
        ...

    async def ask(self, machine: str, verb: CloudAction) -> None:
        """Ask for a change; returns when the cloud has taken it on, long before it is done.

        Raises as `state` does, and NoCapacity if the cloud has no hardware free. Cancelled: it is
        unknown whether the cloud took it on.
        """
        ...
