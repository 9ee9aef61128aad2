"""The gateway of a simulated fleet: the real request policy, holds and responses, over weak connections.

Nothing here is a socket. A connection answers by timers of the virtual loop, ends when its engine's process
ends, and may be refused, hang, or turn out stale at the very moment it is used.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from poorwill.core.entries import RequestEnded
from poorwill.core.errors import EngineFault, ErrorCode, TryLater
from poorwill.core.ports.activator import Lease, WakeNotice
from poorwill.core.ports.keys import NO_LIMITS, KeyLimits
from poorwill.core.settings import GatewaySettings
from poorwill.core.words import ModelName, ReplicaId, WakeId
from poorwill.fleet.activator import Held
from poorwill.fleet.fleet import Fleet
from poorwill.gateway.dialects import Dialects, EngineFacts
from poorwill.gateway.downstream.exchange import Exchange, Lost
from poorwill.gateway.request_policy import RequestPolicy
from poorwill.gateway.upstream.pool import CONNECT_S
from poorwill.policies.requests.key_limits import KeyLimiter

from .laws import Broken, Leases, check_lease, check_order, check_wait
from .loop import VirtualClock
from .weather import Fault, SimulatedWorld

ANSWER_ODDS = ((Fault.NONE, 94), (Fault.FAILS, 2), (Fault.FAILS_LATE, 2), (Fault.HANGS, 2))
CONNECT_ODDS = ((Fault.NONE, 96), (Fault.SLOW, 2), (Fault.FAILS, 1), (Fault.HANGS, 1))
SILENCE_S = 600.0
"""How long an engine that owes an answer may be silent, as `gateway.upstream_timeout_s` says by default."""
PART = b"data: token\n\n"


@dataclass(eq=False)
class SimulatedUpstream:
    """A connection to the process that listened when it was made."""

    pool: "SimulatedPool"
    port: int
    pid: int
    exchange: Exchange | None = None
    used: bool = False
    paused: bool = False
    usable: bool = True
    begun: bool = False
    headed: bool = False
    """Whether the engine has got to the request that it carries."""
    due: asyncio.TimerHandle | None = None
    _next: Callable[[], None] | None = None
    """What was due while nobody read."""

    def send(self, exchange: Exchange) -> None:
        """Begin the answer: its parts come one by one, over the time that the history says."""
        self.exchange, self.begun, self.headed = exchange, False, False
        exchange.attach(self)
        if self.pid not in self.pool.world.processes:
            self.due = self.pool.loop.call_later(0, self.lost)  # stale: the reset comes at once
            return
        if self.pid in self.pool.world.asleep:
            self.pool.world.broken.append(Broken(f"a request was sent to port {self.port}, which sleeps"))
        self.begun = True
        fault = self.pool.world.weather.fault(f"{self.port}/answer", ANSWER_ODDS)
        served = self.pool.served_us(exchange) / 1e6
        steps: dict[Fault, Callable[[], None]] = {
            Fault.FAILS: lambda: self._whole(500, b'{"error": {"message": "out of memory"}}'),
            Fault.HANGS: lambda: None,
        }
        if fault is Fault.HANGS:
            self._in(SILENCE_S, self._silent)
        else:
            self._in(served / 4, steps.get(fault, lambda: self._head(served / 4, fault)))

    def _in(self, delay_s: float, step: Callable[[], None]) -> None:
        def go() -> None:
            self.due = None
            if self.paused:
                self._next = go
            elif self.pool.world.is_silent(self.pid):
                self._in(1.0, step)  # sent again and again until its host is back
            elif self.exchange is not None:
                step()

        self.due = self.pool.loop.call_later(delay_s, go)

    def _head(self, gap_s: float, fault: Fault) -> None:
        assert self.exchange is not None
        self.headed = True
        streams = self.exchange.streaming
        kind = b"text/event-stream" if streams else b"application/json"
        self.exchange.on_head(200, [(b"content-type", kind)], length=None, content_type=kind)
        self._part(3, gap_s, fault)

    def _part(self, left: int, gap_s: float, fault: Fault) -> None:
        exchange = self.exchange
        assert exchange is not None
        if left == 0:
            self._done()
            return
        if left == 1 and fault is Fault.FAILS_LATE:
            self.abandon()
            exchange.fail(EngineFault(ErrorCode.UPSTREAM_PROTOCOL, "the engine's answer is not HTTP"))
            return
        exchange.on_body([PART])
        self._in(gap_s, lambda: self._part(left - 1, gap_s, fault))

    def _whole(self, status: int, body: bytes) -> None:
        assert self.exchange is not None
        self.headed = True
        kind = b"application/json"
        self.exchange.on_head(status, [(b"content-type", kind)], length=len(body), content_type=kind)
        self.exchange.on_body([body])
        self._done()

    def _done(self) -> None:
        exchange, self.exchange = self.exchange, None
        assert exchange is not None
        self.used, self.paused = True, False
        self.pool.idle.setdefault(self.port, []).append(self)
        exchange.on_end()

    def _silent(self) -> None:
        assert self.exchange is not None
        self.exchange.fail(EngineFault(ErrorCode.UPSTREAM_TIMEOUT, "the engine sent nothing"))

    def lost(self) -> None:
        """The process has ended, and the kernel has reset the connection."""
        exchange = self.exchange
        self._forget()
        if exchange is not None:
            exchange.on_lost(Lost.UNREAD if self.used and not self.begun else Lost.BEGUN, "reset")

    def send_back(self, why: str) -> bool:
        """Have another replica take the request if nothing of an answer has come; return whether it does."""
        exchange = self.exchange
        if exchange is None or self.headed:
            return False
        self._forget()
        exchange.release()
        exchange.on_lost(Lost.UNREAD, why)
        return True

    def abandon(self) -> None:
        """Close at once."""
        self._forget()

    def _forget(self) -> None:
        self.exchange, self.usable = None, False
        if self.due is not None:
            self.due.cancel()
        self.pool.open.pop(self, None)
        if self in self.pool.idle.get(self.port, ()):
            self.pool.idle[self.port].remove(self)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        if self._next is not None:
            step, self._next = self._next, None
            self.pool.loop.call_soon(step)


@dataclass(eq=False)
class SimulatedPool:
    """Stands for the pool of connections: what the policy asks of it, and the fleet's port `Connections`."""

    world: SimulatedWorld
    loop: asyncio.AbstractEventLoop
    served_us: Callable[[Exchange], int]
    """How long an engine works on a request."""
    open: dict[SimulatedUpstream, None] = field(default_factory=dict)
    idle: dict[int, list[SimulatedUpstream]] = field(default_factory=dict)

    def take(self, host: str, port: int) -> SimulatedUpstream | None:
        """Return an idle connection."""
        idle = self.idle.get(port)
        return idle.pop() if idle else None

    async def connect(self, host: str, port: int) -> SimulatedUpstream:
        """Open a connection. Raises OSError."""
        fault = self.world.weather.fault(f"{port}/connect", CONNECT_ODDS)
        await asyncio.sleep({Fault.SLOW: 2.0, Fault.HANGS: CONNECT_S}.get(fault, 0.001))
        if fault is Fault.HANGS:
            raise TimeoutError
        listening = [
            each.pid
            for each in self.world.processes.values()
            if each.port == port and each.pid not in self.world.strays
        ]
        if listening and self.world.is_silent(listening[0]):
            await asyncio.sleep(CONNECT_S)
            raise TimeoutError
        if fault is Fault.FAILS or not listening:
            raise ConnectionRefusedError
        upstream = SimulatedUpstream(self, port, listening[0])
        self.open[upstream] = None
        return upstream

    async def close(self, host: str, port: int) -> None:
        """Close every idle connection to an address."""
        for upstream in list(self.idle.get(port, ())):
            upstream.abandon()
        await asyncio.sleep(0)

    def cut(self, host: str, port: int, why: str, *, again: bool = False) -> None:
        """End the requests in flight to an address."""
        for upstream in list(self.open):
            if (
                upstream.port == port
                and upstream.exchange is not None
                and not (again and upstream.send_back(why))
            ):
                upstream.exchange.fail(TryLater(ErrorCode.DRAINING, why))

    def reset(self, pid: int) -> None:
        """A process has ended: the kernel resets its connections, and poorwill hears of it a moment later."""
        for upstream in [each for each in self.open if each.pid == pid]:
            self.loop.call_soon(upstream.lost)

    def forget(self, pid: int) -> None:
        """Drop the idle connections to a process: here another host's engine has the same port."""
        for upstream in [each for each in self.open if each.pid == pid and each.exchange is None]:
            upstream.abandon()


KEYS = {"a": NO_LIMITS, "b": KeyLimits(at_once=6, held=3, requests_minute=60), "c": KeyLimits(priority=1)}


class SimulatedKeys:
    """Three keys: one without limits, one with several, one that goes first."""

    required = True

    def in_use(self, name: str) -> bool:
        return name in KEYS

    def name_of(self, credential: bytes) -> str | None:
        return credential.decode()

    def limits(self, name: str) -> KeyLimits:
        return KEYS.get(name, NO_LIMITS)


@dataclass(eq=False)
class WatchedHeld:
    """A place in the queue, with the laws about waiting."""

    activator: "WatchedActivator"
    held: Held
    began_us: int
    bound_us: int
    """The longest that it may take."""

    @property
    def wake(self) -> WakeId | None:
        return self.held.wake

    def notice(self) -> WakeNotice:
        notice = self.held.notice()
        if notice.left_us < 0 or notice.waited_us < 0:
            raise Broken(f"a held client was told {notice}")
        return notice

    async def lease(self) -> Lease:
        activator, held = self.activator, self.held
        served = False
        try:
            lease = await held.lease()
            served = True
        except TryLater as error:
            settings, alone = held.unit.replica.settings, len(held.unit.replicas.cells) == 1
            if error.code is ErrorCode.WAKE_TIMEOUT and alone:
                with activator.world.judged():
                    from_us = max(self.began_us, activator.leases.left_us.get(held.unit.id, 0))
                    check_wait(activator.clock.awake_us() - from_us, settings.wake.budget_us)
            raise
        finally:
            with activator.world.judged():
                activator.leases.over(held.unit.model, held, served=served)
                check_wait(activator.clock.awake_us() - self.began_us, self.bound_us)
        return activator.given(lease)


@dataclass(eq=False)
class WatchedActivator:
    """The fleet's activator, with the laws about leases and the order of the queue."""

    fleet: Fleet
    world: SimulatedWorld
    leases: Leases
    clock: VirtualClock

    def claim(self, model: ModelName, last: Callable[[], ReplicaId | None]) -> Lease | None:
        lease = self.fleet.activator.claim(model, last)
        if lease is not None:
            with self.world.judged():
                check_order(self.fleet, model)
            self.given(lease)
        return lease

    def given(self, lease: Lease) -> Lease:
        """Take note of a lease that was given, and judge it."""
        self.leases.given(lease)
        with self.world.judged():
            check_lease(self.fleet, self.world, lease)
            self.leases.check(self.fleet, lease.replica)
        return lease

    def hold(
        self, model: ModelName, *, size_bytes: int, asked_by: str, request: str, priority: int = 0
    ) -> WatchedHeld:
        began_us = self.clock.awake_us()
        held = self.fleet.activator.hold(
            model, size_bytes=size_bytes, asked_by=asked_by, request=request, priority=priority
        )
        self.leases.waits(model, held, asked_by, priority)
        settings = held.unit.replica.settings
        return WatchedHeld(self, held, began_us, max(settings.wake.budget_us, settings.hold.age_us))

    def give_back(self, lease: Lease) -> None:
        with self.world.judged():
            self.leases.returned(lease)
        self.fleet.activator.give_back(lease)

    def retry_after_s(self, model: ModelName) -> int:
        return self.fleet.activator.retry_after_s(model) if model in self.fleet.controller.models else 1

    def notice(self, held: Held) -> WakeNotice:
        return self.fleet.activator.notice(held)


class WatchedPolicy(RequestPolicy):
    """The request policy, which tells each request's client how it ended."""

    def __init__(self, *, told: Callable[[Exchange, str], None], **parts: object) -> None:
        super().__init__(**parts)  # type: ignore[arg-type]
        self._told = told

    def ended(self, exchange: Exchange, row: RequestEnded | None) -> None:
        self._told(exchange, row.outcome if row is not None else ErrorCode.MODEL_NOT_FOUND.value)
        super().ended(exchange, row)


def _unread(*_: object) -> tuple[ModelName, bool]:
    raise AssertionError("the simulation's requests name their models")


_DIALECTS = Dialects(
    new_reader=lambda content_type, *, hides: None,
    read_fields=_unread,
    form_spans=lambda spool, content_type: {},
    read_form=_unread,
    renamed=lambda body, name: body,
    asking_usage=lambda body: body,
)


def new_policy(
    *, fleet: Fleet, activator: WatchedActivator, pool: SimulatedPool, tasks: asyncio.TaskGroup, ledger, log,
    told: Callable[[Exchange, str], None],
) -> WatchedPolicy:  # fmt: skip
    """Return the policy of one life."""
    clock = fleet.controller.clock
    return WatchedPolicy(
        told=told,
        settings=GatewaySettings(),
        activator=activator,
        pool=pool,
        ledger=ledger,
        clock=clock,
        log=log,
        models=lambda: list(fleet.controller.models),
        observe=lambda row: None,
        spawn=tasks.create_task,
        bridges={},
        engines=EngineFacts(dialects=_DIALECTS, rows=lambda may_use: []),
        limiter=KeyLimiter(keys=SimulatedKeys(), clock=clock, at_once=0),
    )
