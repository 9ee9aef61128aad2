"""The bill's items: cells with the names of what they belong to, and split by key if that is asked for.

Everything the bill prints, exports or compares is made of these; their sum is the total.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import DAY_US
from poorwill.core.money import apportion
from poorwill.ledger.checksums import Tell
from poorwill.ledger.costs.attribution import KnownShares, known_shares, piece_shares, split, wake_shares
from poorwill.ledger.costs.pricing import BRIDGE, PriceCell, priced, split_at_midnight
from poorwill.ledger.costs.usage import usage
from poorwill.ledger.dates import Period, day_name
from poorwill.ledger.rates import Life, RateBook, Segment, lives, rate_book

OVERHEAD = "(overhead)"
"""Time that no key asked for: linger, floor, parked time, wakes that nobody waited for."""

NOT_RECORDED = "(not recorded)"
"""Busy time whose requests have no row yet, or lost it when poorwill was killed."""

NO_KEY_NAME = "(no key)"
"""Requests in a fleet without keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A sum of money and time that belongs together in every way the bill can be cut."""

    day: int
    model: str
    replica: str
    host: str = ""
    cause: str
    tier: str
    key: str
    rate: int | None
    currency: str
    us: int
    nusd: int


def last_instant(db: sqlite3.Connection) -> int:
    """Return the latest instant the ledger knows of: a bill goes no further."""
    return int(db.execute("SELECT last_us FROM alive").fetchone()[0])


def items(
    db: sqlite3.Connection, period: Period, *, by_key: bool = False, tell: Tell = lambda _: None
) -> list[Item]:
    """Return the items of a period, up to the last instant known; without keys each has the key ''.

    `tell` receives which replica it is at, of shared time which day, and nothing at the end.
    """
    book = rate_book(db)
    currencies = dict(db.execute("SELECT id, currency FROM rates"))
    usual = min(book.currencies(), default="USD")
    to_us = min(period.to_us, last_instant(db))
    known = known_shares(db) if by_key else None
    found: list[Item] = []
    lived = [
        (life, max(period.from_us, life.created_us), min(to_us, life.ended_us or to_us)) for life in lives(db)
    ]
    for number, (life, begin, end) in enumerate(lived, 1):
        if begin >= end:
            continue
        where = f"{life.replica}, {number:,} of {len(lived):,}"
        tell(where)
        costs = priced(db, book, life, from_us=begin, to_us=end)
        owners = _owners(db, known, book, life, begin, end, partial(_tell_day, tell, where)) if known else {}
        for cell, (us, nusd) in costs.items():
            currency = currencies.get(cell.rate or 0, usual)
            for key, key_us, key_nusd in _shared(owners.get(cell), us, nusd, by_key=by_key):
                found.append(
                    Item(
                        day=cell.day,
                        model=life.model,
                        replica=life.replica,
                        host=cell.host,
                        cause=cell.cause,
                        tier=cell.tier,
                        key=key,
                        rate=cell.rate,
                        currency=currency,
                        us=key_us,
                        nusd=key_nusd,
                    )
                )
    tell("")
    found += bridged_items(db, period, by_key=by_key)
    return found


def _shared(
    owners: Mapping[str, int] | None, us: int, nusd: int, *, by_key: bool
) -> Iterable[tuple[str, int, int]]:
    """Split a cell among its owners in proportion to their time; what is left is overhead."""
    if not by_key:
        return [("", us, nusd)]
    parts = {key: part for key, part in (owners or {}).items() if part}
    rest = us - sum(parts.values())
    if rest or not parts:
        parts[OVERHEAD] = parts.get(OVERHEAD, 0) + rest
    keys = sorted(parts)
    # A cell's money is its time at one rate, so money is shared as the time is.
    money = apportion([nusd * parts[key] for key in keys], us) if us else [nusd]
    return [(key, parts[key], part) for key, part in zip(keys, money, strict=True)]


def _owners(
    db: sqlite3.Connection,
    known: KnownShares,
    book: RateBook,
    life: Life,
    from_us: int,
    to_us: int,
    tell_day: Callable[[int], None],
) -> dict[PriceCell, dict[str, int]]:
    """Return who had how much of each cell's time, if somebody asked for it."""
    found: dict[PriceCell, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    numbered: dict[PriceCell, dict[int | None, int]] = defaultdict(lambda: defaultdict(int))
    told = -1
    for segment in book.segments(life, from_us, to_us):
        rate = segment.rate.id if segment.rate else None
        begin, end = segment.from_us, segment.to_us
        for piece, shares in piece_shares(db, known, life.id, from_us=begin, to_us=end):
            if piece.began_us < begin or piece.ended_us > end:
                offset = max(begin, piece.began_us) - piece.began_us
                shares = split(shares, offset, min(end, piece.ended_us) - piece.began_us)
            day = piece.began_us // DAY_US
            if day != told:
                told = day
                tell_day(day)
            owners = numbered[PriceCell(day, life.id, piece.cause, piece.tier, rate, segment.host)]
            for key, us in shares:
                owners[key] += us
        _own_wakes(db, found, life, segment)
    for cell, owners in numbered.items():
        for key, us in owners.items():
            found[cell][key_name(known.names[key])] += us
    return found


def _tell_day(tell: Tell, where: str, day: int) -> None:
    tell(f"{where}: {day_name(day)} among keys")


def _own_wakes(
    db: sqlite3.Connection,
    found: dict[PriceCell, dict[str, int]],
    life: Life,
    segment: Segment,
) -> None:
    from_us, to_us = segment.from_us, segment.to_us
    rate = segment.rate.id if segment.rate else None
    window = {"life": life.id, "from": from_us, "to": to_us}
    known: dict[int, list[tuple[str | None, int]]] = {}
    for began_us, ended_us, cause, tier, wake, wake_began_us in db.execute(_WAKE_SPANS, window):
        if wake not in known:
            known[wake] = wake_shares(db, wake)
        shares = known[wake]
        if not shares:
            continue
        for day, begin, end in split_at_midnight(max(began_us, from_us), min(ended_us, to_us)):
            owners = found[PriceCell(day, life.id, cause, tier, rate, segment.host)]
            for key, us in split(shares, begin - wake_began_us, end - wake_began_us):
                owners[key_name(key)] += us


def bridged_items(
    db: sqlite3.Connection, period: Period, *, by_key: bool, unknown: bool = False
) -> list[Item]:
    """Return what hosted APIs were paid, by day, model and key; or the most that is not known of it."""
    sums: dict[tuple[int, str, str], int] = defaultdict(int)
    for use in usage(db, period, bridged=True):
        nusd = use.bridge_unknown_nusd if unknown else use.bridge_nusd
        if nusd:
            sums[use.day, use.model, key_name(use.key) if by_key else ""] += nusd
    return [
        Item(
            day=day,
            model=model,
            replica="",
            cause=BRIDGE,
            tier="",
            key=key,
            rate=None,
            currency="USD",
            us=0,
            nusd=nusd,
        )
        for (day, model, key), nusd in sorted(sums.items())
    ]


def one_currency(found: Iterable[Item], *, default: str = "USD") -> str:
    """Return the items' currency, `default` if they cost nothing.

    Raises RequestFault if there are several: they cannot be added up.
    """
    currencies = sorted({item.currency for item in found if item.nusd})
    if len(currencies) > 1:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"this was charged in {' and '.join(currencies)}, which cannot be added up",
            hint="choose a period with one currency",
        )
    return currencies[0] if currencies else default


def key_name(key: str | None) -> str:
    """Return a key as the bill shows it."""
    if key is None:
        return NOT_RECORDED
    return key or NO_KEY_NAME


_WAKE_SPANS = """
SELECT s.began_us, coalesce(s.ended_us, :to), s.cause, coalesce(s.tier, ''), s.wake, w.began_us
FROM spans s JOIN wakes w ON w.id = s.wake
WHERE s.life = :life AND s.began_us < :to AND coalesce(s.ended_us, :to) > :from
  AND s.began_us >= (SELECT coalesce(max(began_us), 0) FROM spans
    WHERE life = :life AND began_us <= :from)
ORDER BY s.began_us
"""
