"""Verifies that a park has freed what it should: memory of devices is often given back late, or never."""

import asyncio
from collections.abc import Iterator

from poorwill.core.entries import Noted
from poorwill.core.launch import Parked, Place
from poorwill.core.words import Tier
from poorwill.fleet.journal import Journal
from poorwill.fleet.room.room import Room
from poorwill.fleet.unit import Unit
from poorwill.policies.placement.devices import DeviceState
from poorwill.policies.placement.places import UNNAMED_BYTES, held, unnamed_bytes
from poorwill.policies.placement.refusals import gib

_LOOK_S = 0.1

ASLEEP_SHARE = 0.5
"""An engine that keeps more than this asleep has freed too little to be called asleep."""


async def until_freed(room: Room, journal: Journal, unit: Unit, parked: Parked) -> None:
    """Return when what the replica held of its devices is free; if that takes too long, tell what is not.

    What a sleeping engine keeps is remembered, so that an eviction counts on no more than comes free.
    Cancelled: nothing is changed.
    """
    place = unit.running.place if unit.running is not None else parked.place
    if room.devices is None or place is None or not place.devices:
        return
    left = ""
    try:
        async with asyncio.timeout(room.freed_s):
            while True:
                await room.look()
                left = "; ".join(_left(room, unit, parked, place))
                if not left:
                    return
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        at_us = room.clock.now_us()
        told = Noted(at_us=at_us, kind="device_memory_kept", replica=unit.id, model=unit.model, text=left)
        journal.post([told])


def _left(room: Room, unit: Unit, parked: Parked, place: Place) -> Iterator[str]:
    """Yield, for people, what should be free and is not."""
    on = [device for device in room.seen if device.id in place.devices]
    if parked.tier is not Tier.ASLEEP:
        yield from (told for device in on if (told := _leaked(unit, room, device)))
        return
    room.kept[unit.id] = {device.id: held(device).get(unit.id, 0) for device in on}
    for device in on:
        given, keeps = place.share_bytes or device.bytes, room.kept[unit.id][device.id]
        if keeps > ASLEEP_SHARE * given:
            yield f"asleep, it keeps {gib(keeps)} of the {gib(given)} that it was given of {device.id}"


def _leaked(unit: Unit, room: Room, device: DeviceState) -> str:
    """Say what is in use that was not before the replica was let in, and that nobody else holds."""
    own = held(device).get(unit.id, 0)
    given = {replica: count for replica, count in room.given(device).items() if replica != unit.id}
    more = unnamed_bytes(device, given) - room.unnamed.get(unit.id, {}).get(device.id, 0)
    if own:
        return f"{gib(own)} of {device.id} are still held by processes of {unit.id}"
    if more > UNNAMED_BYTES and unit.id in room.unnamed:
        return f"{gib(more)} of {device.id} were not freed: nobody that NVML names holds them"
    return ""
