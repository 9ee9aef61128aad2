"""What freezing and thawing work with: the tools and limits of the frozen tier's driver."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from poorwill.core.launch import Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.engine import EngineSleep
from poorwill.core.ports.log import Log
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.tiers.frozen.criu import Criu
from poorwill.tiers.frozen.device import Device, NoDevice
from poorwill.tiers.snapshots.space import Space
from poorwill.tiers.snapshots.store import SnapshotStore

NAME = "frozen"
"""The driver's name."""


@dataclass(slots=True, kw_only=True)
class FrozenParts:
    """What one fleet's driver was made with."""

    criu: Criu
    store: SnapshotStore
    space: Space
    processes: EngineProcesses
    clock: Clock
    log: Log
    device: Device = field(default_factory=NoDevice)
    """What the engine keeps outside the host's memory."""
    quiet_limit_s: float = 3.0
    """How long the engine may take to notice that its clients have closed their connections."""
    sleeps: Mapping[str, EngineSleep] = field(default_factory=dict)
    """How to wake an engine that was frozen in its sleep, by the kind that `Launch.sleep` names."""
    ready_limit_s: float = 60.0
    """A restored engine was ready before; it either answers soon or never."""

    async def end(self, running: Running) -> None:
        """Kill an engine that must not run on, and reap it."""
        self.processes.kill_now(running)
        await self.processes.gone(running)
