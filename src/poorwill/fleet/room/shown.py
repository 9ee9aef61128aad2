"""What operators see of devices: what each has left, who has it, and where each replica is."""

from poorwill.fleet.room.residents import sleeps
from poorwill.fleet.room.room import Room
from poorwill.fleet.unit import Unit
from poorwill.policies.placement.places import held
from poorwill.policies.placement.refusals import gib


async def devices_now(room: Room) -> list[dict[str, object]]:
    """Look at the devices and return how they stand, as `/status` has them; empty if the fleet gives none."""
    await room.look()
    house = room.house(room.clock.now_us())
    return [
        {
            "id": device.id,
            "index": device.index,
            "name": device.name,
            "bytes": device.bytes,
            "free_bytes": max(0, house.free(device)),
            "foreign_bytes": house.foreign.get(device.id, 0),
            "replicas": [
                {"replica": each, "given_bytes": given, "holds_bytes": held(device).get(each)}
                for each, given in room.given(device).items()
            ],
            "unfit": device.unfit,
            "caution": device.caution,
        }
        for device in room.seen
    ]


def where_it_is(room: Room, unit: Unit) -> str:
    """Say which devices a replica has, keeps some of, or waits for; empty if none."""
    if unit in room.queue:
        claim = room.claims[unit.model].devices
        return "it waits for a place on a device" if claim.any else ""
    running = unit.running
    place = running.place if running is not None else None
    if place is None or not place.devices:
        return ""
    on = ", ".join(f"device {each}" if each.isdecimal() else each for each in place.devices)
    if sleeps(unit):
        kept = sum(held(device).get(unit.id, 0) for device in room.seen if device.id in place.devices)
        return f"asleep on {on}" + (f", of which it keeps {gib(kept)}" if kept else "")
    return f"on {on}" + (f", {gib(place.share_bytes)} of it" if place.share_bytes else "")
