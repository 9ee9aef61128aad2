"""The ports `Driver`, `Processes` and `Engine` for replicas on other hosts.

A wake chooses the host: the one that has the image, which never leaves it; from cold one that has the weights
before one that has not, then the one with the fewest engines, if it has room. Room is a lease: a placement
group of Ray's, held as long as an engine is there.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import msgspec

from poorwill.core.launch import Launch, Parked, PhaseMark, Place, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Found, NoCapacity, Report, SnapshotRefused
from poorwill.core.ports.log import Log
from poorwill.core.settings import ModelSettings
from poorwill.core.words import ModelName, Phase, ReplicaId, Tier
from poorwill.remote.ray.calls import Call, CallAnswer, HostOffer, Op, checked
from poorwill.remote.ray.cluster import Cluster
from poorwill.remote.ray.contact import Contact

LEASE_S = 2.0
"""How long a host may take to grant a place: one that has room does within milliseconds."""
UNDONE_S = 10.0
"""How long a call that was cancelled may take to be undone on its host."""


@dataclass(slots=True, kw_only=True, eq=False)
class Hosts:
    """The hosts of a fleet, and what each offers to the models that may run there."""

    cluster: Cluster
    contacts: Mapping[str, Contact]
    models: Mapping[ModelName, ModelSettings]
    allowed: Mapping[ModelName, tuple[str, ...]]
    """The hosts that each model may run on, the preferred one first."""
    clock: Clock
    log: Log
    offers: dict[str, Mapping[ModelName, HostOffer]] = field(default_factory=dict)
    equipped: dict[str, int] = field(default_factory=dict)
    """The session of each host's service that was told of the models."""
    seen: dict[tuple[str, Tier], tuple[Found, ...]] = field(default_factory=dict)
    """What each host listed last."""

    async def call(self, host: str, call: Call) -> CallAnswer:
        """Have a host do something. Raises DriverError as it did, or as soon as it falls silent.

        Cancelled: what the host has begun is undone there before this returns, if the host can be reached.
        """
        contact = self.contact(host)
        contact.check()
        await self._equip(contact)
        return await self._ask(contact, call)

    def contact(self, host: str) -> Contact:
        """Return a host. Raises DriverError if it may not be used."""
        contact = self.contacts.get(host)
        if contact is None:
            raise DriverError(f"{host} is not among the hosts that may be used")
        return contact

    async def _ask(self, contact: Contact, call: Call) -> CallAnswer:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._undoable(contact.name, call))
            silence = group.create_task(contact.silent())
            await asyncio.wait([work, silence], return_when=asyncio.FIRST_COMPLETED)
            silence.cancel()
            if not work.done():
                work.cancel()
        if work.cancelled():
            contact.check()
            raise DriverError(f"{contact.name} fell silent for a moment")
        answer = work.result()
        if isinstance(answer, DriverError):
            raise answer
        return answer

    async def _undoable(self, host: str, call: Call) -> CallAnswer | DriverError:
        """Return what came of a call; a failure as well, which a task group would wrap."""
        try:
            return checked(await self.cluster.call(host, call), host)
        except DriverError as error:
            return error
        except asyncio.CancelledError:
            if call.op in (Op.WAKE, Op.PARK, Op.DESCEND) and self.contacts[host].up:
                await self._undone(host, call.replica)
            raise

    async def _undone(self, host: str, replica: ReplicaId) -> None:
        try:
            async with asyncio.timeout(UNDONE_S):
                await self.cluster.call(host, Call(op=Op.SETTLED, replica=replica))
        except (DriverError, TimeoutError) as error:
            self.log.warning("a cancelled call may not be undone", host=host, why=str(error))

    async def equip(self) -> None:
        """Tell every host that answers which models may run there; a failure is logged."""

        async def tell(contact: Contact) -> None:
            try:
                await self._equip(contact)
            except DriverError as error:
                self.log.warning("a host could not be equipped", host=contact.name, why=str(error))

        async with asyncio.TaskGroup() as group:
            for contact in self.contacts.values():
                if contact.up:
                    group.create_task(tell(contact))

    async def _equip(self, contact: Contact) -> None:
        session = contact.last.session if contact.last is not None else 0
        if self.equipped.get(contact.name) == session:
            return
        models = tuple(model for name, model in self.models.items() if contact.name in self.allowed[name])
        answer = await self._ask(contact, Call(op=Op.EQUIP, models=models))
        for model, offer in answer.offers.items():
            if offer.fault:
                self.log.warning("a host cannot run a model", host=contact.name, model=model, why=offer.fault)
        self.offers[contact.name], self.equipped[contact.name] = answer.offers, session

    def can(self, model: ModelName, tier: Tier) -> bool:
        """Return whether every host that was asked can park the model in a tier; each can do `cold`."""
        offers = self._offers_of(model)
        return tier is Tier.COLD or all(tier in offer.tiers for offer in offers)

    def broken(self, model: ModelName) -> Mapping[Tier, tuple[str, str]]:
        """Return why hosts that were asked cannot park the model in some tiers."""
        return {tier: why for offer in self._offers_of(model) for tier, why in offer.broken.items()}

    def _offers_of(self, model: ModelName) -> list[HostOffer]:
        return [offers[model] for offers in self.offers.values() if model in offers]

    @asynccontextmanager
    async def leased(self, launch: Launch, host: str) -> AsyncIterator[None]:
        """Hold a place on a host from now on, for good unless the block fails.

        Raises NoCapacity if the host has no room.
        """
        try:
            needs = needs_of(self.models[launch.model])
            if not await self.cluster.lease(launch.replica, host, needs, wait_s=LEASE_S):
                raise NoCapacity(f"{host} has no room")
            yield
        except BaseException:
            await self.release(launch.replica)
            raise

    async def release(self, replica: ReplicaId) -> None:
        """Give a replica's place back; a failure is logged."""
        try:
            await self.cluster.release(replica)
        except DriverError as error:
            self.log.warning("a place on a host was not given back", replica=replica, why=str(error))

    def candidates(self, launch: Launch) -> list[str]:
        """Return the hosts that a replica could start on now, the best one first. Raises NoCapacity."""
        able = [
            host
            for host in self.allowed.get(launch.model, ())
            if host in self.contacts and self.contacts[host].up and not self._offer(host, launch.model).fault
        ]
        if not able:
            silent = [host for host in self.allowed.get(launch.model, ()) if not self.is_up(host)]
            raise NoCapacity(
                f"no host can run {launch.model}" + (f"; silent: {', '.join(silent)}" if silent else "")
            )
        return sorted(able, key=lambda host: (not self._offer(host, launch.model).weights, self._load(host)))

    def is_up(self, host: str) -> bool:
        """Return whether a host answers."""
        return host in self.contacts and self.contacts[host].up

    def _load(self, host: str) -> int:
        last = self.contacts[host].last
        return len(last.engines) if last is not None else 0

    def _offer(self, host: str, model: ModelName) -> HostOffer:
        return self.offers.get(host, {}).get(model) or HostOffer(tiers=(Tier.COLD,))


def needs_of(model: ModelSettings) -> Mapping[str, float]:
    """Return what a replica takes of a host, as Ray counts it."""
    needs: dict[str, float] = {}
    if model.devices.gpus:
        needs["GPU"] = model.devices.gpus
    if model.devices.gpu_memory_bytes:
        needs["device_bytes"] = model.devices.gpu_memory_bytes
    if model.memory_bytes:
        needs["memory"] = model.memory_bytes
    return needs


@dataclass(slots=True, kw_only=True)
class HostsDriver:
    """One way of parking, on whichever host a replica is. Implements the port `Driver`."""

    name: str
    tier: Tier
    hosts: Hosts

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """See `Driver.park`."""
        call = self._call(Op.PARK, launch, generation, running=running)
        answer = await self.hosts.call(running.machine, call)
        assert answer.parked is not None
        return await self._settled(answer.parked)

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """See `Driver.wake`. Raises NoCapacity if no host has room."""
        why = "no host was asked"
        hosts = [parked.machine] if parked.tier is not Tier.COLD else None
        if hosts is None:
            await self.hosts.equip()
            hosts = self.hosts.candidates(launch)
        elif not self.hosts.is_up(hosts[0]):
            raise SnapshotRefused(f"the host {hosts[0]}, which has the image, is silent")
        for host in hosts:
            now_us = self.hosts.clock.now_us()
            report(PhaseMark(phase=Phase.PROVISION, at_us=now_us, detail=f"host {host}"))
            try:
                async with self.hosts.leased(launch, host):
                    return await self._wake(host, parked, launch, generation, report)
            except NoCapacity as error:
                why = str(error)
        raise NoCapacity(why)

    async def _wake(
        self, host: str, parked: Parked, launch: Launch, generation: int, report: Report
    ) -> Running:
        contact = self.hosts.contacts[host]
        wake = launch.replica, generation
        contact.reports[wake] = report
        try:
            call = self._call(Op.WAKE, launch, generation, parked=parked)
            answer = await self.hosts.call(host, call)
        finally:
            contact.reports.pop(wake, None)
        assert answer.running is not None
        contact.expect(answer.running, answer.beat)
        return replace(answer.running, launched=launch.identity())

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """See `Driver.descend`."""
        call = self._call(Op.DESCEND, launch, generation, parked=parked)
        answer = await self.hosts.call(parked.machine, call)
        assert answer.parked is not None
        return await self._settled(answer.parked)

    async def discard(self, parked: Parked) -> None:
        """See `Driver.discard`. What is on a silent host is found, and discarded, when it returns."""
        if parked.machine:
            await self.hosts.call(parked.machine, Call(op=Op.DISCARD, replica=parked.replica, parked=parked))
        await self.hosts.release(parked.replica)

    async def inventory(self) -> Sequence[Found]:
        """See `Driver.inventory`. A silent host has what it listed last; raises DriverError if nothing."""
        found: list[Found] = []
        for host, contact in self.hosts.contacts.items():
            try:
                answer = await self.hosts.call(host, Call(op=Op.INVENTORY, tier=self.tier))
                self.hosts.seen[host, self.tier] = answer.found
            except DriverError:
                if (host, self.tier) not in self.hosts.seen and contact.last is None:
                    continue  # it was never there
                if (host, self.tier) not in self.hosts.seen:
                    raise
            found += self.hosts.seen[host, self.tier]
        return found

    async def _settled(self, parked: Parked) -> Parked:
        """Give the place back, unless an engine still sleeps in it."""
        if parked.running is None:
            await self.hosts.release(parked.replica)
        return parked if parked.tier is not Tier.COLD else replace(parked, machine="")

    def _call(
        self,
        op: Op,
        launch: Launch,
        generation: int,
        *,
        running: Running | None = None,
        parked: Parked | None = None,
    ) -> Call:
        return Call(
            op=op,
            model=launch.model,
            replica=launch.replica,
            generation=generation,
            tier=self.tier,
            running=running,
            parked=parked,
        )


@dataclass(slots=True, kw_only=True)
class HostsProcesses:
    """Engines on other hosts. Implements the port `Processes`."""

    hosts: Hosts

    async def kill(self, running: Running) -> None:
        """See `Processes.kill`. Raises HostSilent if its host is silent."""
        await self.hosts.call(running.machine, Call(op=Op.KILL, replica=running.replica, running=running))
        await self.hosts.release(running.replica)

    async def exited(self, running: Running) -> str:
        """See `Processes.exited`. Raises HostSilent when its host falls silent."""
        return await self.hosts.contact(running.machine).ended(running)

    def alive(self, running: Running) -> bool:
        """Return whether its host answers and says that it lives."""
        contact = self.hosts.contacts.get(running.machine)
        return contact is not None and contact.alive(running)

    def effort(self, running: Running) -> int | None:
        """Return None: nobody looks from afar."""
        return None


@dataclass(slots=True, kw_only=True)
class HostsEngine:
    """A model's engine on whichever host a replica is. Implements the port `Engine`.

    How it is started is decided there, where its files are; a `Launch` here only names it, and its identity
    changes with the model's configuration.
    """

    model: ModelSettings
    hosts: Hosts

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.model.engine.kind

    def launch(
        self, *, replica: ReplicaId, generation: int, anew: bool = False, place: Place | None = None
    ) -> Launch:
        """Return what names the replica's start."""
        settings = msgspec.json.encode(self.model.engine, order="deterministic")
        return Launch(
            replica=replica,
            model=self.model.name,
            engine=self.name,
            argv=(),
            port=0,
            log_path="",
            digest=hashlib.sha256(settings).hexdigest(),
            engine_model=self.model.engine.engine_model,
            place=place,
        )

    async def follow(self, launch: Launch, report: Report) -> None:
        """Wait to be cancelled: the phases come with the host's beats."""
        await asyncio.get_running_loop().create_future()

    async def ready(self, running: Running, launch: Launch) -> None:
        """See `Engine.ready`."""
        await self._ask(Op.READY, running, launch)

    async def probe(self, running: Running, launch: Launch) -> str:
        """See `Engine.probe`."""
        return (await self._ask(Op.PROBE, running, launch)).text or ""

    async def vital_signs(self, running: Running, launch: Launch) -> str | None:
        """See `Engine.vital_signs`."""
        try:
            return (await self._ask(Op.VITAL_SIGNS, running, launch)).text
        except DriverError:
            return None

    def refine(
        self, launch: Launch, marks: Sequence[PhaseMark], began_us: int, ended_us: int
    ) -> Sequence[PhaseMark]:
        """Return the marks as they are."""
        return marks

    async def _ask(self, op: Op, running: Running, launch: Launch) -> CallAnswer:
        call = Call(
            op=op,
            model=launch.model,
            replica=launch.replica,
            generation=running.generation,
            running=running,
        )
        return await self.hosts.call(running.machine, call)
