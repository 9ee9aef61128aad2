"""The seams between packages, as Protocols. `compose` is where they meet their implementations.

Cancellation: every `async` method here may be cancelled at each of its awaits and must then leave nothing
half done that its own docstring does not name.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from poorwill.core.entries import Entry
from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.spend import LimitState
from poorwill.core.words import ModelName, Phase, ReplicaId, Tier, WakeId

Report = Callable[[PhaseMark], None]
"""Called by a driver or a log follower as a phase begins. Never blocks, never raises."""


class Clock(Protocol):
    """poorwill's one clock: microseconds since the Unix epoch, never backwards, wall steps smoothed out."""

    def now_us(self) -> int:
        """Return the time now."""
        ...


class Log(Protocol):
    """Structured logging: a constant message and fields. Never raises."""

    def info(self, message: str, /, **fields: object) -> None:
        """Record something that went as it should."""
        ...

    def warning(self, message: str, /, **fields: object) -> None:
        """Record something an operator should know."""
        ...

    def error(self, message: str, /, **fields: object) -> None:
        """Record something that failed."""
        ...


class LedgerWriter(Protocol):
    """The writing side of the ledger. Entries are applied in the order of the calls, across both methods."""

    def record(self, entries: Sequence[Entry]) -> Awaitable[None]:
        """Hand the entries over now; the awaitable resolves after COMMIT.

        Raises OperatorFault(LEDGER_UNAVAILABLE) from the awaitable where they could not be committed.
        Abandoning the awaitable does not take the entries back.
        """
        ...

    def post(self, entries: Sequence[Entry]) -> None:
        """Hand the entries over; committed in a batch within a second. Never blocks, never raises."""
        ...

    @property
    def unavailable(self) -> str:
        """Why nothing can be committed now (disk full, locked), or empty."""
        ...

    def dropped_rows(self) -> int:
        """Return how many request rows were dropped since the last call, 0 while nothing can be written."""
        ...


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
    """Its driver was to end it and could not: it is ended by whoever finds it owned by nobody."""


class Driver(Protocol):
    """One way of parking: it parks ready replicas into its tier and wakes them from it.

    `cold` is the driver every ladder ends with: its wake is a start, its park is a stop. One contract test
    suite runs over all drivers.
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

        Raises DriverError; with `.running` set where the engine still serves. Cancelled: as if it failed,
        and no half-written snapshot is left under a valid name.
        """
        ...

    async def wake(
        self, parked: Parked, launch: Launch, *, generation: int, report: Report
    ) -> Running:
        """Bring a replica back to where its port accepts connections and its engine says it is ready.

        Raises SnapshotRefused where the snapshot must not be used, DriverError for any other failure; both
        leave no process behind. Cancelled: likewise no process is left.
        """
        ...

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """Park deeper: take a replica parked in a shallower tier into this one, without a wake.

        Raises DriverError where there is no way from that tier; the replica is then where it was.
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
        way that costs least. Raises DriverError where it does not go.
        """
        ...

    async def exited(self, running: Running) -> str:
        """Wait until the engine has ended and return why, for people. Works for adopted ones too."""
        ...

    def alive(self, running: Running) -> bool:
        """Return whether exactly this process (pid and start time) exists and is not a zombie.

        Of a rented machine: whether it ran when it was last seen, or was not looked at yet.
        """
        ...


class Engine(Protocol):
    """What is particular to one kind of engine."""

    @property
    def name(self) -> str:
        """The engine's name, as in `fleet.toml`."""
        ...

    def launch(self, *, replica: ReplicaId, generation: int) -> Launch:
        """Return how to start the replica; reads the model file's size, never its weights.

        Raises OperatorFault where the model file is missing or is no model.
        """
        ...

    async def follow(self, launch: Launch, report: Report) -> None:
        """Read the engine's log as it grows from now on and report the phases it tells of.

        Runs until cancelled. Robust to unknown lines, colours, several processes and a flood.
        """
        ...

    async def ready(self, running: Running, launch: Launch) -> None:
        """Return when the engine answers its readiness path and one synthetic request (the warm-up)."""
        ...

    async def probe(self, running: Running, launch: Launch) -> str:
        """Return the engine's answer to a fixed greedy prompt; the same before a park and after a wake.

        Raises DriverError where it answers nothing usable.
        """
        ...

    def refine(
        self, launch: Launch, marks: Sequence[PhaseMark], began_us: int, ended_us: int
    ) -> Sequence[PhaseMark]:
        """Return the marks of a finished wake with what the log only told afterwards put in its place."""
        ...


class Connections(Protocol):
    """The gateway's keep-alive connections to replicas. A replica cannot be parked while any is open."""

    async def close(self, host: str, port: int) -> None:
        """Close every idle connection to this address and return when they are closed."""
        ...

    def cut(self, host: str, port: int, why: str) -> None:
        """Abort requests in flight to this address: their clients get `draining`, never a clean end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to send one request to one replica. Give it back exactly once through the Activator."""

    model: ModelName
    replica: ReplicaId
    generation: int
    host: str
    port: int
    engine_model: str = ""
    """What the engine calls the model, where that is another name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeNotice:
    """What a held client may be told meanwhile."""

    wake: WakeId | None
    phase: Phase | None
    waited_us: int
    ready_in_us: int | None
    """When the replica is expected to be ready, from now: by measured wakes, before the first one by
    prediction; None where neither is known."""
    left_us: int  # until the held request fails


class HeldRequest(Protocol):
    """One request's place in the hold queue."""

    async def lease(self) -> Lease:
        """Wait for the lease. Raises TryLater or EngineFault where the hold ends without one.

        Cancelled: the place is free at once; a lease granted in the same tick is handed back.
        """
        ...

    def notice(self) -> WakeNotice:
        """Return what to tell the client now."""
        ...

    @property
    def wake(self) -> WakeId | None:
        """The wake it waited for, if any."""
        ...


class Activator(Protocol):
    """The gateway's door to the fleet. All methods are called on the fleet's own event loop thread."""

    def claim(self, model: ModelName) -> Lease | None:
        """Take a lease now, or return None: the model is not ready, at its limit, or others wait.

        Synchronous: the warm path. Raises RequestFault(MODEL_NOT_FOUND) for an unknown model.
        """
        ...

    def hold(
        self, model: ModelName, *, size_bytes: int, asked_by: str, request: str
    ) -> HeldRequest:
        """Register demand, then start a wake where one is needed; return the place in the queue.

        Raises TryLater (hold_queue_full, spend_limit, wake_failed during back-off, draining).
        """
        ...

    def give_back(self, lease: Lease) -> None:
        """Return a lease. Never raises; must be called exactly once for each lease."""
        ...

    def retry_after_s(self, model: ModelName) -> int:
        """Return how soon a client should try again, from measured wakes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeInterval:
    """The published wake interval: of real wakes, in seconds."""

    count: int
    p50_s: float | None
    p95_s: float | None
    max_s: float | None
    budget_s: float
    over_budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """One replica as `/status` and `poorwill status` show it."""

    model: ModelName
    replica: ReplicaId
    state: str
    tier: Tier | None
    cause: str
    since_us: int
    in_flight: int
    held: int
    wake: WakeInterval
    phase: Phase | None = None
    ready_in_us: int | None = None
    """While it wakes: when it should be ready, from now; None where nobody can tell."""
    ladder: tuple[Tier, ...] = ()
    parks_at_us: int | None = None
    failures: int = 0
    retry_at_us: int | None = None
    last_error: str = ""
    last_error_us: int = 0
    """When that was; 0 where nothing went wrong."""
    pid: int | None = None
    port: int | None = None
    policy: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


class FleetView(Protocol):
    """What the admin listener may see of the fleet and ask of it."""

    def status(self) -> Sequence[ReplicaStatus]:
        """Return every replica's status."""
        ...

    def models(self) -> Sequence[ModelName]:
        """Return the configured models, in the configuration's order."""
        ...

    def limits(self) -> Sequence[LimitState]:
        """Return how the spend limits stand."""
        ...

    async def wake(self, model: ModelName) -> None:
        """Wake a model as an operator and wait until it is ready. Raises PoorwillError."""
        ...

    async def park(self, model: ModelName, tier: Tier | None) -> None:
        """Drain and park a model as an operator and wait until it is parked. Raises PoorwillError."""
        ...

    def events(self) -> "EventFeed":
        """Subscribe to what happens from now on."""
        ...


class EventFeed(Protocol):
    """A bounded feed of entries; a reader that falls behind loses the oldest and is told how many."""

    def __aiter__(self) -> "EventFeed":
        """Return itself."""
        ...

    async def __anext__(self) -> Entry | int:
        """Return the next entry, or the number of entries lost before the next one."""
        ...

    def close(self) -> None:
        """Stop the feed."""
        ...


class KeyRing(Protocol):
    """API keys as the gateway checks them: a dictionary look-up on the warm path."""

    @property
    def required(self) -> bool:
        """Whether any key is configured, so that a request must bring one."""
        ...

    def name_of(self, credential: bytes) -> str | None:
        """Return the key's name for a presented secret, None where it is unknown or revoked."""
        ...
