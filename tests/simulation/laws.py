"""What must hold in every history. A law that does not hold raises Broken."""

from collections import Counter
from dataclasses import dataclass, field
from operator import is_not
from pathlib import Path

from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Replica
from poorwill.core.ports.activator import Lease
from poorwill.core.words import SECOND_US, ModelName, ReplicaId, Tier
from poorwill.fleet.activator import Held
from poorwill.fleet.fleet import Fleet
from poorwill.ledger.checking import problems
from poorwill.ledger.costs.items import items
from poorwill.ledger.dates import Period
from poorwill.ledger.schema import reading
from poorwill.policies.dispatch import Replicas

from .account import Account
from .history import History
from .loop import START_US, VirtualClock
from .weather import SimulatedWorld

CAUSES = {
    State.PARKED: ("parked.", "unobserved"),
    State.WAKING: ("wake.",),
    State.READY: ("serving", "linger", "floor"),
    State.DRAINING: ("drain",),
    State.PARKING: ("park",),
}

LATE_US = 2 * SECOND_US
"""A hold may end this much after its bound: it is a timer's turn, after whatever else is ready."""

UNNOTICED_US = 20 * SECOND_US
"""How long a replica may be called ready after the end of its engine: watching it may fail, and goes on."""


class Broken(AssertionError):
    """A law does not hold."""


@dataclass(eq=False)
class Leases:
    """The leases that are out, and who waits for one, by the simulation's own count."""

    out: Counter[tuple[ReplicaId, int]] = field(default_factory=Counter)
    waiting: dict[ModelName, dict[Held, tuple[str, int]]] = field(default_factory=dict)
    """Who waits for each model, in the order in which they came: by which key, with which priority."""
    reloaded_us: int = -SECOND_US
    left_us: dict[ReplicaId, int] = field(default_factory=dict)
    """When each replica was last ready; a budget bounds a wake, not what is waited before it."""

    def given(self, lease: Lease) -> None:
        """A lease was given."""
        self.out[lease.replica, lease.generation] += 1

    def returned(self, lease: Lease) -> None:
        """Law: a lease is given back once."""
        self.out[lease.replica, lease.generation] -= 1
        if self.out[lease.replica, lease.generation] < 0:
            raise Broken(f"a lease on {lease.replica} was given back twice")

    def on(self, replica: str) -> int:
        """Return how many leases on a replica are out."""
        return sum(count for (of, _), count in self.out.items() if of == replica)

    def waits(self, model: ModelName, held: Held, key: str, priority: int) -> None:
        """A request has been held."""
        self.waiting.setdefault(model, {})[held] = key, priority

    def over(self, model: ModelName, held: Held, *, served: bool) -> None:
        """Law: of one key and priority, who came first is served first."""
        line = self.waiting[model]
        own = line.pop(held)
        if served:
            ahead = [each for each in line if each.hold < held.hold and line[each] == own]
            ahead = [each for each in ahead if not each.future.done()]
            if ahead:
                raise Broken(f"a request overtook {len(ahead)} of the same key that waited")

    def check(self, fleet: Fleet, replica_of: ReplicaId) -> None:
        """Law: what the fleet counts in flight is what is in flight, and no more than the replica takes."""
        unit = fleet.controller.units.get(replica_of)
        if unit is None:
            return
        replica = unit.replica
        out = self.out[replica_of, replica.generation]
        if out > replica.load.in_flight:
            raise Broken(f"{out} leases are out, {replica.load.in_flight} are counted")
        limit = replica.settings.max_concurrency
        just_reloaded = fleet.controller.clock.now_us() - self.reloaded_us < SECOND_US
        if limit and out > limit and not just_reloaded:
            raise Broken(f"{out} leases are out, {limit} may be")
        if len(unit.waiting) < len(replica.holds):
            raise Broken(f"{len(replica.holds)} places in the queue, {len(unit.waiting)} wait in them")


@dataclass(eq=False)
class States:
    """Laws for every instant: the open span fits the state, nobody waits for a replica that just sleeps."""

    fleet: Fleet
    world: SimulatedWorld
    leases: Leases
    clock: VirtualClock
    _judged: dict[ReplicaId, Replica] = field(default_factory=dict)
    """The replica that was last found in order."""
    _seen: list[Replica] = field(default_factory=list)
    """The replicas as they were at the last look."""
    _looked_us: int = 0

    def check(self) -> None:
        """Judge the replicas and their queues if one has changed: its value has all that is judged."""
        replicas = [unit.cell.replica for unit in self.fleet.controller.units.values()]
        if len(replicas) != len(self._seen) or any(map(is_not, replicas, self._seen)):
            self._seen = replicas
            self._judge(replicas)
        now = self.world.now_us()
        if now - self._looked_us > UNNOTICED_US:
            self._looked_us = now
            self._check_engines(now)

    def _judge(self, replicas: list[Replica]) -> None:
        for replica in replicas:
            before = self._judged.get(replica.id)
            if before is not replica:
                if before is not None and before.state is State.READY:
                    self.leases.left_us[replica.id] = self.clock.awake_us()
                _check_replica(replica)
                self._judged[replica.id] = replica
        for model, each in self.fleet.controller.models.items():
            if each.queue.holds:
                _check_queue(model, each)

    def _check_engines(self, now: int) -> None:
        """Law: the end of an engine, and the silence of its host, are noticed."""
        for unit in self.fleet.controller.units.values():
            ended_us = self.world.ended_us.get(unit.id)
            if unit.replica.state is State.READY and ended_us and not self.world.of(unit.id):
                if now - ended_us > UNNOTICED_US:
                    raise Broken(f"{unit.id} is ready, its engine ended {(now - ended_us) / 1e6} s ago")
            for pid in {each.pid for each in self.world.of(unit.id)} - self.world.strays:
                from_us, until_us = self.world.silences.get(pid, (now, now))
                if unit.replica.state is State.READY and now < until_us and now - from_us > UNNOTICED_US:
                    raise Broken(f"{unit.id} is ready, its host silent for {(now - from_us) / 1e6} s")


def _check_queue(model: ModelName, replicas: Replicas) -> None:
    held, cells = len(replicas.queue.holds), replicas.cells
    if all(cell.replica.state is State.PARKED for cell in cells):
        raise Broken(f"{model} is parked while {held} requests wait for it")
    if len(cells) > 1 and any(cell.open and cell.replica.has_room for cell in cells):
        raise Broken(f"{held} requests wait for {model} while a replica has room")


def _check_replica(replica: Replica) -> None:
    cause = replica.load.cause or ""
    if not cause.startswith(CAUSES[replica.state]):
        raise Broken(f"{replica.id} is {replica.state}, its time is booked as {cause}")
    if replica.load.in_flight < 0:
        raise Broken(f"{replica.id} counts {replica.load.in_flight} requests in flight")


def check_lease(fleet: Fleet, world: SimulatedWorld, lease: Lease) -> None:
    """Law: a lease is given on a ready replica alone, whose engine is awake and says what it always said."""
    unit = fleet.controller.units.get(lease.replica)
    dead_us = world.now_us() - world.ended_us.get(lease.replica, 0)
    if unit is None or (lease.generation < unit.cell.generation and dead_us < LATE_US):
        return  # the engine died between the grant and its client's turn
    state = unit.replica.state
    if state is not State.READY:
        raise Broken(f"a lease on {lease.replica}, which is {state}")
    if not world.of(lease.replica) and dead_us > LATE_US:
        raise Broken(f"a lease on {lease.replica}, whose engine died {dead_us / 1e6} s ago")
    for running in world.of(lease.replica):
        if running.pid in world.strays:
            continue
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
    for status in fleet.view.status():
        model = history.models[int(status.model[1:])]
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
