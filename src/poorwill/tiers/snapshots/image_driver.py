"""What the drivers share that keep an image on this machine's disk: its room, its manifest, its one wake."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.driver import DriverError, Found, Report, SnapshotRefused
from poorwill.core.ports.engine_sleep import EngineSleep
from poorwill.core.words import Phase, Tier
from poorwill.hosts.files.aside import aside, in_thread
from poorwill.hosts.processes.exclusive import Exclusive
from poorwill.hosts.processes.readiness import refuse_taken_port
from poorwill.tiers.snapshots.manifest import HostFacts, Manifest, mismatches, start_hash_of
from poorwill.tiers.snapshots.space import Space
from poorwill.tiers.snapshots.store import Draft, SnapshotStore


@dataclass(slots=True, kw_only=True)
class ImageWake:
    """A wake under way. `spent`: a process may have run on the image, so that it is never woken again."""

    draft: Draft
    spent: bool = False


@dataclass(slots=True, kw_only=True)
class ImageDriver:
    """The part of the port `Driver` that does not depend on what makes the image."""

    store: SnapshotStore
    space: Space
    sleeps: Mapping[str, EngineSleep] = field(default_factory=dict)
    """How to wake an engine that was parked in its own sleep, by the kind that `Launch.sleep` names."""
    exclusive: Exclusive = field(default_factory=Exclusive)

    @property
    def name(self) -> str:
        """The driver's name: its tier's."""
        return self.store.tier

    @property
    def tier(self) -> Tier:
        """The tier it parks into."""
        return self.store.tier

    async def discard(self, parked: Parked) -> None:
        """Remove the snapshot. Idempotent."""
        await in_thread(lambda stop: self.store.discard(parked))

    async def inventory(self) -> Sequence[Found]:
        """Return the snapshots that can be woken. Engines that run are the cold driver's inventory."""
        return await in_thread(lambda stop: self.store.found())

    async def begin(
        self, running: Running, *, generation: int, need_bytes: int, there_bytes: int = 0
    ) -> Draft:
        """Make room for a snapshot, of which `there_bytes` are on the disk already, and begin it.

        The caller ends the promise of room with `space.settle`. Raises DriverError; the engine still serves.
        """

        def begun() -> Draft:
            self.space.make_room(self.store, need_bytes, replica=running.replica, there_bytes=there_bytes)
            return self.store.begin(running.replica, generation)

        try:
            return await aside(begun)
        except (DriverError, OSError) as error:
            raise DriverError(f"no snapshot can be written: {error}", running=running) from error

    async def commit(self, draft: Draft, manifest: Manifest) -> Parked:
        """Make a finished draft durable. Raises what `SnapshotStore.commit` raises."""
        done = await in_thread(lambda stop: self.store.commit(draft, manifest, stop))
        return replace(done.parked(), path=str(draft.final))

    def describe(
        self, running: Running, launch: Launch, generation: int, *, tool: str, now_us: int, asleep: bool
    ) -> Manifest:
        """Return the manifest of an image that `tool` makes now; `asleep`: of an engine in its own sleep."""
        return Manifest(
            replica=running.replica,
            model=launch.model,
            generation=generation,
            driver=self.name,
            tier=self.tier,
            tool=tool,
            created_us=now_us,
            engine=launch.engine,
            digest=launch.digest,
            start_hash=start_hash_of(launch),
            host=launch.host,
            port=launch.port,
            machine=HostFacts.read(),
            asleep=asleep,
        )

    async def fitting(
        self, parked: Parked, launch: Launch, report: Report, *, tool: str, now_us: int
    ) -> Manifest:
        """Return the manifest of a snapshot that may be woken for this launch, here and now.

        Raises SnapshotRefused if it does not fit, DriverError if the port is taken.
        """
        manifest = await aside(self.store.manifest, parked)
        report(PhaseMark(phase=Phase.READ_IMAGE, at_us=now_us, bytes_read=manifest.image_bytes))
        reasons = mismatches(
            manifest, launch, tool=tool, machine=HostFacts.read(), generation=parked.generation
        )
        if reasons:
            raise SnapshotRefused("the snapshot does not match: " + "; ".join(reasons))
        refuse_taken_port(launch)
        return manifest

    @asynccontextmanager
    async def waking(self, manifest: Manifest) -> AsyncIterator[ImageWake]:
        """Hold the one right to wake an image for the block; the image is removed after a wake that succeeds.

        A block that fails gives the right back, unless the image is spent or was refused: then it is removed.
        Raises SnapshotRefused if somebody else has or had the right.
        """
        wake = ImageWake(draft=await aside(self._claimed, manifest))
        try:
            yield wake
        except BaseException as error:
            spent = wake.spent or isinstance(error, SnapshotRefused)
            await aside(lambda: self._left(manifest, wake.draft, spent=spent))
            raise
        # Unlinking gigabytes takes a while, and the client waits. `recover` finds what a crash leaves of it.
        asyncio.get_running_loop().run_in_executor(
            None, lambda: self.store.end_wake(manifest, wake.draft, spent=True)
        )

    def _claimed(self, manifest: Manifest) -> Draft:
        draft = self.store.begin_wake(manifest)
        try:
            self.store.claim(manifest)
        except BaseException:
            self.store.end_wake(manifest, draft, spent=False)
            raise
        return draft

    def _left(self, manifest: Manifest, draft: Draft, *, spent: bool) -> None:
        if not spent:
            self.store.release(manifest)
        self.store.end_wake(manifest, draft, spent=spent)


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """Yield a task group that fails with one error: a refused snapshot explains the others."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        found = errors.exceptions
        raise next((each for each in found if isinstance(each, SnapshotRefused)), found[0]) from errors
