"""How an engine is started, and what a driver knows about a replica that runs or is parked.

Engines make a `Launch`; drivers turn it into a `Running`, a `Running` into a `Parked` and back. All
three are plain data that survive a restart of poorwill in the ledger (`as_json`, `from_json`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from poorwill.core.words import ModelName, Phase, ReplicaId, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The devices that a replica is given, from the start of its wake to the end of its park."""

    devices: tuple[str, ...] = ()
    """As CUDA_VISIBLE_DEVICES names them: UUIDs, or indices where no UUID is known. Empty: it sees none."""
    share_bytes: int = 0
    """Its part of the one device's memory; 0: the devices are its own."""
    total_bytes: int = 0
    """What one device has in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopCommand:
    """Ends what an engine may leave outside of its processes; run, in its environment, once they are gone."""

    argv: tuple[str, ...]
    container: str = ""
    """The container it ends, if it is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything needed to start one engine. Paths are absolute."""

    replica: ReplicaId
    model: ModelName
    engine: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """The child's whole environment; nothing is inherited that is not in here."""
    cwd: str = "/"
    host: str = "127.0.0.1"
    port: int
    ready_path: str = "/health"
    log_path: str
    """The engine's stdout and stderr; the driver opens it and hands down the descriptor."""
    weights_path: str | None = None
    digest: str = ""
    """Digest of what the engine would serve: weights, engine version, arguments."""
    engine_model: str = ""
    """The name the engine knows the model by, if it differs from `model`."""
    sleep: str | None = None
    """The kind of engine sleep, if the engine has one: `vllm`, `sglang`, `ollama`, `llama.cpp`."""
    user: str = ""
    """The user it runs as; empty: poorwill's own."""
    place: Place | None = None
    """None: the fleet gives no devices out."""
    stop: StopCommand | None = None
    """None: it leaves nothing."""

    def identity(self) -> str:
        """Return a digest of all that makes an engine what it is: program, arguments, model, address.

        Two launches of the same identity start engines that are interchangeable.
        """
        what = [self.engine, list(self.argv), sorted(self.env.items()), self.cwd]
        where = [self.host, self.port, self.digest, *([self.user] if self.user else ())]
        return hashlib.sha256(json.dumps([what, where]).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A replica whose engine exists: as a process here, or on a rented machine."""

    replica: ReplicaId
    generation: int
    pid: int = 0
    """0: the engine is no process of this machine."""
    pid_started: int = 0
    """`starttime` of /proc/PID/stat in clock ticks: tells this process from a later one with its pid."""
    host: str
    port: int
    log_path: str
    driver: str
    """Name of the driver that started it or woke it last."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """What only that driver understands (a QMP socket, a tap name)."""
    engine_model: str = ""
    """As in `Launch`."""
    launched: str = ""
    """`Launch.identity` of the launch that started it; empty if unknown."""
    machine: str = ""
    """The rented machine it runs on, by its cloud and its id there, or the host; empty: this machine."""
    place: Place | None = None

    def key(self) -> tuple[str, int, int]:
        """Return what identifies it among all that runs."""
        return self.machine, self.pid, self.pid_started

    def where(self) -> str:
        """Return where it runs, for people."""
        if self.machine:
            return f"{self.machine} at {self.host}:{self.port}"
        return f"pid {self.pid} on port {self.port}"

    def as_json(self) -> str:
        """Return the record as one JSON object."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def from_json(text: str) -> "Running":
        """Read what `as_json` wrote. Raises msgspec.DecodeError if it is something else."""
        return msgspec.json.decode(text, type=Running)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A replica that is parked in a tier. `asleep` keeps its process: `running` is set."""

    replica: ReplicaId
    generation: int
    tier: Tier
    path: str | None = None
    """Directory of the snapshot, if the tier has one."""
    image_bytes: int = 0
    running: Running | None = None
    probe: str = ""
    """What the engine answered to the fixed greedy prompt before the park; it must answer so again."""
    machine: str = ""
    """The rented machine that is parked, at most one for each replica, or the host that has the image."""
    place: Place | None = None
    """Where it was ready: an image of device memory is restored to the same devices."""

    def key(self) -> tuple[str, str, str]:
        """Return what identifies it among all that is parked.

        An image is of one generation and woken once; a rented machine is the same one each time.
        """
        own = str(self.generation)
        return self.replica, self.tier, own if self.path is not None else self.machine or own

    def where(self) -> str:
        """Return where its image is kept, for people."""
        return self.machine or self.path or "memory"

    def as_json(self) -> str:
        """Return the record as one JSON object."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def from_json(text: str) -> "Parked":
        """Read what `as_json` wrote. Raises msgspec.DecodeError if it is something else."""
        return msgspec.json.decode(text, type=Parked)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMark:
    """A driver or an engine's log reports that `phase` began at `at_us`."""

    phase: Phase
    at_us: int
    ended_us: int | None = None
    """Set if the source reported the end afterwards; None: it lasts until the next mark."""
    bytes_read: int | None = None
    detail: str = ""
