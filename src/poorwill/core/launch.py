"""How an engine is started, and what a driver knows about a replica that runs or is parked.

Engines make a `Launch`; drivers turn it into a `Running`, a `Running` into a `Parked` and back. All
three are plain data that survive a restart of poorwill in the ledger (`as_json`, `from_json`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from poorwill.core.words import ModelName, Phase, ReplicaId, Tier


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
    weights_bytes: int = 0
    digest: str = ""
    """Digest of what the engine would serve: weights, engine version, arguments."""
    engine_model: str = ""
    """The name the engine knows the model by, where it differs from `model`."""
    sleep: str | None = None
    """The kind of engine sleep, where the engine has one: `vllm`, `sglang`, `ollama`, `llama.cpp`."""

    def identity(self) -> str:
        """Return a digest of all that makes an engine what it is: program, arguments, model, address.

        Two launches of the same identity start engines that are interchangeable.
        """
        what = [self.engine, list(self.argv), sorted(self.env.items()), self.cwd]
        where = [self.host, self.port, self.digest]
        return hashlib.sha256(json.dumps([what, where]).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A replica whose engine process exists."""

    replica: ReplicaId
    generation: int
    pid: int
    pid_started: int
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
    """`Launch.identity` of what it was started by; empty where that is not known."""

    def as_json(self) -> str:
        """Return the record as one JSON object."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `as_json` wrote. Raises ValueError or TypeError where it is something else."""
        return cls(**_object(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A replica that is parked in a tier. `asleep` keeps its process: `running` is set."""

    replica: ReplicaId
    generation: int
    tier: Tier
    path: str | None = None
    """Directory of the snapshot, where the tier has one."""
    image_bytes: int = 0
    running: Running | None = None
    probe: str = ""
    """What the engine answered to the fixed greedy prompt before the park; it must answer so again."""

    def as_json(self) -> str:
        """Return the record as one JSON object."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `as_json` wrote. Raises ValueError or TypeError where it is something else."""
        raw = _object(text)
        raw["tier"] = Tier(str(raw.get("tier")))
        if raw.get("running") is not None:
            raw["running"] = Running(**raw["running"])
        return cls(**raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMark:
    """A driver or an engine's log says that `phase` began at `at_us`."""

    phase: Phase
    at_us: int
    ended_us: int | None = None
    """Where the source told afterwards how long it took; None: it lasts until the next mark."""
    bytes_read: int | None = None
    detail: str = ""


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
