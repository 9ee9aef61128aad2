"""The bill by an account of its own: committed facts, added up without SQL or the ledger's pricing.

Rates are whole nano-dollars a microsecond, so that nothing is rounded and the two must agree exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from poorwill.core.entries import Entry, ReplicaCreated, ReplicaEnded, SpanOpened, WakeBegan, WakeEnded
from poorwill.core.settings import RateSettings
from poorwill.core.words import HOUR_US, PARKED_CAUSES, Cause, ReplicaId, Tier, parked

ACTIVE = 1_000
PARKED = {Tier.ASLEEP: 400, Tier.FROZEN: 7, Tier.SUSPENDED: 5, Tier.HIBERNATED: 3, Tier.COLD: 1}
"""Nano-dollars a microsecond."""

RATE = RateSettings(
    effective_us=0,
    active_nusd_h=ACTIVE * HOUR_US,
    parked_nusd_h={tier: price * HOUR_US for tier, price in PARKED.items()},
)


def price_of(cause: str) -> int:
    """Return what a microsecond with this cause costs, in nano-dollars."""
    if cause not in PARKED_CAUSES:
        return ACTIVE
    return PARKED[Tier(cause.removeprefix("parked."))]


@dataclass(slots=True)
class Account:
    """What every replica cost from its creation on."""

    total_nusd: int = 0
    wakes: int = 0
    begun: dict[ReplicaId, int] = field(default_factory=dict)
    """The generation of each replica's last wake."""
    causes: dict[ReplicaId, Cause] = field(default_factory=dict)
    """The cause of each replica's open span."""
    _open: dict[ReplicaId, tuple[int, int]] = field(default_factory=dict)
    """When the open span of each replica began, and its price."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Take committed entries."""
        for entry in entries:
            if isinstance(entry, ReplicaCreated):
                self._open[entry.replica] = (entry.at_us, price_of(parked(Tier.COLD)))
            elif isinstance(entry, SpanOpened):
                self._close(entry.replica, entry.at_us)
                self._open[entry.replica] = (entry.at_us, price_of(entry.cause))
                self.causes[entry.replica] = entry.cause
            elif isinstance(entry, WakeBegan):
                self.begun[entry.replica] = entry.generation
            elif isinstance(entry, ReplicaEnded):
                self._close(entry.replica, entry.at_us)
                del self._open[entry.replica]
            elif isinstance(entry, WakeEnded):
                self.wakes += 1

    def until(self, now_us: int) -> int:
        """Return what everything has cost up to an instant, in nano-dollars."""
        return self.total_nusd + sum((now_us - began) * price for began, price in self._open.values())

    def _close(self, replica: ReplicaId, at_us: int) -> None:
        began, price = self._open[replica]
        self.total_nusd += (at_us - began) * price

    def copy(self) -> "Account":
        """Return the account as it stands."""
        return Account(self.total_nusd, self.wakes, dict(self.begun), dict(self.causes), dict(self._open))
