"""What the leaves of an anatomy say: totals, bytes from storage, and the marks they could have come from."""

import re
from collections.abc import Iterable

from poorwill.core.entries import PhaseSpan
from poorwill.core.launch import PhaseMark
from poorwill.core.words import Phase

STORAGE_DETAIL = "{} B from storage"
"""How the detail of a leaf says how much of what was read came from storage, not from the page cache."""
READ_AHEAD_DETAILS = ("{} B read ahead", "{} B cached before", "{} B not read ahead")
"""Likewise what was read before the engine asked, was in the page cache before the wake, or neither."""
_STORAGE = re.compile(r"(\d+) B (?:from storage|read ahead)")


def as_marks(spans: Iterable[PhaseSpan]) -> list[PhaseMark]:
    """Return leaves as marks with both ends: `anatomy` makes the same leaves of them."""
    return [
        PhaseMark(
            phase=span.phase,
            at_us=span.began_us,
            ended_us=span.ended_us,
            bytes_read=span.bytes_read,
            detail=span.detail,
        )
        for span in spans
    ]


def totals(spans: Iterable[PhaseSpan]) -> dict[Phase, int]:
    """Return the microseconds of each phase, in order of first appearance."""
    sums: dict[Phase, int] = {}
    for span in spans:
        sums[span.phase] = sums.get(span.phase, 0) + span.ended_us - span.began_us
    return sums


def storage_bytes(spans: Iterable[PhaseSpan]) -> int | None:
    """Return the bytes that came from storage, None if unknown."""
    told = [int(found[1]) for span in spans for found in _STORAGE.finditer(span.detail)]
    return sum(told) if told else None
