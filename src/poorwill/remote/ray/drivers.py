"""The ports `Driver`, `Processes` and `Engine` for replicas on other hosts.

A wake chooses the host: the one that has the image, which never leaves it; from cold one that has the weights
before one that has not, then the one with the fewest engines, if it has room. Room is a lease: a placement
group of Ray's, held as long as an engine is there.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec

from poorwill.core.launch import Launch, Parked, PhaseMark, Place, Running
from poorwill.core.ports.driver import DriverError, Found, NoCapacity, Report, SnapshotRefused
from poorwill.core.ports.silence import ON_HOST
from poorwill.core.settings import ModelSettings
from poorwill.core.words import Phase, ReplicaId, Tier
from poorwill.remote.ray.calls import Call, CallAnswer, Op
from poorwill.remote.ray.hosts import AGAIN_S, COMING_S, Coming, Hosts


@dataclass(slots=True, kw_only=True)
class HostsDriver:
    """One way of parking, on whichever host a replica is. Implements the port `Driver`."""

    name: str
    tier: Tier
    hosts: Hosts

    async def park(self, running: Running, launch: Launch, *, generation: int) -> Parked:
        """See `Driver.park`."""
        call = self._call(Op.PARK, launch, generation, running=running)
        with self.hosts.exclusive.during(launch.replica, "park"):
            answer = await self.hosts.call(running.machine, call)
            assert answer.parked is not None
            return await self._settled(answer.parked)

    async def wake(self, parked: Parked, launch: Launch, *, generation: int, report: Report) -> Running:
        """See `Driver.wake`. A host that is on its way is waited for.

        Raises NoCapacity if none has room, SnapshotRefused if only hosts without the image have.
        """
        with self.hosts.exclusive.during(launch.replica, "wake"):
            ends = asyncio.get_running_loop().time() + COMING_S
            while True:
                try:
                    return await self._chosen(parked, launch, generation, report)
                except NoCapacity as error:
                    late = asyncio.get_running_loop().time() > ends
                    if late or not (isinstance(error, Coming) or self.hosts.is_awaited(launch.model)):
                        await self._refuse_if_elsewhere(parked, launch)
                        raise
                await asyncio.sleep(AGAIN_S)

    async def _chosen(self, parked: Parked, launch: Launch, generation: int, report: Report) -> Running:
        """Wake on the first of the possible hosts that has room. Raises Coming if one may have it soon."""
        if parked.tier is Tier.COLD:
            await self.hosts.equip()
            hosts = self.hosts.candidates(launch)
        elif self.hosts.is_up(parked.machine):
            hosts = [parked.machine]
        else:
            raise SnapshotRefused(f"the host {parked.machine}, which has the image, is silent")
        if parked.running is not None:  # it has its place still
            self._tell(report, parked.machine)
            return await self._wake(parked.machine, parked, launch, generation, report)
        joined = await self.hosts.joined()
        refused: list[NoCapacity] = []
        for host in (host for host in hosts if host in joined):
            self._tell(report, host)
            try:
                if parked.tier is Tier.COLD:
                    self.hosts.check_disk(host, launch.model)
                async with self.hosts.leased(launch, host):
                    return await self._wake(host, parked, launch, generation, report)
            except NoCapacity as error:
                refused.append(error)
        final = joined.issuperset(hosts) and self.hosts.cluster.settled
        kind = NoCapacity if final and not any(isinstance(each, Coming) for each in refused) else Coming
        raise kind("; ".join(map(str, refused)) or f"Ray has none of {', '.join(hosts)}")

    def _tell(self, report: Report, host: str) -> None:
        """Report the host that a wake has chosen: from now on it is paid there."""
        now_us = self.hosts.clock.now_us()
        report(PhaseMark(phase=Phase.PROVISION, at_us=now_us, detail=ON_HOST + host))

    async def _refuse_if_elsewhere(self, parked: Parked, launch: Launch) -> None:
        """Raise SnapshotRefused if another host than the image's has room for a cold start."""
        others = self.hosts.candidates(launch) if parked.tier is not Tier.COLD else []
        for host in others:
            if host != parked.machine:
                with suppress(NoCapacity):
                    self.hosts.check_disk(host, launch.model)
                    async with self.hosts.leased(launch, host):
                        why = f"{parked.machine}, which has the image, has no room, and {host} has"
                        raise SnapshotRefused(why)

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
        self.hosts.started(host, launch.model)
        return replace(answer.running, launched=launch.identity())

    async def descend(self, parked: Parked, launch: Launch, *, generation: int) -> Parked:
        """See `Driver.descend`."""
        call = self._call(Op.DESCEND, launch, generation, parked=parked)
        with self.hosts.exclusive.during(launch.replica, "park"):
            answer = await self.hosts.call(parked.machine, call)
            assert answer.parked is not None
            return await self._settled(answer.parked)

    async def discard(self, parked: Parked) -> None:
        """See `Driver.discard`. What is on a silent host is found, and discarded, when it returns."""
        if parked.machine:
            await self.hosts.call(parked.machine, Call(op=Op.DISCARD, replica=parked.replica, parked=parked))
        await self.hosts.release(parked.replica)

    async def inventory(self) -> Sequence[Found]:
        """See `Driver.inventory`. A silent host has what it listed last and its last beat still knew."""
        found: list[Found] = []
        for host, contact in self.hosts.contacts.items():
            last = self.hosts.seen.get((host, self.tier), ())
            try:
                last = (await self.hosts.call(host, Call(op=Op.INVENTORY, tier=self.tier))).found
            except DriverError:
                found.append(Found(replica=ReplicaId(""), generation=0, tier=None, what="", silent=host))
                last = tuple(each for each in last if each.running is None or contact.knows(each.running))
            self.hosts.seen[host, self.tier] = last
            found += last
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
        """See `Processes.exited`. Raises HostSilent when its host falls silent.

        What is watched has its place, also if it was a poorwill before this one that took it.
        """
        contact = self.hosts.contact(running.machine)
        self.hosts.keep(running)
        return await contact.ended(running)

    def alive(self, running: Running) -> bool:
        """Return whether its host says that it lives. Raises HostSilent."""
        contact = self.hosts.contacts.get(running.machine)
        if contact is not None:
            contact.check()
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
