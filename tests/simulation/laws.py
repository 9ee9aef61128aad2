"""What must hold in every history. A law that does not hold raises Broken."""

from pathlib import Path

from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.activator import Lease
from poorwill.core.words import SECOND_US, ModelName, ReplicaId, Tier
from poorwill.fleet.fleet import Fleet
from poorwill.ledger.checking import problems
from poorwill.ledger.costs.items import items
from poorwill.ledger.dates import Period
from poorwill.ledger.schema import reading

from .account import Account
from .history import History
from .loop import START_US
from .weather import SimulatedWorld

CAUSES = {
    State.PARKED: ("parked.",),
    State.WAKING: ("wake.",),
    State.READY: ("serving", "linger", "floor"),
    State.DRAINING: ("drain",),
    State.PARKING: ("park",),
}

LATE_US = 2 * SECOND_US
"""A hold may end this much after its bound: it is a timer's turn, after whatever else is ready."""


class Broken(AssertionError):
    """A law does not hold."""


def status_of(fleet: Fleet, replica: ReplicaId):
    """Return a replica's status as an operator sees it."""
    return next(status for status in fleet.view.status() if status.replica == replica)


def check_states(fleet: Fleet) -> None:
    """Laws for every instant: the open span fits the state, nobody waits for a replica that just sleeps."""
    for unit in fleet.controller.units.values():
        replica = unit.replica
        cause = replica.load.cause or ""
        if not cause.startswith(CAUSES[replica.state]):
            raise Broken(f"{replica.id} is {replica.state}, its time is booked as {cause}")
        if replica.load.in_flight < 0:
            raise Broken(f"{replica.id} counts {replica.load.in_flight} requests in flight")
    for model, replicas in fleet.controller.models.items():
        held, cells = len(replicas.queue.holds), replicas.cells
        if held and all(cell.replica.state is State.PARKED for cell in cells):
            raise Broken(f"{model} is parked while {held} requests wait for it")
        if held and any(cell.open and cell.replica.has_room for cell in cells if len(cells) > 1):
            raise Broken(f"{held} requests wait for {model} while a replica has room")


def check_lease(fleet: Fleet, world: SimulatedWorld, lease: Lease) -> None:
    """Law: a lease is given on a ready replica alone, whose engine is awake and says what it always said."""
    status = status_of(fleet, lease.replica)
    dead_us = world.now_us() - world.ended_us.get(lease.replica, 0)
    if lease.generation < fleet.controller.units[lease.replica].replica.generation and dead_us <= LATE_US:
        return  # the engine died between the grant and its client's turn
    if status.state != State.READY:
        raise Broken(f"a lease on {lease.replica}, which is {status.state}")
    if not world.of(lease.replica) and dead_us > LATE_US:
        raise Broken(f"a lease on {lease.replica}, whose engine died {dead_us / 1e6} s ago")
    for running in world.of(lease.replica):
        if running.pid in world.asleep:
            raise Broken(f"a lease on {lease.replica}, whose engine is asleep")
        if running.pid in world.talking_nonsense:
            raise Broken(f"a lease on {lease.replica}, whose snapshot was damaged")


def check_order(fleet: Fleet, model: ModelName) -> None:
    """Law: nobody overtakes those who wait."""
    held = fleet.controller.models[model].queue.holds
    if held:
        raise Broken(f"a request overtook {len(held)} that waited")


def check_wait(waited_us: int, most_us: int) -> None:
    """Law: nobody is held beyond a bound."""
    if waited_us > most_us + LATE_US:
        raise Broken(f"held for {waited_us / 1e6} s; the bound is {most_us / 1e6} s")


def check_rest(world: SimulatedWorld, fleet: Fleet, history: History, account: Account, now_us: int) -> None:
    """Laws: a quiet fleet is in its cheapest allowed state, and nothing on the machine is nobody's."""
    owned = set()
    models = [model for model in history.models for _ in range(model.replicas)]
    for status, model in zip(fleet.view.status(), models, strict=True):
        if status.in_flight or status.held:
            raise Broken(f"{status.replica}: {status.in_flight} in flight, {status.held} held, nobody asks")
        running = world.of(status.replica)
        on_host = status.state == State.READY or status.tier is Tier.ASLEEP
        if status.state not in (State.READY, State.PARKED):
            raise Broken(f"{status.replica} is {status.state} after a quiet time: {status.last_error}")
        if len(running) != on_host and (history.reap_orphans or not running):
            raise Broken(f"{status.replica} is {status.state} {status.tier}; processes: {running}")
        if status.state == State.READY and may_park(model, now_us):
            raise Broken(f"{status.replica} is ready though nobody wants it: {status.last_error}")
        if account.causes[status.replica] != status.cause:
            raise Broken(f"{status.replica}: {status.cause}, in the ledger {account.causes[status.replica]}")
        owned.add(str(status.replica))
    strangers = [pid for pid, each in world.processes.items() if each.replica not in owned]
    if strangers and history.reap_orphans:
        raise Broken(f"processes that nobody owns: {strangers}")


def may_park(model, now_us: int) -> bool:
    """Return whether a model of the history is to be parked when it is idle."""
    return model.floor_s is None or now_us > START_US + model.floor_s[1] * SECOND_US


def check_books(path: Path, account: Account) -> None:
    """Laws: spans tile, sums agree, and the bill equals the independent account to the nano-dollar."""
    with reading(str(path)) as db:
        if wrong := problems(db, str(path)):
            raise Broken(f"the ledger: {wrong}")
        until_us = db.execute("SELECT last_us FROM alive").fetchone()[0]
        billed = sum(item.nusd for item in items(db, Period(from_us=0, to_us=until_us)))
    if billed != account.until(until_us):
        raise Broken(f"the bill says {billed}, the account {account.until(until_us)} nano-dollars")
