"""Clients with every habit, and the gateway's connections: what is promised to whoever asks.

Every request ends exactly once: answered, refused with a typed error, left by its client, cut, or ended by
the death of poorwill itself.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field

from poorwill.core.errors import ErrorCode, PoorwillError, TryLater
from poorwill.core.ports.activator import Lease
from poorwill.core.words import ModelName, replica_id
from poorwill.fleet.fleet import Fleet

from .history import Event
from .laws import Broken, check_lease, check_order, check_wait
from .loop import VirtualClock
from .weather import SimulatedWorld

LONGEST_RETRY_S = 60


@dataclass(eq=False)
class Request:
    """One request on its way, and how it ended."""

    model: ModelName
    event: Event
    arrived_us: int
    lease: Lease | None = None
    outcome: str = ""

    def end(self, outcome: str) -> None:
        if self.outcome:
            raise Broken(f"a request ended twice: {self.outcome}, then {outcome}")
        self.outcome = outcome


@dataclass
class Clients:
    """Everybody who asks; also the port `Connections`, because a connection's end is a client's business."""

    asked: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    _open: dict[Request, asyncio.Task[None] | None] = field(default_factory=dict)

    async def ask(
        self, event: Event, model: ModelName, fleet: Fleet, world: SimulatedWorld, clock: VirtualClock
    ) -> None:
        """Send one request and wait for its end."""
        request = Request(model, event, clock.now_us())
        self.asked += 1
        self._open[request] = asyncio.current_task()
        patience_s = None if event.leaves_us is None else event.leaves_us / 1e6
        try:
            async with asyncio.timeout(patience_s):
                request.end(await self._serve(request, fleet, world, clock))
        except TimeoutError:
            request.end("left")
        except asyncio.CancelledError:
            request.end("cut")
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
        finally:
            self._open.pop(request, None)
            self.ended[request.outcome or "defect"] += 1

    async def _serve(self, request: Request, fleet: Fleet, world: SimulatedWorld, clock: VirtualClock) -> str:
        for left in range(request.event.retries, -1, -1):
            try:
                return await self._once(request, fleet, world, clock)
            except TryLater as error:
                if left == 0:
                    return str(error.code)
                await asyncio.sleep(min(error.retry_after_s or 1, LONGEST_RETRY_S))
            except PoorwillError as error:
                return str(error.code)
        raise AssertionError("unreachable")

    async def _once(self, request: Request, fleet: Fleet, world: SimulatedWorld, clock: VirtualClock) -> str:
        event, model = request.event, request.model
        if (
            event.bridged
            and (bridged := fleet.bridging.bridge(model, asked_by="key", key="key", most_nusd=0)) is not None
        ):
            try:
                await asyncio.sleep(event.lasts_us / 1e6)
            finally:
                fleet.bridging.bridge_over(bridged, cost_nusd=0)
            return "bridged"
        self.check_leases(fleet, model)
        lease = fleet.activator.claim(model)
        if lease is None:
            lease = await self._held(request, fleet, clock)
        else:
            check_order(fleet, model)
        request.lease = lease
        check_lease(fleet, world, lease)
        try:
            await asyncio.sleep(event.lasts_us / 1e6)
            answering = world.of(lease.replica)
            return "answered" if answering else "replica lost"
        finally:
            request.lease = None
            fleet.activator.give_back(lease)

    async def _held(self, request: Request, fleet: Fleet, clock: VirtualClock) -> Lease:
        """Wait in the queue; laws: nobody waits beyond the bounds of the queue and of the wake."""
        began_us, model = clock.awake_us(), request.model
        settings = fleet.controller.units[replica_id(model)].replica.settings
        try:
            held = fleet.activator.hold(model, size_bytes=10, asked_by="key", request=f"r{self.asked}")
            return await held.lease()
        except TryLater as error:
            if error.code is ErrorCode.WAKE_TIMEOUT:
                check_wait(clock.awake_us() - began_us, settings.wake.budget_us)
            raise
        finally:
            check_wait(clock.awake_us() - began_us, max(settings.hold.age_us, settings.wake.budget_us))

    def check_leases(self, fleet: Fleet, model: ModelName) -> None:
        """Law: what the fleet counts in flight is what is in flight, and no more than the model takes."""
        units = [unit for unit in fleet.controller.units.values() if unit.model == model]
        for replica in (unit.replica for unit in units):
            out = [
                request
                for request in self._open
                if request.lease is not None
                and request.lease.replica == replica.id
                and request.lease.generation == replica.generation
            ]
            if len(out) > replica.load.in_flight:
                raise Broken(f"{len(out)} leases are out, {replica.load.in_flight} are counted")
            limit = replica.settings.max_concurrency
            if limit and len(out) > limit:
                raise Broken(f"{len(out)} leases are out, {limit} may be")
        nobodys = len(units[0].replica.holds) - len(units[0].waiting)
        if nobodys > 0:
            raise Broken(f"{nobodys} places in the queue that nobody waits in")

    async def operate(self, asked: Coroutine[object, object, None]) -> None:
        """Do what an operator asked for; a refusal is an answer."""
        try:
            async with asyncio.timeout(3600):
                await asked
        except (PoorwillError, TimeoutError):
            return

    def may_park(self, replica: str) -> None:
        """Law: nothing is parked while a lease on it is out, unless its connection has been cut."""
        out = [request for request in self._open if request.lease and request.lease.replica == replica]
        if out:
            raise Broken(f"{replica} is parked with {len(out)} leases out")

    def hang_up(self) -> None:
        """Every client leaves: the gateway has been closed before the fleet."""
        for task in list(self._open.values()):
            if task is not None:
                task.cancel()

    def killed(self) -> "Clients":
        """poorwill is dead: what was open has ended with its connection. Return who goes on."""
        ended = self.ended + Counter(killed=len(self._open))
        return Clients(asked=self.asked, ended=ended)

    def check_all_ended(self) -> None:
        """Law: every request has ended, exactly once."""
        if self._open:
            raise Broken(f"{len(self._open)} requests never ended")
        if sum(self.ended.values()) != self.asked:
            raise Broken(f"{self.asked} requests, {sum(self.ended.values())} ends: {self.ended}")

    # the port Connections

    async def close(self, host: str, port: int) -> None:
        await asyncio.sleep(0)

    def cut(self, host: str, port: int, why: str) -> None:
        for request, task in list(self._open.items()):
            if request.lease is not None and request.lease.port == port and task is not None:
                request.lease = None
                task.cancel()
