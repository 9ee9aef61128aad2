"""What a hosted API would have charged for a trace: the alternative that every plan is measured against.

Prices come from the `genai-prices` package as of each request's date and time of day, or from a table of
one's own. Every figure carries its source and date. Only input and output tokens are priced: no caching, no
batch discount, no minimum.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.core.format import counted
from poorwill.core.money import NUSD
from poorwill.core.settings import HostedSettings
from poorwill.core.token_prices import TokenPrices
from poorwill.core.words import SECOND_US
from poorwill.files.records import Row, open_table, read_rows
from poorwill.planner.traces.trace import UNKNOWN, Trace

REFERENCE = ("groq", "llama-3.3-70b-versatile")
"""Priced where no hosted model is named: an open-weights model of the size people host themselves."""
PART_PRICES: Mapping[str, str] = MappingProxyType(
    {
        "cache_read": "cache_read_mtok",
        "cache_write": "cache_write_mtok",
        "audio_in": "input_audio_mtok",
        "image_in": "input_image_mtok",
        "audio_out": "output_audio_mtok",
    }
)
"""What genai-prices calls the price of a part."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MTOK = 1_000_000
MINUTE_US = 60 * SECOND_US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Dollars per million tokens at one instant."""

    input_usd: Decimal
    output_usd: Decimal
    parts_usd: Mapping[str, Decimal] = field(default_factory=dict)
    """Of cached tokens, audio and images, by `core.tokens.TOKEN_PARTS`, if they have prices of their own."""

    @property
    def prices(self) -> TokenPrices:
        """The same in nano-dollars."""
        return TokenPrices(
            input=round(self.input_usd * NUSD),
            output=round(self.output_usd * NUSD),
            parts={part: round(usd * NUSD) for part, usd in self.parts_usd.items()},
        )

    def nusd(self, tokens_in: int, tokens_out: int) -> int:
        """Return nano-dollars for so many tokens, rounded once, half up."""
        usd = (self.input_usd * tokens_in + self.output_usd * tokens_out) / MTOK
        return int((usd * NUSD).to_integral_value(rounding=ROUND_HALF_UP))


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One provider's model and what it charges."""

    provider: str
    model: str
    source: str
    """Where the price is from, with its version or date."""
    quote: Callable[[datetime, int], Quote]
    """The price at an instant for a request with so many input tokens."""
    varies: bool
    """Whether the price depends on date, time of day or the request's size."""

    @property
    def name(self) -> str:
        """Return provider/model."""
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedBill:
    """What a trace would have cost there."""

    offer: Offer
    nusd: int
    per_request_nusd: Floats
    """Nano-dollars of each request, for what bridges some of them; not rounded."""
    prompt_tokens: int
    output_tokens: int
    as_of: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGuess:
    """Tokens of a request whose trace does not say, given by the user or the defaults."""

    prompt: int = 1500
    output: int = 300


def priced_by_package(provider: str, model: str) -> Offer:
    """Return an offer from the genai-prices package. Raises RequestFault where it knows none."""
    import genai_prices
    from genai_prices import Usage, calc_price
    from genai_prices.types import TieredPrices

    def look(at: datetime, prompt_tokens: int) -> Quote:
        priced = calc_price(
            Usage(input_tokens=prompt_tokens, output_tokens=1),
            model,
            provider_id=provider,
            genai_request_timestamp=at,
        )
        parts = {
            part: _at_size(price, prompt_tokens) if isinstance(price, TieredPrices) else price
            for part, key in PART_PRICES.items()
            if (price := getattr(priced.model_price, key)) is not None
        }
        # Through the price of a million tokens where it is flat, else at this size's step.
        rates = priced.model_price
        if isinstance(rates.input_mtok, TieredPrices) or isinstance(rates.output_mtok, TieredPrices):
            per_token = priced.input_price / max(prompt_tokens, 1)
            return Quote(input_usd=per_token * MTOK, output_usd=priced.output_price * MTOK, parts_usd=parts)
        return Quote(
            input_usd=rates.input_mtok or Decimal(0),
            output_usd=rates.output_mtok or Decimal(0),
            parts_usd=parts,
        )

    def _at_size(price: TieredPrices, prompt_tokens: int) -> Decimal:
        return next((t.price for t in reversed(price.tiers) if prompt_tokens > t.start), price.base)

    try:
        sample = calc_price(Usage(input_tokens=1, output_tokens=1), model, provider_id=provider)
    except LookupError as error:
        raise RequestFault(
            ErrorCode.MODEL_NOT_FOUND,
            f"genai-prices {genai_prices.__version__} has no price for {provider}/{model}",
            hint="name it as PROVIDER/MODEL, or give a table with --prices",
        ) from error
    rates = sample.model_price
    tiered = any(isinstance(rate, TieredPrices) for rate in (rates.input_mtok, rates.output_mtok))
    return Offer(
        provider=provider,
        model=sample.model.id,
        source=f"genai-prices {genai_prices.__version__}",
        quote=look,
        varies=tiered or isinstance(sample.model.prices, list),
    )


MOST_PRICES = 2**24
"""Largest table of prices, in bytes."""
MOST_USD_MTOK = 10**6


def _priced(row: Row) -> Mapping[str, str]:
    if isinstance(row, str):
        raise ValueError(row)
    return row


def _dollars(text: str) -> Decimal:
    """Return a price. Raises ValueError for what is none, before anything is computed with it."""
    price = Decimal(text[:40])
    if not price.is_finite() or not 0 <= price <= MOST_USD_MTOK:
        raise ValueError(f"{text[:40]} is no price")
    return price


def priced_by_table(path: str, provider: str, model: str) -> Offer:
    """Return an offer from a CSV with provider, model, input_usd_per_mtok, output_usd_per_mtok.

    An optional column `source` says where the price is from. Raises OperatorFault for a table that cannot
    be read, RequestFault where it has no such row.
    """
    try:
        with open_table(path, most_bytes=MOST_PRICES) as file:
            rows = [_priced(row) for _, row in read_rows(file).rows]
        found = [row for row in rows if (row["provider"], row["model"]) == (provider, model)]
        quotes = [
            Quote(
                input_usd=_dollars(row["input_usd_per_mtok"]),
                output_usd=_dollars(row["output_usd_per_mtok"]),
            )
            for row in found
        ]
    except (OSError, KeyError, ValueError, InvalidOperation, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{error!r}"
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot read prices from {path}: {reason}",
            hint="columns: provider, model, input_usd_per_mtok, output_usd_per_mtok, source",
        ) from error
    if not quotes:
        known = ", ".join(sorted({f"{row['provider']}/{row['model']}" for row in rows})[:20])
        raise RequestFault(
            ErrorCode.MODEL_NOT_FOUND,
            f"{path} has no price for {provider}/{model}",
            hint=f"it has: {known}",
        )
    return Offer(
        provider=provider,
        model=model,
        source=found[-1].get("source") or path,
        quote=lambda at, prompt_tokens: quotes[-1],
        varies=False,
    )


def hosted_bill(trace: Trace, offer: Offer, *, guess: TokenGuess, today_us: int) -> HostedBill:
    """Return what the offer would have charged. An undated trace is priced as of today."""
    prompts = np.where(trace.prompt_tokens == UNKNOWN, guess.prompt, trace.prompt_tokens)
    outputs = np.where(trace.output_tokens == UNKNOWN, guess.output, trace.output_tokens)
    unknown = int(((trace.prompt_tokens == UNKNOWN) | (trace.output_tokens == UNKNOWN)).sum())
    origin = trace.origin_us if trace.origin_us is not None else today_us
    arrivals = trace.arrival_us if trace.origin_us is not None else np.zeros(len(trace), np.int64)
    inputs, outs = _rates(offer, origin + arrivals, prompts)
    each = (inputs * prompts + outs * outputs) * (NUSD // MTOK)
    notes = []
    if unknown:
        notes.append(
            f"{counted(unknown, 'request')} without token counts: taken as {guess.prompt} tokens in, "
            f"{guess.output} out"
        )
    if trace.origin_us is None:
        notes.append("the trace has no date: priced as of today")
    return HostedBill(
        offer=offer,
        nusd=round(float(each.sum())) if offer.varies else _exact(offer, origin, prompts, outputs),
        per_request_nusd=each,
        prompt_tokens=int(prompts.sum()),
        output_tokens=int(outputs.sum()),
        as_of=_dates(origin, origin + (int(arrivals[-1]) if len(arrivals) else 0)),
        notes=tuple(notes),
    )


def _rates(
    offer: Offer,
    instants_us: Counts,
    prompts: Counts,
) -> tuple[Floats, Floats]:
    """Return dollars per million tokens for every request, looked up once a minute and size."""
    known: dict[tuple[int, int], Quote] = {}
    inputs = np.empty(len(prompts))
    outputs = np.empty(len(prompts))
    minutes = (instants_us // MINUTE_US).tolist()
    for index, (minute, size) in enumerate(zip(minutes, prompts.tolist(), strict=True)):
        key = (minute, size // 1000) if offer.varies else (0, 0)
        quote = known.get(key)
        if quote is None:
            quote = known[key] = offer.quote(EPOCH + timedelta(minutes=minute), size)
        inputs[index], outputs[index] = float(quote.input_usd), float(quote.output_usd)
    return inputs, outputs


def _exact(
    offer: Offer,
    at_us: int,
    prompts: Counts,
    outputs: Counts,
) -> int:
    quote = offer.quote(EPOCH + timedelta(microseconds=at_us), 1)
    return quote.nusd(int(prompts.sum()), int(outputs.sum()))


def _dates(first_us: int, last_us: int) -> str:
    first, last = _date(first_us), _date(last_us)
    return first if first == last else f"{first} to {last}"


def _date(us: int) -> str:
    return (EPOCH + timedelta(microseconds=us)).date().isoformat()


def split_name(name: str) -> tuple[str, str]:
    """Return provider and model of PROVIDER/MODEL. Raises RequestFault where it is something else."""
    provider, slash, model = name.partition("/")
    if not (provider and slash and model):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"{name!r} names no hosted model",
            hint="write PROVIDER/MODEL, such as groq/llama-3.3-70b-versatile",
        )
    return provider, model


def offer_of(hosted: HostedSettings) -> Offer:
    """Return what `fleet.toml` names, at its own price where it gives one, else at the package's.

    Raises RequestFault where neither has a price.
    """
    if hosted.input_nusd_mtok is None or hosted.output_nusd_mtok is None:
        return priced_by_package(hosted.provider, hosted.model)
    quote = Quote(
        input_usd=Decimal(hosted.input_nusd_mtok) / NUSD,
        output_usd=Decimal(hosted.output_nusd_mtok) / NUSD,
    )
    return Offer(
        provider=hosted.provider,
        model=hosted.model,
        source="fleet.toml",
        quote=lambda at, prompt_tokens: quote,
        varies=False,
    )


def find_offer(name: str | None, table: str | None) -> Offer:
    """Return the named offer, or the reference; from a table where one is given and something is named."""
    provider, model = split_name(name) if name else REFERENCE
    if table and name:
        return priced_by_table(table, provider, model)
    return priced_by_package(provider, model)
