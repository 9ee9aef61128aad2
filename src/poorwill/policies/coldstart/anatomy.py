"""How the time of a wake was spent: marks from many sources become leaves that tile the wake exactly.

Pure. A mark either opens a phase, which lasts until the next such mark, or tells afterwards how long one
took. Those nest (an engine's initialisation holds its compilation), so every instant is given to the
innermost phase that covers it: the one that began last. What nobody explains is `unattributed`, never
hidden.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from poorwill.core.entries import PhaseSpan
from poorwill.core.launch import PhaseMark
from poorwill.core.words import Phase

MOST_LEAVES = 200
"""Beyond it leaves of one phase are merged whatever their details: no log can flood the ledger."""


def anatomy(marks: Iterable[PhaseMark], began_us: int, ended_us: int) -> tuple[PhaseSpan, ...]:
    """Return leaves that tile [began_us, ended_us]: in order, no gap, no overlap, none empty.

    Empty if the wake took no time. Marks outside of the wake are clipped to it; their order does not
    matter but among marks of one instant the later one wins.
    """
    pieces = _merged(_pieces(_claims(marks, began_us, ended_us), began_us, ended_us), by_detail=True)
    if len(pieces) > MOST_LEAVES:
        pieces = _merged(pieces, by_detail=False)
    return tuple(pieces)


@dataclass(slots=True)
class _Claim:
    """A mark's claim to a stretch of time."""

    began_us: int
    ended_us: int
    order: int
    mark: PhaseMark
    spent: bool = False
    """Its bytes have been given to a leaf."""

    def __lt__(self, other: "_Claim") -> bool:
        return self._rank() < other._rank()

    def _rank(self) -> tuple[int, int, int]:
        return (-self.began_us, self.ended_us, -self.order)


def _claims(marks: Iterable[PhaseMark], began_us: int, ended_us: int) -> list[_Claim]:
    """Return the claims by begin. An open mark claims up to the next one; `unattributed` claims nothing."""
    claims: list[_Claim] = []
    current: _Claim | None = None
    for order, mark in enumerate(sorted(marks, key=lambda mark: mark.at_us)):
        at_us = min(max(mark.at_us, began_us), ended_us)
        if mark.ended_us is not None:
            end_us = min(mark.ended_us, ended_us)
            claims.append(_Claim(at_us, end_us, order, mark))
            continue
        if current is not None:
            current.ended_us = at_us
        current = _Claim(at_us, ended_us, order, mark)
        claims.append(current)
    return [
        claim
        for claim in sorted(claims, key=lambda claim: claim.began_us)
        if claim.ended_us > claim.began_us and claim.mark.phase is not Phase.UNATTRIBUTED
    ]


def _pieces(claims: list[_Claim], began_us: int, ended_us: int) -> Iterator[PhaseSpan]:
    """Sweep over time: at every begin or end, the claim that began last takes over."""
    edges = sorted({began_us, ended_us, *(edge for c in claims for edge in (c.began_us, c.ended_us))})
    heap: list[_Claim] = []
    waiting = iter(claims)
    upcoming = next(waiting, None)
    for start_us, end_us in pairwise(edges):
        while upcoming is not None and upcoming.began_us <= start_us:
            heapq.heappush(heap, upcoming)
            upcoming = next(waiting, None)
        while heap and heap[0].ended_us <= start_us:
            heapq.heappop(heap)
        yield _piece(heap[0] if heap else None, start_us, end_us)


def _piece(claim: _Claim | None, start_us: int, end_us: int) -> PhaseSpan:
    if claim is None:
        return PhaseSpan(phase=Phase.UNATTRIBUTED, began_us=start_us, ended_us=end_us)
    first, claim.spent = not claim.spent, True
    return PhaseSpan(
        phase=claim.mark.phase,
        began_us=start_us,
        ended_us=end_us,
        bytes_read=claim.mark.bytes_read if first else None,
        detail=claim.mark.detail,
    )


def _merged(pieces: Iterable[PhaseSpan], *, by_detail: bool) -> list[PhaseSpan]:
    merged: list[PhaseSpan] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is None or last.phase is not piece.phase or (by_detail and last.detail != piece.detail):
            merged.append(piece)
        else:
            detail = last.detail if last.detail == piece.detail else ""
            read = sum_known((last.bytes_read, piece.bytes_read))
            merged[-1] = replace(last, ended_us=piece.ended_us, bytes_read=read, detail=detail)
    return merged


def sum_known(parts: Iterable[int | None]) -> int | None:
    """Return the sum of what is known, None if nothing is."""
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
