"""Whose linger it is: the key's whose request ended last or, if none was served, who asked for the wake.

On the bill linger is overhead, because no request was in flight. A key's limit counts it all the same: a
client that wakes a replica and leaves at once would otherwise keep it ready at nobody's cost.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from poorwill.core.money import apportion
from poorwill.core.words import LINGER, SECOND_US
from poorwill.ledger.costs.items import Item, key_name
from poorwill.ledger.costs.pricing import split_at_midnight
from poorwill.ledger.dates import Period

LATE_US = SECOND_US
"""A row may say that its request ended a moment after its replica fell idle."""


def linger_items(db: sqlite3.Connection, period: Period, found: Sequence[Item]) -> list[Item]:
    """Return the items with linger on its keys, in proportion to their time. Their sum is the same."""
    shares = _shares(db, period)
    return [part for item in found for part in _split(item, shares.get((item.day, item.replica), {}))]


def _split(item: Item, shares: Mapping[str, int]) -> Iterator[Item]:
    if item.cause != LINGER or not shares:
        yield item
        return
    keys, whole_us = sorted(shares), sum(shares.values())
    times = apportion([item.us * shares[key] for key in keys], whole_us)
    money = apportion([item.nusd * shares[key] for key in keys], whole_us)
    for key, us, nusd in zip(keys, times, money, strict=True):
        yield replace(item, key=key, us=us, nusd=nusd)


def _shares(db: sqlite3.Connection, period: Period) -> Mapping[tuple[int, str], Mapping[str, int]]:
    """Return each key's time of linger, by day and replica."""
    found: dict[tuple[int, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    window = {"cause": LINGER, "from": period.from_us, "to": period.to_us, "late": LATE_US}
    for replica, began_us, ended_us, key, asked_by in db.execute(_LINGERS, window).fetchall():
        owner = asked_by if key is None else key_name(key)
        if owner is not None:
            for day, begin, end in split_at_midnight(began_us, ended_us):
                found[day, replica][owner] += end - begin
    return found


_LINGERS = """
SELECT l.replica, max(s.began_us, :from), min(coalesce(s.ended_us, a.last_us), :to),
  (SELECT t.text FROM requests r JOIN texts t ON t.id = r.key
    WHERE r.life = s.life AND r.ended_us <= s.began_us + :late AND r.leased_us <= s.began_us
      AND r.ended_us >= coalesce(w.ended_us, 0)
    ORDER BY r.ended_us DESC LIMIT 1),
  w.asked_by
FROM spans s JOIN lives l ON l.id = s.life JOIN alive a
LEFT JOIN wakes w ON w.id = (
  SELECT id FROM wakes WHERE life = s.life AND ended_us <= s.began_us ORDER BY id DESC LIMIT 1)
WHERE s.cause = :cause AND s.began_us < min(:to, a.last_us) AND coalesce(s.ended_us, a.last_us) > :from
  AND s.began_us >= (SELECT coalesce(max(began_us), 0) FROM spans WHERE life = l.id AND began_us <= :from)
"""
