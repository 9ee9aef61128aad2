"""What freezing and thawing work with: the tools and limits of the frozen tier's driver."""

from dataclasses import dataclass, field

from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.hosts.processes.process import EngineProcesses
from poorwill.tiers.frozen.criu import Criu
from poorwill.tiers.frozen.device import Device, NoDevice
from poorwill.tiers.snapshots.image_driver import ImageDriver


@dataclass(slots=True, kw_only=True)
class FrozenParts(ImageDriver):
    """What one fleet's driver was made with."""

    criu: Criu
    processes: EngineProcesses
    clock: Clock
    log: Log
    device: Device = field(default_factory=NoDevice)
    """What the engine keeps outside the host's memory."""
    quiet_limit_s: float = 3.0
    """How long the engine may take to notice that its clients have closed their connections."""
    ready_limit_s: float = 60.0
    """A restored engine was ready before; it either answers soon or never."""
