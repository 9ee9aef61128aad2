"""Drivers, one a way of parking, and the engine processes they start.

Cancellation: every `async` method may be cancelled at each of its awaits and then leaves nothing half done
that its own docstring does not name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.words import ReplicaId, Tier

Report = Callable[[PhaseMark], None]
"""Called by a driver or a log follower as a phase begins. Never blocks, never raises."""


class DriverError(Exception):
    """A driver could not do what it was asked. `running` says whether the engine still serves."""

    def __init__(self, message: str, *, running: Running | None = None) -> None:
        super().__init__(message)
        self.running = running


class NoCapacity(DriverError):
    """Nobody has room for the replica now: its cloud is out of machines. Later it may have one."""


class SnapshotRefused(DriverError):
    """A snapshot must not be woken: it does not match, is damaged or is missing. It may be discarded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something a driver found: a process or a snapshot it may have made, or its rented machine."""

    replica: ReplicaId
    generation: int
    """0: not known. A cloud does not know of generations."""
    tier: Tier | None
    """None: running."""
    what: str
    """For people: a pid and command, or a path."""
    image_bytes: int = 0
    running: Running | None = None
    parked: Parked | None = None
    unfinished: bool = False
    """Its driver failed to end it: the sweep ends it unless a replica owns it."""
    silent: str = ""
    """Not a find: a host that could not be looked at. What is there may be there still."""


class Driver(Protocol):
    """One way of parking: it parks ready replicas into its tier and wakes them from it.

    `cold` is the driver every ladder ends with: its wake is a start, its park is a stop.
    """

    @property
    def name(self) -> str:
        """The driver's name, as in `fleet.toml` and the ledger."""
        ...

    @property
    def tier(self) -> Tier:
        """The tier it parks into and wakes from."""
        ...

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """Park a replica without requests in flight. On return its state is durable and its memory freed.

        Raises DriverError; with `.running` set if the engine still serves. Cancelled: as if it failed,
        and no half-written snapshot is left under a valid name.
        """
        ...

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """Bring a replica back to where its port accepts connections and its engine says it is ready.

        Raises SnapshotRefused if the snapshot must not be used, DriverError for any other failure; both
        leave no process behind. Cancelled: likewise no process is left.
        """
        ...

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """Park deeper: take a replica parked in a shallower tier into this one, without a wake.

        Raises DriverError if there is no way from that tier; the replica is then as it was.
        """
        ...

    async def discard(self, parked: Parked) -> None:
        """Remove what a parked replica keeps (a snapshot, a sleeping process). Idempotent."""
        ...

    async def inventory(self) -> Sequence[Found]:
        """Return what exists of this driver's making, running or parked, owned or not."""
        ...


class Processes(Protocol):
    """Running engines, whoever started them: processes of this machine, or one on a rented machine."""

    async def kill(self, running: Running) -> None:
        """End the engine and return when it is gone.

        A process group gets SIGTERM, a grace period, SIGKILL, and is reaped; a rented machine is parked the
        way that costs least. Raises DriverError if it does not go.
        """
        ...

    async def exited(self, running: Running) -> str:
        """Wait until the engine, ours or adopted, has ended; return why, for people; may raise HostSilent."""
        ...

    def alive(self, running: Running) -> bool:
        """Return whether exactly this process (pid and start time) lives, no zombie; may raise HostSilent.
        Of a rented machine: whether it ran when it was last seen, or was not looked at yet."""
        ...

    def effort(self, running: Running) -> int | None:
        """Return what the engine has used so far: CPU time in 10 ms, and reads. None: nobody can tell."""
        ...
