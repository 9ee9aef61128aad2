"""Rates: effective-dated, versioned, never changed. What an hour cost, at any instant, for any replica.

A rate in the ledger prices from `effective_us` until `until_us`. A configuration that differs from what the
ledger holds closes rows and adds rows as of now: it never reaches back over time already priced.
"""

import json
import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

from poorwill.core.format import money
from poorwill.core.settings import RateSettings
from poorwill.core.words import ORPHAN
from poorwill.ledger.dates import iso
from poorwill.policies.pricing import Price


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Price):
    """One row of the rates table."""

    id: int
    effective_us: int
    until_us: int | None
    model: str | None
    driver: str | None
    replica: str | None
    host: str | None
    currency: str
    source: str

    @property
    def scope(self) -> str:
        """What it prices, for people."""
        return scope_of(self)


def scope_of(rate: Rate | RateSettings) -> str:
    """Return what a rate prices, for people."""
    named = ("model", rate.model), ("driver", rate.driver), ("replica", rate.replica), ("host", rate.host)
    return ", ".join(f"{what} {name}" for what, name in named if name) or "every replica"


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One life of a replica, as far as prices depend on it."""

    id: int
    replica: str
    model: str
    driver: str
    created_us: int
    ended_us: int | None
    stays: tuple[tuple[int, str], ...] = ()
    """The other hosts that it was on, and from when on each; '' for none."""

    def host(self, at_us: int) -> str:
        """Return the host that it was on, '' if that was poorwill's own machine."""
        place = bisect_right(self.stays, at_us, key=itemgetter(0))
        return self.stays[place - 1][1] if place else ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one life on one host with one rate, or none."""

    from_us: int
    to_us: int
    rate: Rate | None
    host: str = ""


class RateBook:
    """All rates of a ledger, for look-up by life and instant."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        self.rates = tuple(rates)

    def at(self, life: Life, at_us: int) -> Rate | None:
        """Return the rate in force: the most specific scope, in it the newest effective date."""
        best: Rate | None = None
        host = life.host(at_us)
        for rate in self.rates:
            if rate.effective_us <= at_us and (rate.until_us is None or at_us < rate.until_us):
                if (
                    _applies(rate, life)
                    and rate.host in (None, host)
                    and (best is None or _rank(rate) > _rank(best))
                ):
                    best = rate
        return best

    def segments(self, life: Life, from_us: int, to_us: int) -> list[Segment]:
        """Cut a stretch of time where the life's rate or host changes."""
        cuts = {from_us, to_us, *(began_us for began_us, _ in life.stays)}
        for rate in self.rates:
            if _applies(rate, life):
                cuts |= {at for at in (rate.effective_us, rate.until_us) if at is not None}
        edges = sorted(cut for cut in cuts if from_us <= cut <= to_us)
        found: list[Segment] = []
        for begin, end in pairwise(edges):
            price, host = self.at(life, begin), life.host(begin)
            joins = bool(found) and (found[-1].rate, found[-1].host) == (price, host)
            since_us = found.pop().from_us if joins else begin
            found.append(Segment(since_us, end, price, host))
        return found

    def currencies(self) -> set[str]:
        """Return every currency a rate is in."""
        return {rate.currency for rate in self.rates}


def rate_book(db: sqlite3.Connection) -> RateBook:
    """Read all rates."""
    return RateBook([_rate(row) for row in db.execute(_SELECT)])


def lives(db: sqlite3.Connection) -> list[Life]:
    """Read all lives."""
    stays: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for life, began_us, host in db.execute("SELECT life, began_us, host FROM stays ORDER BY life, began_us"):
        stays[life].append((began_us, host))
    rows = db.execute("SELECT id, replica, model, driver, created_us, ended_us FROM lives ORDER BY id")
    return [
        Life(
            id=id,
            replica=replica,
            model=model,
            driver=driver,
            created_us=begin,
            ended_us=end,
            stays=tuple(stays.get(id, ())),
        )
        for id, replica, model, driver, begin, end in rows
    ]


def orphans(db: sqlite3.Connection) -> set[int]:
    """Return the ids of the lives that are orphans' time: engines that were nobody's replica."""
    rows = db.execute(
        "SELECT l.id FROM lives l JOIN spans s ON s.life = l.id AND s.began_us = l.created_us"
        " WHERE s.cause = ?",
        (ORPHAN,),
    )
    return {life for (life,) in rows}


def sync_rates(db: sqlite3.Connection, configured: Iterable[RateSettings], *, now_us: int) -> list[str]:
    """Make the ledger's open rates those that are configured; return what changed, for people.

    In a ledger that never had a rate they hold from the date they name. Later, a rate that is new or differs
    holds from that date or from now, whichever is later, and one that is gone ends now: what was priced
    stays priced as it was. Call it on the writer thread, in a transaction.
    """
    first = db.execute("SELECT 1 FROM rates").fetchone() is None
    wanted = {_identity_of(rate): rate for rate in configured}
    open_rows = [_rate(row) for row in db.execute(_SELECT + " WHERE until_us IS NULL")]
    declared = dict(db.execute("SELECT id, declared_us FROM rates WHERE until_us IS NULL"))
    told: list[str] = []
    for rate in open_rows:
        identity = (declared[rate.id], *_figures(rate))
        if identity in wanted:
            del wanted[identity]
            continue
        end_us = max(now_us, rate.effective_us)
        db.execute("UPDATE rates SET until_us = ? WHERE id = ?", (end_us, rate.id))
        told.append(f"{money(rate.active_nusd_h, rate.currency)} an hour ended for {rate.scope}")
    for settings in wanted.values():
        effective_us = settings.effective_us if first else max(settings.effective_us, now_us)
        _insert(db, settings, effective_us=effective_us, now_us=now_us)
        told.append(
            f"{money(settings.active_nusd_h, settings.currency)} an hour for {scope_of(settings)},"
            f" from {iso(effective_us)} on"
        )
    return told


def _insert(db: sqlite3.Connection, rate: RateSettings, *, effective_us: int, now_us: int) -> None:
    db.execute(
        "INSERT INTO rates (effective_us, declared_us, recorded_us, model, driver, replica, host,"
        " active_nusd_h, parked_json, storage_nusd_gb_month, increment_us, minimum_us, currency, source)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            effective_us,
            rate.effective_us,
            now_us,
            rate.model,
            rate.driver,
            rate.replica,
            rate.host,
            rate.active_nusd_h,
            json.dumps(dict(rate.parked_nusd_h), sort_keys=True),
            rate.storage_nusd_gb_month,
            rate.increment_us,
            rate.minimum_us,
            rate.currency,
            rate.source,
        ),
    )


_SELECT = (
    "SELECT id, effective_us, until_us, model, driver, replica, host, active_nusd_h, parked_json,"
    " storage_nusd_gb_month, increment_us, minimum_us, currency, source FROM rates"
)


def _rate(row: tuple[Any, ...]) -> Rate:
    id, effective, until, model, driver, replica, host, active, parked, *rest = row
    storage, increment, minimum, currency, source = rest
    return Rate(
        id=id,
        effective_us=effective,
        until_us=until,
        model=model,
        driver=driver,
        replica=replica,
        host=host,
        active_nusd_h=active,
        parked_nusd_h=json.loads(parked),
        storage_nusd_gb_month=storage,
        increment_us=increment,
        minimum_us=minimum,
        currency=currency,
        source=source,
    )


def _applies(rate: Rate, life: Life) -> bool:
    return (
        rate.model in (None, life.model)
        and rate.driver in (None, life.driver)
        and rate.replica in (None, life.replica)
    )


def _rank(rate: Rate) -> tuple[object, ...]:
    named = rate.replica, rate.model, rate.host, rate.driver
    return (*(name is not None for name in named), rate.effective_us, rate.id)


def _figures(rate: Rate | RateSettings) -> tuple[object, ...]:
    parked = tuple(sorted((str(tier), price) for tier, price in rate.parked_nusd_h.items()))
    return (
        rate.model,
        rate.driver,
        rate.replica,
        rate.host,
        rate.active_nusd_h,
        parked,
        rate.storage_nusd_gb_month,
        rate.increment_us,
        rate.minimum_us,
        rate.currency,
        rate.source,
    )


def _identity_of(rate: RateSettings) -> tuple[object, ...]:
    return (rate.effective_us, *_figures(rate))
