"""Room for snapshots: free disk space, the fleet's quota, and which snapshot is evicted first."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from poorwill.core.ports.driver import DriverError, Found
from poorwill.core.ports.log import Log
from poorwill.core.words import ReplicaId, Tier
from poorwill.tiers.snapshots.store import SnapshotStore, free_bytes

SPARE_BYTES = 64 * 2**20
"""Left free on the disk beyond a new snapshot, so that the ledger can still write."""

_CLEAR_BYTES = 512 * 2**20
"""Of a frozen image in the clear: criu is stopped at an eighth, and writes on while that is sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What a snapshot is worth keeping for."""

    priority: float = 0.0
    """Of its model. Never evicted for one of a lower priority."""
    worth: float = 1.0
    """In any one unit (seconds of waking that it saves in a week, say); compared for each byte."""


def all_alike(replica: ReplicaId, tier: Tier) -> Value:
    """Value all snapshots alike, so that the largest goes first."""
    return Value()


@dataclass(slots=True, kw_only=True)
class Space:
    """The room that a fleet's snapshots share. Methods block and are safe to call from any thread."""

    log: Log
    quota_bytes: int = 0
    """For all snapshots of all stores together; 0: only the disk bounds them."""
    stores: Sequence[SnapshotStore] = ()
    """All stores of the fleet, on one disk."""
    value: Callable[[ReplicaId, Tier], Value] = all_alike
    promised: dict[ReplicaId, int] = field(default_factory=dict)
    """Bytes promised to parks under way that have not called `settle` yet."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def make_room(
        self, store: SnapshotStore, need_bytes: int, *, replica: ReplicaId, there_bytes: int = 0
    ) -> None:
        """Make sure a new snapshot of `replica` fits, evicting the least valuable ones first.

        `there_bytes` of it are on the disk already: they count against the quota only. The room is promised
        until `settle`: a park at the same time does not count on it.

        Evicted are snapshots of the same or a lower priority: the lowest first, among equals the one that is
        worth least for each byte. A replica's older snapshot is about to be replaced, so it goes before any
        other. Raises DriverError, and evicts none, if evicting all would not be enough.
        """
        with self.lock:
            # One by one: `parents` would give what it makes the usual permissions.
            for directory in (store.root.parent, store.root):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._refuse_too_large(store, need_bytes)
            present = self._present(store)
            mine = self.value(replica, store.tier).priority
            candidates = [
                (found, owner)
                for found, owner in self._least_valuable_first(present, replica)
                if found.replica == replica
                # The image of a park that is not over: its fleet has not heard of it, and would wake from it.
                or (found.replica not in self.promised and self._value(found).priority <= mine)
            ]
            short = self._short_bytes(store, need_bytes, there_bytes, replica, present)
            if short > sum(found.image_bytes for found, _ in candidates):
                kept = " beside snapshots of a higher priority and those being written"
                raise DriverError(
                    f"no room for a snapshot of {_mb(need_bytes)} in {store.root}: "
                    f"{_mb(short)} are missing{kept if len(candidates) < len(present) else ''}"
                )
            while short and candidates:
                evicted = candidates.pop(0)
                self._evict(*evicted, short_bytes=short)
                present.remove(evicted)
                short = self._short_bytes(store, need_bytes, there_bytes, replica, present)
            self.promised[replica] = need_bytes

    def settle(self, replica: ReplicaId) -> None:
        """End the promise: the snapshot is there to be counted, or will not come. Idempotent."""
        with self.lock:
            self.promised.pop(replica, None)

    def keep_to_quota(self) -> None:
        """Evict what exceeds the quota, which may have been lowered since: least valuable first."""
        with self.lock:
            present = self._present(None) if self.quota_bytes else []
            over = sum(found.image_bytes for found, _ in present) - self.quota_bytes
            leaving = self._least_valuable_first(present, None) if over > 0 else []
            while leaving and over > 0:
                found, owner = leaving.pop(0)
                self._evict(found, owner, short_bytes=over)
                over -= found.image_bytes

    def _refuse_too_large(self, store: SnapshotStore, need_bytes: int) -> None:
        if self.quota_bytes and need_bytes > self.quota_bytes:
            raise DriverError(f"a snapshot of {_mb(need_bytes)} exceeds the quota of {_mb(self.quota_bytes)}")
        # What criu writes is sealed as it grows.
        clear_bytes = min(need_bytes, _CLEAR_BYTES) if store.tier is Tier.FROZEN else need_bytes
        if store.sealer is not None and clear_bytes > free_bytes(store.memory):
            raise DriverError(f"an encrypted snapshot needs {_mb(clear_bytes)} of {store.memory} for a while")

    def _present(self, asking: SnapshotStore | None) -> list[tuple[Found, SnapshotStore]]:
        stores = {each.root: each for each in self.stores}
        if asking is not None:
            stores[asking.root] = asking
        # What is being woken from is about to go by itself.
        return [
            (found, store)
            for store in stores.values()
            for found in store.found()
            if Path(found.what) not in store.held
        ]

    def _least_valuable_first(
        self, present: Sequence[tuple[Found, SnapshotStore]], replica: ReplicaId | None
    ) -> list[tuple[Found, SnapshotStore]]:
        def rank(each: tuple[Found, SnapshotStore]) -> tuple[bool, float, float]:
            found = each[0]
            value = self._value(found)
            worth_of_a_byte = value.worth / max(1, found.image_bytes)
            return (found.replica != replica, value.priority, worth_of_a_byte)

        return sorted(present, key=rank)

    def _value(self, found: Found) -> Value:
        return self.value(found.replica, found.tier or Tier.FROZEN)

    def _short_bytes(
        self,
        store: SnapshotStore,
        need_bytes: int,
        there_bytes: int,
        replica: ReplicaId,
        present: Sequence[tuple[Found, SnapshotStore]],
    ) -> int:
        used = sum(found.image_bytes for found, _ in present)
        used += sum(count for other, count in self.promised.items() if other != replica)
        over_quota = used + need_bytes - self.quota_bytes if self.quota_bytes else 0
        over_disk = need_bytes - there_bytes + SPARE_BYTES - free_bytes(store.root)
        return max(0, over_quota, over_disk)

    def _evict(self, found: Found, store: SnapshotStore, *, short_bytes: int) -> None:
        if found.parked is None:
            return
        self.log.warning(
            "snapshot evicted to make room",
            replica=found.replica,
            tier=found.tier,
            bytes=found.image_bytes,
            short_bytes=short_bytes,
        )
        store.discard(found.parked)


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
