"""Defects planted by hand, each of a kind that has happened to somebody: the simulation must find every one.

A mutant is a change of the source, made while it is imported. One whose text is no longer there is stale and
says so.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One planted defect."""

    name: str
    module: str
    old: str
    new: str


STEP = "poorwill.core.machine.step"
TICKS = "poorwill.core.machine.ticks"
TRANSITION = "poorwill.core.machine.transition"
CELL = "poorwill.core.machine.cell"

MUTANTS: Sequence[Mutant] = (
    Mutant(
        name="lost withdraw",
        module="poorwill.fleet.activator",
        old="self._controller.submit(held.unit, Withdrawn(hold=held.hold))",
        new="pass",
    ),
    Mutant(
        name="park ignores late demand",
        module=TRANSITION,
        old="asked_by = replica.holds[0].asked_by if wait_for_it else replica.wanted_by",
        new="asked_by = replica.wanted_by",
    ),
    Mutant(
        name="span not closed after a park",
        module=TRANSITION,
        old="        self.span(UNOBSERVED if unobserved else parked(tier), tier=tier)",
        new="        pass",
    ),
    Mutant(
        name="more leases than places",
        module=TRANSITION,
        old="room = max(limit - replica.load.in_flight, 0) if limit else len(replica.holds)",
        new="room = len(replica.holds)",
    ),
    Mutant(
        name="wake without an end",
        module=TICKS,
        old="if wake.cap_ends_us <= change.now_us:",
        new="if wake.cap_ends_us <= change.now_us and False:",
    ),
    Mutant(
        name="budget begins anew with each request",
        module=TRANSITION,
        old="if self.replica.holds and self.replica.budget_ends_us is None:",
        new="if self.replica.holds:",
    ),
    Mutant(
        name="action before intent",
        module="poorwill.fleet.wake",
        old="        await committed\n",
        new="",
    ),
    Mutant(
        name="wrong answer accepted after a wake",
        module="poorwill.fleet.wake",
        old="if parked.probe and answer != parked.probe:",
        new="if False:",
    ),
    Mutant(
        name="void lease given back",
        module=CELL,
        old="        if generation != self.generation:\n",
        new="        if False:\n",
    ),
    Mutant(
        name="drain waits for nobody",
        module=TRANSITION,
        old="        if self.replica.load.in_flight == 0:\n            self.begin_park(to_tier",
        new="        if True:\n            self.begin_park(to_tier",
    ),
    Mutant(
        name="wake goes on past the spend limit",
        module=STEP,
        old="        change.abort_wake(what.blocked.why)",
        new="        pass",
    ),
    Mutant(
        name="lease kept by a client that left",
        module="poorwill.gateway.downstream.exchange",
        old="            link.abandon()\n        self.release()",
        new="            link.abandon()",
    ),
    Mutant(
        name="death of an engine unnoticed",
        module="poorwill.fleet.lost",
        old="        context.submit(unit, EngineLost(generation=unit.replica.generation, why=why))",
        new="        pass",
    ),
    Mutant(
        name="silence of a host unnoticed",
        module="poorwill.fleet.sweeps.silence",
        old="            context.submit(unit, lost)\n",
        new="",
    ),
    Mutant(
        name="recovery forgets what runs",
        module="poorwill.fleet.recovery",
        old="            if unit.equipment.processes.alive(known.running) and answers:",
        new="            if False:",
    ),
    Mutant(
        name="newcomer overtakes the queue",
        module="poorwill.core.machine.holds",
        old="    queue = (*holds, hold)",
        new="    queue = (hold, *holds)",
    ),
    Mutant(
        name="device given twice",
        module="poorwill.policies.placement.places",
        old="        if missing_bytes(need, device, house) <= 0\n        and not any",
        new="        if not any",
    ),
    Mutant(
        name="leftover of a park counts as free",
        module="poorwill.policies.placement.places",
        old="and holder.replica not in given\n",
        new="and holder.replica is None\n",
    ),
)
"""Each changes text that stands once in its module; one that has become stale must be planted anew."""


class StaleMutant(Exception):
    """The text that a mutant changes stands no longer there, or stands there twice."""


class _Loader(SourceFileLoader):
    def __init__(self, mutant: Mutant, path: str) -> None:
        super().__init__(mutant.module, path)
        self._mutant = mutant

    def get_code(self, fullname: str):
        """Compile the changed source; never from a cache, never into one."""
        source = self.get_data(self.path).decode()
        if source.count(self._mutant.old) != 1:
            raise StaleMutant(self._mutant.name)
        return compile(source.replace(self._mutant.old, self._mutant.new), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None and spec.origin is not None
        return importlib.util.spec_from_loader(
            fullname, _Loader(self._mutant, spec.origin), origin=spec.origin
        )


def stale() -> list[str]:
    """Return the mutants whose text no longer stands in their module exactly once."""
    return [each.name for each in MUTANTS if _source(each.module).count(each.old) != 1]


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text()


def plant(name: str) -> None:
    """Plant a mutant. Call it before anything of poorwill is imported."""
    mutant = next(each for each in MUTANTS if each.name == name)
    if mutant.module in sys.modules:
        raise StaleMutant(f"{mutant.module} has been imported already")
    sys.meta_path.insert(0, _Finder(mutant))
