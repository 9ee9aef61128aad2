"""Fits replicas onto devices: best fit, and who gives way where nothing fits.

A share goes where the least is left over, a whole device is the smallest that will do, so that large holes
stay for large models. What counts as taken is what a replica was given, or what it really holds if that is
more, and what others hold: a place that this module returns is also free in fact.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from poorwill.core.launch import Place
from poorwill.core.settings.devices import DeviceNeed
from poorwill.core.words import ModelName, ReplicaId
from poorwill.policies.placement.devices import DeviceState
from poorwill.policies.placement.victims import Occupant, by_worth, choose_victims, fewest, may_go

WHOLE_SHARE = 0.92
"""How much of a whole device must be free: what vLLM asks for by default (vllm/config/cache.py). Display
servers, monitors and the driver hold some of the rest."""


UNNAMED_BYTES = 512 * 2**20
"""Memory in use that no process is named for, up to this, is the driver's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A replica that takes up room, with what it has of each device."""

    occupant: Occupant
    model: ModelName
    taken: Mapping[str, int] = field(default_factory=dict)
    """Bytes by device; all of a device that is its own."""
    keeps: Mapping[str, int] = field(default_factory=dict)
    """What stays taken if it is parked in the first tier of its ladder; nothing if that is not `asleep`."""
    apart: tuple[str, ...] = ()
    ready: bool = True
    """Whether it may compute now: what sleeps disturbs nobody but by its memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A replica that wants a place."""

    replica: ReplicaId
    model: ModelName
    need: DeviceNeed
    host_bytes: int = 0
    priority: int = 0
    bound: tuple[str, ...] = ()
    """The devices that it must return to, if an image or a sleeping engine is bound to some."""

    def anywhere(self) -> "Wanted":
        """Return the same, bound to no device."""
        return replace(self, bound=())


class House:
    """What there is, and who is there."""

    def __init__(
        self,
        devices: Sequence[DeviceState],
        *,
        foreign: Mapping[str, int] | None = None,
        tenants: Iterable[Resident] = (),
        host_bytes: int = 0,
    ) -> None:
        """`foreign`: bytes of each device that no replica holds. `host_bytes`: host memory; 0: unbounded."""
        self.devices = devices
        self.foreign = foreign or {}
        self.host_bytes = host_bytes
        self.tenants: list[Resident] = []
        self._here: dict[str, list[Resident]] = {device.id: [] for device in devices}
        self._free = {device.id: device.bytes - self.foreign.get(device.id, 0) for device in devices}
        for tenant in tenants:
            self.add(tenant)

    def add(self, tenant: Resident) -> None:
        """Let one more in."""
        self.tenants.append(tenant)
        for device, count in tenant.taken.items():
            if count and device in self._here:
                self._here[device].append(tenant)
                self._free[device] -= count

    def drop(self, replica: ReplicaId) -> None:
        """Let one go, if it is there."""
        for tenant in [each for each in self.tenants if each.occupant.replica == replica]:
            self.tenants.remove(tenant)
            for device, count in tenant.taken.items():
                if count and device in self._here:
                    self._here[device].remove(tenant)
                    self._free[device] += count

    def here(self, device: DeviceState) -> Sequence[Resident]:
        """Return who has some of a device."""
        return self._here[device.id]

    def free(self, device: DeviceState) -> int:
        """Return what is left of a device's memory; negative if more was given than there is."""
        return self._free[device.id]

    def when_left(self) -> "House":
        """Return the house once those who are leaving have left."""
        staying = [tenant for tenant in self.tenants if not tenant.occupant.leaving]
        if len(staying) == len(self.tenants):
            return self
        return House(self.devices, foreign=self.foreign, tenants=staying, host_bytes=self.host_bytes)

    def without_others(self) -> "House":
        """Return the house as if nobody but replicas held memory."""
        return House(self.devices, tenants=self.tenants, host_bytes=self.host_bytes)


@dataclass(frozen=True, slots=True)
class Victim:
    """A replica to park."""

    replica: ReplicaId
    deep: bool
    """Below `asleep`: what its engine would keep is in the way as well."""


def foreign_bytes(device: DeviceState, given: Mapping[ReplicaId, int]) -> int:
    """Return how much of a device is held by what is no replica with a place, or by nobody who is named.

    `given` is what replicas were given of it. A process of a replica that has nothing there now is what a
    park could not end: it is foreign until a sweep ends it.
    """
    named = sum(
        holder.bytes or 0
        for holder in device.holders
        if (holder.program or holder.replica) and holder.replica not in given
    )
    return named + unnamed_bytes(device, given)


def unnamed_bytes(device: DeviceState, given: Mapping[ReplicaId, int]) -> int:
    """Return how much of a device is in use by nobody whom NVML names, such as after a leak.

    In a container no process is seen: what is in use counts as replicas' as far as they were given it.
    """
    shown = held(device)
    return max(0, unseen_bytes(device) - sum(n for replica, n in given.items() if replica not in shown))


def unseen_bytes(device: DeviceState) -> int:
    """Return how much of a device is in use by no process that can be seen from here."""
    seen = sum(holder.bytes or 0 for holder in device.holders if holder.program or holder.replica)
    return max(0, (device.used_bytes or 0) - seen)


def held(device: DeviceState) -> dict[ReplicaId, int]:
    """Return what each replica really holds of a device, of those that NVML shows."""
    found: dict[ReplicaId, int] = {}
    for holder in device.holders:
        if holder.replica is not None and holder.bytes is not None:
            found[holder.replica] = found.get(holder.replica, 0) + holder.bytes
    return found


def find_place(wanted: Wanted, house: House) -> Place | None:
    """Return where a replica fits now, None if nowhere."""
    if wanted.host_bytes and house.host_bytes:
        taken = sum(tenant.occupant.bytes for tenant in house.tenants)
        if taken + wanted.host_bytes > house.host_bytes:
            return None
    need = wanted.need
    if not need.any:
        return Place()
    fitting = [
        device
        for device in candidates(wanted, house)
        if missing_bytes(need, device, house) <= 0
        and not any(_in_the_way(wanted, tenant) for tenant in house.here(device))
    ]
    if not need.gpus:
        best = min(fitting, key=lambda one: (house.free(one), one.index, one.id), default=None)
        return None if best is None else _place(need, [best])
    for alike in _alike(fitting, need.gpus):
        return _place(need, alike[: need.gpus])
    return None


def make_way(wanted: Wanted, house: House, *, now_us: int) -> list[Victim]:
    """Return who is to be parked so that a replica fits, empty if nobody can help now.

    Never a busy one, one of higher priority, or one just woken. On each device that would do, those of least
    priority and worth for each byte; of the devices, those whose victims are worth least. What is leaving
    counts as gone: it is waited for.
    """
    house = house.when_left()
    going: dict[ReplicaId, Victim] = {}
    if wanted.need.any:
        chosen = _cheapest(wanted, house, now_us)
        if chosen is None:
            return []
        going = {victim.replica: victim for victim in chosen}
    if wanted.host_bytes and house.host_bytes:
        rest = [tenant.occupant for tenant in house.tenants if tenant.occupant.replica not in going]
        if sum(each.bytes for each in rest) + wanted.host_bytes > house.host_bytes:
            more = choose_victims(
                rest, need=wanted.host_bytes, total=house.host_bytes, priority=wanted.priority, now_us=now_us
            )
            if not more:
                return []
            going |= {replica: Victim(replica, deep=False) for replica in more}
    return list(going.values())


def goal(wanted: Wanted, house: House) -> Place | None:
    """Return the devices that a replica waits for: those on which the least is missing, whoever holds it.

    Nobody who came later may take what comes free there, so what is missing only ever shrinks: no starvation.
    """
    if not wanted.need.any:
        return Place()
    house = house.when_left()
    order = sorted(
        candidates(wanted, house), key=lambda one: (missing_bytes(wanted.need, one, house), one.index, one.id)
    )
    count = max(1, wanted.need.gpus)
    return _place(wanted.need, order[:count]) if len(order) >= count else None


def taken_by(place: Place, devices: Sequence[DeviceState]) -> dict[str, int]:
    """Return what a place takes of each device."""
    return {one.id: place.share_bytes or one.bytes for one in devices if one.id in place.devices}


def newcomer(wanted: Wanted, place: Place, devices: Sequence[DeviceState]) -> Resident:
    """Return a replica that is on its way as if it were there: what it waits for is taken."""
    occupant = Occupant(
        replica=wanted.replica,
        bytes=wanted.host_bytes,
        priority=wanted.priority,
        busy=True,
        leaving=False,
        ready_since_us=0,
        idle_since_us=0,
    )
    taken = taken_by(place, devices)
    return Resident(occupant=occupant, model=wanted.model, taken=taken, apart=wanted.need.apart)


def candidates(wanted: Wanted, house: House) -> list[DeviceState]:
    """Return the devices that would do if they were empty."""
    need = wanted.need
    return [
        device
        for device in house.devices
        if not device.unfit
        and device.bytes >= need.gpu_memory_bytes
        and (not need.on or device.is_one_of(need.on))
        and (not wanted.bound or device.id in wanted.bound)
        and not (need.gpus > 1 and device.instance)
    ]


def missing_bytes(need: DeviceNeed, device: DeviceState, house: House) -> int:
    """Return how many bytes of a device are missing; none if that is negative."""
    wants = int(WHOLE_SHARE * device.bytes) if need.gpus else need.gpu_memory_bytes
    return wants - house.free(device)


def _in_the_way(wanted: Wanted, tenant: Resident) -> bool:
    """Whether a tenant of a device must be gone, however much of it is free."""
    apart = tenant.model in wanted.need.apart or wanted.model in tenant.apart
    return bool(wanted.need.gpus) or (apart and tenant.ready)


def _alike(devices: Sequence[DeviceState], count: int) -> Iterable[list[DeviceState]]:
    """Yield groups of `count` devices or more: of one size each, the smallest size first, then all mixed."""
    ordered = sorted(devices, key=lambda one: (one.bytes, one.index, one.id))
    groups = [list(group) for _, group in groupby(ordered, key=lambda one: one.bytes)]
    yield from (group for group in (*groups, ordered) if len(group) >= count)


def _place(need: DeviceNeed, devices: Sequence[DeviceState]) -> Place:
    share = 0 if need.gpus else need.gpu_memory_bytes
    return Place(
        devices=tuple(one.id for one in devices),
        share_bytes=share,
        total_bytes=min(one.bytes for one in devices),
    )


def _cheapest(wanted: Wanted, house: House, now_us: int) -> Sequence[Victim] | None:
    """Return the victims that are worth least, on as many devices as are needed; None if none can help."""
    count = max(1, wanted.need.gpus)
    ways = {
        device.id: way
        for device in candidates(wanted, house)
        if (way := _way(wanted, device, house, now_us)) is not None
    }
    by_id = {tenant.occupant.replica: tenant.occupant for tenant in house.tenants}

    def cost(victims: Iterable[Victim]) -> tuple[float, ...]:
        occupants = [by_id[victim.replica] for victim in victims]
        priority = max((each.priority for each in occupants), default=float("-inf"))
        return priority, sum(each.cost for each in occupants), len(occupants)

    found: list[Sequence[Victim]] = []
    for alike in _alike([one for one in house.devices if one.id in ways], count):
        going: dict[ReplicaId, Victim] = {}
        left = [one.id for one in alike]
        for _ in range(count):
            # One that has several devices is parked once: what it costs counts once.
            best = min(left, key=lambda one: cost(each for each in ways[one] if each.replica not in going))
            left.remove(best)
            going |= {victim.replica: victim for victim in ways[best]}
        # A late one on several devices may make others superfluous: spare them, the most valuable first.
        for victim in sorted(going.values(), key=lambda each: cost([each]), reverse=True):
            rest = going.keys() - {victim.replica}
            if sum(all(each.replica in rest for each in ways[one.id]) for one in alike) >= count:
                del going[victim.replica]
        found.append(list(going.values()))
    return min(found, key=cost, default=None)


def _way(wanted: Wanted, device: DeviceState, house: House, now_us: int) -> list[Victim] | None:
    """Return who has to leave a device for a replica to fit, None if that is not enough or not allowed."""
    here = house.here(device)
    must = [tenant for tenant in here if _in_the_way(wanted, tenant)]
    if not all(may_go(tenant.occupant, wanted.priority, now_us) for tenant in must):
        return None
    going = [Victim(tenant.occupant.replica, deep=True) for tenant in must]
    missing = missing_bytes(wanted.need, device, house) - sum(tenant.taken[device.id] for tenant in must)
    if missing <= 0:
        return going
    others = [each for each in here if each not in must and may_go(each.occupant, wanted.priority, now_us)]
    for deep in (False, True):
        freed = {
            each.occupant.replica: each.taken[device.id] - (0 if deep else each.keeps.get(device.id, 0))
            for each in others
        }
        able = [each.occupant for each in others if freed[each.occupant.replica] > 0]
        if sum(freed[each.replica] for each in able) >= missing:
            chosen = fewest(by_worth(able, freed), freed, missing)
            return [*going, *(Victim(each, deep=deep) for each in chosen)]
    return None
