"""The fleet tests' fake drivers as cases of the contract: a fake that obeys less would prove less."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fleet.fakes import FakeDriver, HandClock, World

from poorwill.core.launch import Launch, Parked, PhaseMark, Running
from poorwill.core.ports.driver import Found
from poorwill.core.words import ModelName, ReplicaId, Tier


@dataclass
class FakeProcesses:
    """The processes of a fake world, as the suite looks at real ones."""

    world: World

    def found(self) -> Sequence[Found]:
        return [
            Found(
                replica=running.replica,
                generation=running.generation,
                tier=None,
                what=f"pid {running.pid}",
                running=running,
            )
            for running in self.world.processes.values()
        ]

    def alive(self, running: Running) -> bool:
        return self.world.alive(running)

    async def kill(self, running: Running) -> None:
        await self.world.kill(running)

    def kill_now(self, running: Running) -> None:
        self.world.end(running.pid)

    async def gone(self, running: Running) -> None:
        assert not self.world.alive(running)


@dataclass
class FakeFleet:
    """A fleet in a fake world."""

    directory: Path
    world: World = field(default_factory=World)
    clock: HandClock = field(default_factory=HandClock)
    marks: list[PhaseMark] = field(default_factory=list)

    @property
    def processes(self) -> FakeProcesses:
        return FakeProcesses(self.world)

    def driver(self, tier: Tier) -> FakeDriver:
        return FakeDriver(self.world, tier, self.clock)

    def launch(self, *, replica: str = "tiny") -> Launch:
        return Launch(
            replica=ReplicaId(replica),
            model=ModelName("tiny"),
            engine="fake",
            argv=("fake",),
            port=9000 + len(replica) + sum(replica.encode()),
            log_path="/nowhere",
        )

    def cold(self, launch: Launch) -> Parked:
        return Parked(replica=launch.replica, generation=0, tier=Tier.COLD)

    def report(self, mark: PhaseMark) -> None:
        self.marks.append(mark)

    def again(self) -> "FakeFleet":
        return FakeFleet(directory=self.directory, world=self.world, clock=self.clock)

    def ask(self, running: Running) -> str:
        """What the engine answers, once it serves."""
        assert self.world.alive(running), "it is gone"
        assert running.pid not in self.world.asleep, "it sleeps"
        return "42"

    async def probe(self, running: Running) -> str:
        return self.ask(running)

    def lose(self, parked: Parked) -> None:
        self.world.snapshots.pop(parked.path or "", None)
        if parked.running is not None:
            self.world.end(parked.running.pid)

    def port_is_free(self, port: int) -> bool:
        return all(running.port != port for running in self.world.processes.values())
