"""The drivers of a fleet, by model and tier, and which rungs of each ladder work on this machine."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Driver, Processes
from poorwill.core.ports.engine import Engine
from poorwill.core.ports.log import Log
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import ModelName, Tier
from poorwill.engines.kinds import cannot_sleep
from poorwill.hosts.files.reach import Reach, Relayed, reach_of
from poorwill.remote.elsewhere import ElsewhereDriver, EnginesElsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """A tier that a model's ladder names and that does not work here."""

    model: ModelName
    tier: Tier
    why: str
    mend: str

    def __str__(self) -> str:
        mend = f"; to fix it: {self.mend}" if self.mend else ""
        return f"{self.model}: not {self.tier}: {self.why}{mend}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDrivers:
    """What a model that does not run as a process of this machine is parked and watched with."""

    drivers: Mapping[Tier, Driver]
    processes: Processes
    engine: Engine | None = None
    """Set if the engine is asked on another host."""
    broken: Mapping[Tier, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByUrl:
    """What the models have whose engines somebody else runs."""

    env: Mapping[str, str]
    clock: Clock
    log: Log
    reached: dict[tuple[str, int], Reach] = field(default_factory=dict)

    def follow(self, settings: FleetSettings, elsewhere: dict[ModelName, ModelDrivers]) -> None:
        """Change `elsewhere` to what these settings need. Raises OperatorFault, and changes nothing, if a key
        is not set."""
        found = [(one, reach_of(one.elsewhere, self.env)) for one in settings.models if one.elsewhere.engine]
        for name in [name for name, own in elsewhere.items() if isinstance(own.processes, EnginesElsewhere)]:
            del elsewhere[name]
        for model, reach in found:
            assert model.away_at is not None
            self.reached[model.away_at] = reach
            elsewhere[model.name] = ModelDrivers(
                drivers={Tier.COLD: ElsewhereDriver(reach=reach, clock=self.clock)},
                processes=EnginesElsewhere(reach=reach, log=self.log),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDrivers:
    """The drivers that work here, and why others do not. Made by `tiers.open_drivers`."""

    drivers: Mapping[Tier, Driver]
    processes: Processes
    broken: Mapping[Tier, tuple[str, str]] = field(default_factory=dict)
    """Why a tier does not work here, and what would fix it."""
    elsewhere: dict[ModelName, ModelDrivers] = field(default_factory=dict)
    """For the models that run in a virtual machine, on a rented one or on other hosts."""
    hosts: Mapping[str, Relayed] = field(default_factory=dict)
    """The other hosts that engines may be on."""
    proven: Callable[[str, int], Awaitable[bool]] | None = None
    """Whether a new connection to an address reaches the engine that belongs there. May raise OSError."""
    reached: Callable[[tuple[str, int]], Reach | None] = lambda at: None
    """How the engines of other machines are reached, by address."""
    without_guest: Mapping[ModelName, tuple[str, str]] = field(default_factory=dict)
    """Why a model whose ladder names `suspended` has no virtual machine, and what would fix it."""
    more: Callable[[FleetSettings], Awaitable[None]] | None = None
    """Opens what a changed configuration needs besides, as far as that needs no restart."""

    def processes_of(self, model: ModelName) -> Processes:
        """Return what watches and ends a model's engine."""
        own = self.elsewhere.get(model)
        return own.processes if own else self.processes

    def drivers_of(self, model: ModelName) -> Mapping[Tier, Driver]:
        """Return a model's drivers by tier."""
        own = self.elsewhere.get(model)
        return own.drivers if own else self.drivers

    def ladder(self, model: ModelSettings) -> tuple[tuple[Tier, ...], Sequence[Fallback]]:
        """Return the rungs of a model's ladder that work here; `cold` is always one of them."""
        rungs, fallbacks = [], []
        drivers = self.drivers_of(model.name)
        for tier in model.replica.park.ladder:
            if tier in drivers and not (tier is Tier.ASLEEP and cannot_sleep(model.engine)):
                rungs.append(tier)
            else:
                why, mend = self._why_not(tier, model)
                fallbacks.append(Fallback(model=model.name, tier=tier, why=why, mend=mend))
        if Tier.COLD not in rungs:
            rungs.append(Tier.COLD)
        return tuple(rungs), fallbacks

    def _why_not(self, tier: Tier, model: ModelSettings) -> tuple[str, str]:
        if tier is Tier.SUSPENDED and model.name in self.without_guest:
            return self.without_guest[model.name]
        if tier is Tier.SUSPENDED:
            return "virtual machines are opened when poorwill starts", "restart poorwill"
        if tier is Tier.HIBERNATED:
            return (
                "it is on no rented machine",
                f"[models.{model.name}.cloud]; see docs/hibernated.md",
            )
        sleepless = cannot_sleep(model.engine)
        if tier is Tier.ASLEEP and sleepless:
            return sleepless
        if model.hosts:
            return self.elsewhere[model.name].broken.get(tier, ("not all of its hosts can do it", ""))
        if tier in self.drivers:
            return "it runs in a virtual machine, which is suspended instead", ""
        return self.broken.get(tier, ("there is no driver for it", ""))
