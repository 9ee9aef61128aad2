"""What a starting poorwill must know from the ledger: who lived, where, doing what, and until when.

Read-only. It reports facts; `fleet` decides what they mean.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from poorwill.core.entries import ReplicaPlaced
from poorwill.core.words import Cause, ModelName, ReplicaId, Tier, WakeId


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownReplica:
    """A replica whose life has not ended, with its open span."""

    replica: ReplicaId
    model: ModelName
    driver: str
    created_us: int
    cause: Cause
    tier: Tier | None
    span_began_us: int
    placed: ReplicaPlaced | None
    """Where it was last, None if it never was anything but weights on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedWake:
    """A wake that began and whose end nobody recorded."""

    wake: WakeId
    replica: ReplicaId
    generation: int
    from_tier: Tier
    began_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeTime:
    """How long one successful wake took."""

    replica: ReplicaId
    from_tier: Tier
    ended_us: int
    lasted_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkTime:
    """How long one successful park took and what it left on disk."""

    replica: ReplicaId
    to_tier: Tier
    ended_us: int
    lasted_us: int
    image_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Everything recovery starts from."""

    last_us: int
    """The latest instant of any entry, Alive included; 0 in a new ledger."""
    alive_us: int
    """When poorwill last said that it was alive."""
    replicas: tuple[KnownReplica, ...]
    wakes: tuple[UnfinishedWake, ...]
    wake_times: tuple[WakeTime, ...]
    """The last successful wakes of each (replica, tier), oldest first."""
    park_times: tuple[ParkTime, ...]
    """The last successful parks of each (replica, tier), oldest first."""


def recovered(db: sqlite3.Connection, *, remembered: int = 20) -> Recovered:
    """Return what the ledger knows, with up to `remembered` wakes and parks for each replica and tier."""
    alive_us, last_us = db.execute("SELECT at_us, last_us FROM alive").fetchone()
    return Recovered(
        last_us=last_us,
        alive_us=alive_us,
        replicas=tuple(_replica(row) for row in db.execute(_REPLICAS)),
        wakes=tuple(
            UnfinishedWake(
                wake=WakeId(wake),
                replica=ReplicaId(replica),
                generation=generation,
                from_tier=Tier(tier),
                began_us=began_us,
            )
            for wake, replica, generation, tier, began_us in db.execute(_WAKES)
        ),
        wake_times=tuple(
            WakeTime(
                replica=ReplicaId(replica),
                from_tier=Tier(tier),
                ended_us=ended_us,
                lasted_us=lasted_us,
            )
            for replica, tier, ended_us, lasted_us in db.execute(_WAKE_TIMES, (remembered,))
        ),
        park_times=tuple(
            ParkTime(
                replica=ReplicaId(replica),
                to_tier=Tier(tier),
                ended_us=ended_us,
                lasted_us=lasted_us,
                image_bytes=image_bytes,
            )
            for replica, tier, ended_us, lasted_us, image_bytes in db.execute(_PARK_TIMES, (remembered,))
        ),
    )


def idle_gaps(db: sqlite3.Connection, replica: ReplicaId, *, since_us: int) -> list[tuple[int, int]]:
    """Return the replica's finished idle stretches as (idle since, demand at), oldest first.

    An idle stretch begins when the last request in flight ends and ends with the next demand: the
    beginning of the wake it caused, or of the next serving span. For `Policy.observe`.
    """
    gaps: list[tuple[int, int]] = []
    idle_us: int | None = None
    for began_us, ended_us, useful in db.execute(_DEMANDS, {"replica": replica, "since": since_us}):
        if idle_us is not None and began_us > idle_us:
            gaps.append((idle_us, began_us))
        if useful:
            idle_us = ended_us
        elif idle_us is not None:
            idle_us = None  # a wake on demand: busy from here on, until a useful span ends
    return gaps


def level_gaps(
    db: sqlite3.Connection, replicas: Sequence[ReplicaId], *, since_us: int
) -> list[list[tuple[int, int]]]:
    """Return the finished idle stretches of each level of a model's demand, as `idle_gaps`.

    That of the n-th level begins when fewer than n replicas are busy and ends when n are again.
    """
    if len(replicas) == 1:
        return [idle_gaps(db, replicas[0], since_us=since_us)]
    turns: list[tuple[int, int]] = []
    for replica in replicas:
        rows = db.execute(_DEMANDS, {"replica": replica, "since": since_us})
        for began_us, ended_us, _ in rows:
            turns += [] if ended_us is None else [(began_us, 0), (ended_us, 1)]
    gaps: list[list[tuple[int, int]]] = [[] for _ in replicas]
    idle_us: list[int | None] = [None for _ in replicas]
    busy = 0
    for at_us, over in sorted(turns):
        busy -= over
        level = min(busy, len(replicas) - 1)
        since = idle_us[level]
        if not over and since is not None and since < at_us:
            gaps[level].append((since, at_us))
        idle_us[level] = at_us if over else None
        busy += not over
    return gaps


def _replica(row: tuple[object, ...]) -> KnownReplica:
    replica, model, driver, created, cause, tier, began, at, generation, running, parked = row
    placed = None
    if at is not None:
        placed = ReplicaPlaced(
            replica=ReplicaId(str(replica)),
            at_us=int(str(at)),
            generation=int(str(generation)),
            running_json=str(running),
            parked_json=str(parked),
        )
    return KnownReplica(
        replica=ReplicaId(str(replica)),
        model=ModelName(str(model)),
        driver=str(driver),
        created_us=int(str(created)),
        cause=Cause(str(cause)),
        tier=None if tier is None else Tier(str(tier)),
        span_began_us=int(str(began)),
        placed=placed,
    )


_REPLICAS = """
SELECT l.replica, l.model, l.driver, l.created_us, s.cause, s.tier, s.began_us,
  p.at_us, p.generation, p.running_json, p.parked_json
FROM lives l JOIN spans s ON s.life = l.id AND s.next_us IS NULL
LEFT JOIN places p ON p.life = l.id
WHERE l.ended_us IS NULL ORDER BY l.id
"""

_WAKES = """
SELECT w.wake, l.replica, w.generation, w.from_tier, w.began_us
FROM wakes w JOIN lives l ON l.id = w.life
WHERE w.ended_us IS NULL AND l.ended_us IS NULL ORDER BY w.began_us
"""

_WAKE_TIMES = """
SELECT replica, from_tier, ended_us, lasted_us FROM (
  SELECT l.replica, w.from_tier, w.ended_us, w.ended_us - w.began_us AS lasted_us,
    row_number() OVER (PARTITION BY l.replica, w.from_tier ORDER BY w.ended_us DESC) AS age
  FROM wakes w JOIN lives l ON l.id = w.life WHERE w.ok
) WHERE age <= ? ORDER BY ended_us
"""

_PARK_TIMES = """
SELECT replica, to_tier, ended_us, lasted_us, image_bytes FROM (
  SELECT l.replica, p.to_tier, p.ended_us, p.ended_us - p.began_us AS lasted_us, p.image_bytes,
    row_number() OVER (PARTITION BY l.replica, p.to_tier ORDER BY p.ended_us DESC) AS age
  FROM parks p JOIN lives l ON l.id = p.life WHERE p.ok
) WHERE age <= ? ORDER BY ended_us
"""

_DEMANDS = """
SELECT s.began_us, coalesce(s.ended_us, 1 << 62), 1 AS useful
FROM spans s JOIN lives l ON l.id = s.life
WHERE l.replica = :replica AND s.cause IN ('serving', 'drain') AND s.began_us >= :since
UNION ALL
SELECT w.began_us, w.ended_us, 0 FROM wakes w JOIN lives l ON l.id = w.life
WHERE l.replica = :replica AND w.why = 'demand' AND w.began_us >= :since
ORDER BY 1
"""
