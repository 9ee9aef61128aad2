"""The error text of a wake that was torn down because one phase exceeded its limit. Pure."""

import re
from collections.abc import Sequence

from poorwill.core.entries import PhaseSpan
from poorwill.core.words import READ_PHASES, SECOND_US, Phase

EXPECTED_DETAIL = "expected {:.0f} B/s"
"""The detail of a phase that read much more slowly than expected."""
_EXPECTED = re.compile(r"expected (\d+) B/s")
_GB = 1e9


def overrun(phase: Phase, spent_us: int, limit_us: int) -> str:
    """Return the text as known at the moment of the overrun: `weights: 61 s of 60 s`."""
    limit = f"{limit_us / SECOND_US:g}"
    told = (f"{spent_us / SECOND_US:.{digits}g}" for digits in range(3, 7))
    # An overrun by a few milliseconds must not read as none.
    spent = next((text for text in told if text != limit), limit)
    return f"{phase}: {spent} s of {limit} s"


def with_rates(why: str, anatomy: Sequence[PhaseSpan]) -> str:
    """Return the text with the rates that the anatomy of the failed wake adds.

    `weights: 61 s of 60 s; reading 0.3 GB/s, expected 2.1`. Unchanged if it names no phase of the anatomy, if
    the bytes read are unknown, or if the phase does not consist of reading.
    """
    phase = why.partition(":")[0]
    if phase not in READ_PHASES:
        return why
    leaves = [span for span in anatomy if span.phase == phase and span.bytes_read is not None]
    took_us = sum(span.ended_us - span.began_us for span in leaves)
    if took_us <= 0:
        return why
    rate = sum(span.bytes_read or 0 for span in leaves) / took_us * SECOND_US
    expected = [int(found[1]) for span in leaves if (found := _EXPECTED.search(span.detail))]
    told = f", expected {max(expected) / _GB:.2g}" if expected else ""
    return f"{why}; reading {rate / _GB:.2g} GB/s{told}"
