"""Room for snapshots: the disk's free space, a quota over all, and who goes first when it is short."""

from collections.abc import Callable
from dataclasses import dataclass

from poorwill.core.ports import DriverError, Found, Log
from poorwill.core.words import ReplicaId
from poorwill.drivers.snapshot import SnapshotStore, free_bytes

SPARE_BYTES = 64 * 2**20
"""Left free on the disk beyond a new snapshot, so that the ledger can still write."""


def no_worth(replica: ReplicaId) -> float:
    """Rank all snapshots alike, so that the largest goes first."""
    return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """How much room snapshots may take, and which is worth least."""

    log: Log
    quota_bytes: int = 0
    """For all snapshots together; 0: only the disk bounds them."""
    worth: Callable[[ReplicaId], float] = no_worth
    """What a replica's snapshot is worth, in any one unit (seconds of waking it saves in a day, say)."""

    def make_room(
        self, store: SnapshotStore, need_bytes: int, *, replica: ReplicaId, there_bytes: int = 0
    ) -> None:
        """Make sure a new snapshot of `replica` fits, evicting the least valuable ones first.

        `there_bytes` of it are on the disk already: they count against the quota only.

        Value is worth for each byte. A replica's older snapshot is about to be replaced, so it goes before
        any other. Blocks. Raises DriverError where even evicting all would not do; then none is evicted.
        """
        store.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.quota_bytes and need_bytes > self.quota_bytes:
            raise DriverError(
                f"a snapshot of {_mb(need_bytes)} exceeds the quota of {_mb(self.quota_bytes)}"
            )
        if store.sealer is not None and need_bytes > free_bytes(store.memory):
            raise DriverError(
                f"an encrypted snapshot needs {_mb(need_bytes)} of {store.memory} for a while"
            )
        present = sorted(store.found(), key=lambda found: self._value(found, replica))
        short_bytes = self._short(store, present, need_bytes, there_bytes)
        if short_bytes > sum(found.image_bytes for found in present):
            raise DriverError(
                f"no room for a snapshot of {_mb(need_bytes)} in {store.root}: "
                f"{_mb(short_bytes)} are missing"
            )
        while short_bytes and present:
            self._evict(store, present.pop(0), short_bytes)
            short_bytes = self._short(store, present, need_bytes, there_bytes)

    def _short(
        self, store: SnapshotStore, present: list[Found], need_bytes: int, there_bytes: int
    ) -> int:
        used = sum(found.image_bytes for found in present)
        over_quota = used + need_bytes - self.quota_bytes if self.quota_bytes else 0
        over_disk = need_bytes - there_bytes + SPARE_BYTES - free_bytes(store.root)
        return max(0, over_quota, over_disk)

    def _value(self, found: Found, replica: ReplicaId) -> tuple[bool, float]:
        own = found.replica == replica
        return (not own, self.worth(found.replica) / max(1, found.image_bytes))

    def _evict(self, store: SnapshotStore, found: Found, short_bytes: int) -> None:
        if found.parked is None:
            return
        self.log.warning(
            "snapshot evicted to make room",
            replica=found.replica,
            bytes=found.image_bytes,
            short_bytes=short_bytes,
        )
        store.discard(found.parked)


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
