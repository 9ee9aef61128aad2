"""What a hosted API would have charged for a trace: the alternative that every plan is measured against.

Every request is priced as of its own date and time of day, at the step that its size falls into. Only input
and output tokens are priced: no caching, no batch discount, no minimum.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
from numpy.typing import NDArray

from poorwill.core.format import DAY_US, MINUTE_US, counted, moment
from poorwill.core.money import NUSD
from poorwill.hosts.files.traces.trace import UNKNOWN, Trace
from poorwill.remote.hosted_prices import EPOCH, MTOK, Offer, PriceList, SteppedPrice

DAY_MINUTES = 24 * 60
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedBill:
    """What a trace would have cost there."""

    offer: Offer
    nusd: int
    per_request_nusd: Floats
    """Nano-dollars of each request, for what bridges some of them; not rounded."""
    prompt_tokens: int
    output_tokens: int
    dated: str
    """Of when the prices are: `as of 2026-11-24`, `as of 2025-02-28 to 2025-03-04`, or that nobody says."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGuess:
    """Tokens of a request whose trace does not say, given by the user or the defaults."""

    prompt: int = 1500
    output: int = 300


def hosted_bill(trace: Trace, offer: Offer, *, guess: TokenGuess, today_us: int) -> HostedBill | None:
    """Return what the offer would have charged; None if its price list does not reach back to the trace.

    An undated trace is priced as of one instant, `today_us`.
    """
    origin = trace.origin_us if trace.origin_us is not None else today_us
    if offer.known_from is not None and _instant(origin) < offer.known_from:
        return None
    prompts = np.where(trace.prompt_tokens == UNKNOWN, guess.prompt, trace.prompt_tokens)
    outputs = np.where(trace.output_tokens == UNKNOWN, guess.output, trace.output_tokens)
    arrivals = trace.arrival_us if trace.origin_us is not None else np.zeros(len(trace), np.int64)
    each, total = _priced(offer, origin + arrivals, prompts, outputs)
    unknown = int(((trace.prompt_tokens == UNKNOWN) | (trace.output_tokens == UNKNOWN)).sum())
    notes = []
    if unknown:
        notes.append(
            f"{counted(unknown, 'request')} without token counts: taken as {guess.prompt} tokens in, "
            f"{guess.output} out"
        )
    last = _instant(origin + (int(arrivals[-1]) if len(arrivals) else 0))
    dated, untold = offer.dated(_instant(origin), last)
    if trace.origin_us is None:
        dated = f"as of {moment(today_us)[:10]}"
        untold = f"the trace has no date: hosted prices are those of {moment(today_us)}"
    notes += [untold] if untold else []
    return HostedBill(
        offer=offer,
        nusd=total,
        per_request_nusd=each,
        prompt_tokens=int(prompts.sum()),
        output_tokens=int(outputs.sum()),
        dated=dated,
        notes=tuple(notes),
    )


def _priced(offer: Offer, instants_us: Counts, prompts: Counts, outputs: Counts) -> tuple[Floats, int]:
    """Return nano-dollars of each request, and their exact sum rounded once.

    Requests of one price list and one step are priced together; there are few such groups.
    """
    each = np.zeros(len(prompts))
    usd = Decimal(0)
    for prices, chosen in _by_price_list(offer, instants_us):
        edges = {start for price in (prices.input, prices.output) for start, _ in price.steps}
        step = np.searchsorted(np.array(sorted(edges), np.int64), prompts[chosen], "left")
        for number in np.unique(step).tolist():
            group = chosen[step == number]
            quote = prices.quote(int(prompts[group[0]]))
            each[group] = prompts[group] * float(quote.input_usd) + outputs[group] * float(quote.output_usd)
            usd += quote.input_usd * int(prompts[group].sum()) + quote.output_usd * int(outputs[group].sum())
    return each * (NUSD // MTOK), int((usd * (NUSD // MTOK)).to_integral_value(rounding=ROUND_HALF_UP))


def _by_price_list(offer: Offer, instants_us: Counts) -> list[tuple[PriceList, Counts]]:
    """Return each price list that held, and the indices of the requests that came while it did."""
    starts = np.array([(start - EPOCH) // timedelta(microseconds=1) for start in offer.starts], np.int64)
    epoch = np.searchsorted(starts, instants_us, "right")
    minute = instants_us % DAY_US // MINUTE_US if offer.by_time_of_day else np.zeros_like(instants_us)
    codes, first, which = np.unique(epoch * DAY_MINUTES + minute, return_index=True, return_inverse=True)
    found: dict[tuple[SteppedPrice, SteppedPrice], tuple[PriceList, list[int]]] = {}
    for number in range(len(codes)):
        prices = offer.prices(_instant(int(instants_us[first[number]])))
        found.setdefault((prices.input, prices.output), (prices, []))[1].append(number)
    return [(prices, np.flatnonzero(np.isin(which, numbers))) for prices, numbers in found.values()]


def _instant(at_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=at_us)
