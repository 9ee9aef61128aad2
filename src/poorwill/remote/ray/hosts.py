"""The hosts of a fleet as the controller uses them: calls, places, and who is asked first."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import msgspec

from poorwill.core.format import size
from poorwill.core.launch import Launch, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Found, NoCapacity
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.remote.ray.calls import WEIGHTS, Call, CallAnswer, HostOffer, Op, checked
from poorwill.remote.ray.cluster import Cluster
from poorwill.remote.ray.contact import Contact

LEASE_S = 2.0
"""How long a host may take to grant a place: one that has room does within milliseconds."""
URGENT = (Op.INVENTORY, Op.KILL, Op.DISCARD, Op.UNDO, Op.EQUIP, Op.READY)
"""What must work while Ray does not: nothing is left unowned, and no engine that serves given up, because Ray
takes long to come back."""
BY_RAY_S = 4.0
COMING_S = 60.0
"""How long a wake waits for a host that is on its way, and how long after a start a host may be: a service
answers in a second, its raylet joins Ray in ten, and a head that was lost is back within half a minute."""
AGAIN_S = 0.5
UNDONE_S = 10.0
"""How long a call that was cancelled may take to be undone on its host."""


class Coming(NoCapacity):
    """No host has room now; one is on its way."""


@dataclass(slots=True, kw_only=True, eq=False)
class Hosts:
    """The hosts of a fleet, and what each offers to the models that may run there."""

    cluster: Cluster
    contacts: Mapping[str, Contact]
    settings: FleetSettings
    clock: Clock
    log: Log
    since_us: int
    """When contact was first sought."""
    exclusive: Exclusive = field(default_factory=Exclusive)
    offers: dict[str, Mapping[ModelName, HostOffer]] = field(default_factory=dict)
    equipped: dict[str, int] = field(default_factory=dict)
    """The session of each host's service that was told of the models."""
    seen: dict[tuple[str, Tier], tuple[Found, ...]] = field(default_factory=dict)
    """What each host listed last."""
    models: Mapping[ModelName, ModelSettings] = field(init=False)
    allowed: Mapping[ModelName, tuple[str, ...]] = field(init=False)
    """The hosts that each model may run on, the preferred one first."""

    def __post_init__(self) -> None:
        away = [model for model in self.settings.models if model.hosts]
        self.models = {model.name: replace(model, hosts=()) for model in away}
        self.allowed = {model.name: model.hosts for model in away}

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
        call = msgspec.structs.replace(call, id=secrets.token_hex(8))
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._answered(contact.name, call))
                silence = group.create_task(contact.silent())
                await asyncio.wait([work, silence], return_when=asyncio.FIRST_COMPLETED)
                silence.cancel()
                if not work.done():
                    work.cancel()
        except asyncio.CancelledError:
            if call.op in (Op.WAKE, Op.PARK, Op.DESCEND) and contact.up:
                await self._undo(contact.name, call)
            raise
        if work.cancelled():
            contact.check()
            raise DriverError(f"{contact.name} fell silent for a moment")
        answer = work.result()
        if isinstance(answer, DriverError):
            raise answer
        return answer

    async def _answered(self, host: str, call: Call) -> CallAnswer | DriverError:
        """Return what came of a call; a failure as well, which a task group would wrap."""
        try:
            return checked(await self._carried(host, call), host)
        except DriverError as error:
            return error

    async def _carried(self, host: str, call: Call) -> CallAnswer:
        """Have Ray carry a call; if it cannot, one that is urgent goes over the host's relay."""
        if call.op not in URGENT:
            return await self.cluster.call(host, call)
        with suppress(DriverError, TimeoutError):
            async with asyncio.timeout(BY_RAY_S):
                return await self.cluster.call(host, call)
        return await self.contacts[host].carry(call)

    async def _undo(self, host: str, call: Call) -> None:
        """Have a call undone, wherever it is: on its way, under way, or answered."""
        try:
            async with asyncio.timeout(UNDONE_S):
                undo = Call(op=Op.UNDO, id=call.id, replica=call.replica)
                checked(await self._carried(host, undo), host)
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
        fleet = FleetSettings(
            models=models,
            snapshot_quota_bytes=self.settings.snapshot_quota_bytes,
            encrypt_key_env=self.settings.encrypt_key_env,
            confine_engines=self.settings.confine_engines,
            guest_memory=self.settings.guest_memory,
        )
        answer = await self._ask(contact, Call(op=Op.EQUIP, fleet=fleet))
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

        Raises NoCapacity if the host has no room, Coming if Ray cannot say now.
        """
        try:
            needs = needs_of(self.models[launch.model])
            try:
                granted = await self.cluster.lease(launch.replica, host, needs, wait_s=LEASE_S)
            except DriverError as error:
                raise Coming(str(error)) from error
            if not granted:
                raise NoCapacity(f"{host} has no room")
            yield
        except BaseException:
            await self.release(launch.replica)
            raise

    def keep(self, running: Running) -> None:
        """Hold the place of an engine that runs already."""
        model = self.models.get(ModelName(running.replica.rpartition("-")[0]))
        if model is not None:
            self.cluster.keep(running.replica, running.machine, needs_of(model))

    async def release(self, replica: ReplicaId) -> None:
        """Give a replica's place back; a failure is logged."""
        try:
            await self.cluster.release(replica)
        except DriverError as error:
            self.log.warning("a place on a host was not given back", replica=replica, why=str(error))

    def candidates(self, launch: Launch) -> list[str]:
        """Return the hosts that a replica could start on now, the best one first. Raises NoCapacity."""
        allowed = self.allowed.get(launch.model, ())
        able = [h for h in allowed if self.is_up(h) and not self._offer(h, launch.model).fault]
        if not able:
            silent = [host for host in allowed if not self.is_up(host)]
            why = [f"{host}: {self._offer(host, launch.model).fault}" for host in allowed if self.is_up(host)]
            why += [f"silent: {', '.join(silent)}"] if silent else []
            raise NoCapacity("; ".join([f"no host can run {launch.model}", *why]))
        return sorted(able, key=lambda h: (not self._offer(h, launch.model).weights_bytes, self._load(h)))

    def check_disk(self, host: str, model: ModelName) -> None:
        """Raise NoCapacity if a host has to download a model and has no room, as far as that is known here.

        How much there is to download is known once some host has it. The host itself asks the hub first.
        """
        last, offers = self.contacts[host].last, self._offers_of(model)
        need = max((offer.weights_bytes for offer in offers), default=0)
        if self._offer(host, model).weights_bytes or last is None:
            return
        for disk in last.disks:
            if WEIGHTS in disk.holds and disk.free_bytes < need:
                left = f"{size(disk.free_bytes)} are free in {disk.path}"
                raise NoCapacity(f"{host}: {size(need)} are to be downloaded and {left}")

    def is_awaited(self, model: ModelName) -> bool:
        """Return whether a host that the model may run on has not answered yet, so soon after a start."""
        early = self.clock.now_us() < self.since_us + COMING_S * 1e6
        allowed = self.allowed.get(model, ())
        return early and any(h in allowed and self.contacts[h].last is None for h in self.contacts)

    async def joined(self) -> frozenset[str]:
        """Return the hosts that Ray grants places on. Raises Coming if it cannot say now."""
        try:
            return await self.cluster.joined()
        except DriverError as error:
            raise Coming(str(error)) from error

    def started(self, host: str, model: ModelName) -> None:
        """Ask a host anew what it offers, before it is next called: it has a model's files now."""
        if self.models[model].engine.path and not self._offer(host, model).weights_bytes:
            self.equipped.pop(host, None)

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
    if model.memory_bytes:
        needs["memory"] = model.memory_bytes
    return needs
