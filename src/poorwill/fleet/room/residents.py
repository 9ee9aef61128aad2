"""What each replica takes of host memory and devices: what it was given, and what the last look showed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.core.launch import Place
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import next_descent_us
from poorwill.core.settings import DeviceNeed
from poorwill.core.words import SECOND_US, Tier
from poorwill.fleet.unit import Unit
from poorwill.policies.placement.devices import DeviceState
from poorwill.policies.placement.places import Resident, held, taken_by, unseen_bytes
from poorwill.policies.placement.victims import Occupant, likelihood

UNKNOWN_WAKE_US = 10 * SECOND_US
"""The assumed length of a wake if none was measured or predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a model's replicas need, and who goes first."""

    memory_bytes: int = 0
    """Of the host, while ready; 0 is unknown and counts as nothing."""
    devices: DeviceNeed = field(default_factory=DeviceNeed)
    priority: int = 0


def sleeps(unit: Unit) -> bool:
    """Return whether the engine is there, asleep, with whatever it keeps of its devices."""
    return unit.parked is not None and unit.parked.running is not None


def resident_of(
    unit: Unit,
    claim: Claim,
    place: Place,
    devices: Sequence[DeviceState],
    *,
    asleep: bool,
    kept: Mapping[str, int],
    now_us: int,
) -> Resident:
    """Return a replica that takes up room, as placement sees it. `kept`: what it kept when last asleep.

    Ready or on its way, it takes what it was given, or what it holds if that is more. Asleep, it takes what
    it holds; if that cannot be seen, as much of what it was given as is in use.
    """
    taken = taken_by(place, devices)
    for device in devices:
        if device.id in taken:
            given, holds = taken[device.id], held(device).get(unit.id)
            taken[device.id] = holding(device, given, holds) if asleep else max(given, holds or 0)
    return Resident(
        occupant=_occupant(unit, claim, asleep=asleep, now_us=now_us),
        model=unit.model,
        taken=taken,
        keeps=kept if unit.replica.settings.park.ladder[0] is Tier.ASLEEP and not asleep else {},
        apart=claim.devices.apart,
        ready=not asleep,
    )


def holding(device: DeviceState, given: int, holds: int | None) -> int:
    """Return what a sleeping engine holds of a device."""
    if holds is not None:
        return holds
    return given if device.used_bytes is None else min(given, unseen_bytes(device))


def _occupant(unit: Unit, claim: Claim, *, asleep: bool, now_us: int) -> Occupant:
    """Describe a replica that takes up room. One that a floor holds, or whose park just failed, is busy.

    One that sleeps is not, even while it waits for a place to wake in: it then starts cold.
    """
    replica = unit.replica
    expected_us = replica.expected_wake_us(replica.settings.park.ladder[0])
    failed = now_us < replica.park_after_us
    busy = (
        replica.state is not State.READY
        or replica.load.in_flight > 0
        or bool(replica.holds)
        or replica.floor.at(now_us).required
    )
    return Occupant(
        replica=unit.id,
        bytes=0 if asleep else claim.memory_bytes,
        priority=claim.priority,
        busy=failed or (replica.state is State.PARKING if asleep else busy),
        leaving=replica.state in (State.DRAINING, State.PARKING),
        ready_since_us=replica.ready_since_us,
        idle_since_us=replica.load.idle_since_us,
        wake_us=UNKNOWN_WAKE_US if expected_us is None else expected_us,
        wanted_soon=_wanted_soon(unit, now_us),
    )


def _wanted_soon(unit: Unit, now_us: int) -> float:
    """Return how likely the replica is wanted before its own policy would park it anyway."""
    parks_us, quiet_since_us = next_descent_us(unit.replica), unit.cell.level.quiet_since_us
    return likelihood(
        unit.cell.level.gaps_us,
        idle_us=0 if quiet_since_us is None else now_us - quiet_since_us,
        within_us=None if parks_us is None else max(0, parks_us - now_us),
    )
