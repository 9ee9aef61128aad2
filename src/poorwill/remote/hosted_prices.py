"""What hosted APIs charge: from the `genai-prices` package, `fleet.toml` or a table of the user's own.

A price may depend on the date, the time of day and how many tokens go in. Every price carries its source.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from types import MappingProxyType
from typing import TYPE_CHECKING

from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.core.money import NUSD
from poorwill.core.settings import HostedSettings
from poorwill.core.token_prices import TokenPrices
from poorwill.hosts.files.records import Row, open_table, read_rows

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, TieredPrices

REFERENCE = ("groq", "llama-3.3-70b-versatile")
"""Priced when no hosted model is named: an open-weights model of the size people host themselves."""
PART_PRICES: Mapping[str, str] = MappingProxyType(
    {
        "cache_read": "cache_read_mtok",
        "cache_write": "cache_write_mtok",
        "cache_write_1h": "cache_write_1h_mtok",
        "audio_in": "input_audio_mtok",
        "image_in": "input_image_mtok",
        "audio_out": "output_audio_mtok",
    }
)
"""What genai-prices calls the price of a part."""
MTOK = 1_000_000
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


@dataclass(frozen=True, slots=True)
class SteppedPrice:
    """Dollars per million tokens. The step that the input falls into prices all tokens of a request."""

    base: Decimal
    steps: tuple[tuple[int, Decimal], ...] = ()
    """(input tokens beyond which it holds, price), ascending."""

    def at(self, prompt_tokens: int) -> Decimal:
        """Return the price for a request with so many input tokens."""
        return next((usd for start, usd in reversed(self.steps) if prompt_tokens > start), self.base)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """What one model costs while its price does not change."""

    input: SteppedPrice
    output: SteppedPrice
    parts: Mapping[str, SteppedPrice] = field(default_factory=dict)

    def quote(self, prompt_tokens: int) -> Quote:
        """Return the price for a request with so many input tokens."""
        return Quote(
            input_usd=self.input.at(prompt_tokens),
            output_usd=self.output.at(prompt_tokens),
            parts_usd={part: price.at(prompt_tokens) for part, price in self.parts.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One provider's model and what it charges."""

    provider: str
    model: str
    source: str
    """Where the price is from, with its version or date."""
    prices: Callable[[datetime], PriceList]
    """The prices at an instant."""
    starts: Sequence[datetime] = ()
    """Midnights at which prices change; none if the source has one price and no history."""
    by_time_of_day: bool = False
    known_from: datetime | None = None
    """The price list tells nothing of earlier prices; None if it says so of no date."""

    @property
    def name(self) -> str:
        """Return provider/model."""
        return f"{self.provider}/{self.model}"

    def dated(self, first: datetime, last: datetime) -> tuple[str, str]:
        """Return of when the prices from one instant to another are, and what the source does not tell."""
        if not self.starts:
            told = f"{self.source} has no price history of {self.name}: its one price is used throughout"
            return "undated", told
        if first < self.starts[0]:
            told = f"{self.source} does not say since when the oldest price of {self.name} holds"
            return f"at its oldest price until {self.starts[0]:%Y-%m-%d}", told
        begin, end = f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}"
        return f"as of {begin}" + (f" to {end}" if begin != end else ""), ""

    def quote(self, at: datetime, prompt_tokens: int) -> Quote:
        """Return the price at an instant for a request with so many input tokens."""
        return self.prices(at).quote(prompt_tokens)


def priced_by_package(provider: str, model: str) -> Offer:
    """Return an offer from the genai-prices package. Raises RequestFault if it knows none."""
    import genai_prices
    from genai_prices import Usage, calc_price
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    try:
        sample = calc_price(Usage(input_tokens=1, output_tokens=1), model, provider_id=provider)
    except LookupError as error:
        raise RequestFault(
            ErrorCode.MODEL_NOT_FOUND,
            f"genai-prices {genai_prices.__version__} has no price for {provider}/{model}",
            hint="name it as PROVIDER/MODEL, or give a table with --prices",
        ) from error
    listed = sample.model.prices
    constraints = [] if not isinstance(listed, list) else [price.constraint for price in listed]
    dates = sorted(one.start_date for one in constraints if isinstance(one, StartDateConstraint))
    starts = [datetime(date.year, date.month, date.day, tzinfo=UTC) for date in dates]
    return Offer(
        provider=provider,
        model=sample.model.id,
        source=f"genai-prices {genai_prices.__version__}",
        prices=lambda at: _price_list(sample.model.get_prices(at)),
        starts=starts,
        by_time_of_day=any(isinstance(one, TimeOfDateConstraint) for one in constraints),
        known_from=starts[0] if starts and None not in constraints else None,
    )


def _price_list(price: "ModelPrice") -> PriceList:
    parts = {part: getattr(price, key) for part, key in PART_PRICES.items()}
    return PriceList(
        input=_stepped(price.input_mtok),
        output=_stepped(price.output_mtok),
        parts={part: _stepped(found) for part, found in parts.items() if found is not None},
    )


def _stepped(price: "Decimal | TieredPrices | None") -> SteppedPrice:
    if price is None or isinstance(price, Decimal):
        return SteppedPrice(price or Decimal(0))
    return SteppedPrice(price.base, tuple(sorted((step.start, step.price) for step in price.tiers)))


def flat_offer(provider: str, model: str, source: str, quote: Quote) -> Offer:
    """Return an offer at one price, whenever and however much."""
    listed = PriceList(input=SteppedPrice(quote.input_usd), output=SteppedPrice(quote.output_usd))
    return Offer(provider=provider, model=model, source=source, prices=lambda at: listed)


MOST_PRICES = 2**24
"""Largest table of prices, in bytes."""
MOST_USD_MTOK = 10**6


def _priced(row: Row) -> Mapping[str, str]:
    if isinstance(row, str):
        raise ValueError(row)
    return row


def _dollars(text: str) -> Decimal:
    """Return a price. Raises ValueError for what is none, before anything is computed with it."""
    try:
        price = Decimal(text[:40])
    except InvalidOperation as error:
        raise ValueError(f"{text[:40]!r} is no price") from error
    if not price.is_finite() or not 0 <= price <= MOST_USD_MTOK:
        raise ValueError(f"{text[:40]!r} is no price")
    return price


def _reason(error: OSError | KeyError | ValueError) -> str:
    if isinstance(error, KeyError):
        return f"it has no column {error.args[0]}"
    return getattr(error, "strerror", None) or str(error)


def priced_by_table(path: str, provider: str, model: str) -> Offer:
    """Return an offer from a CSV with provider, model, input_usd_per_mtok, output_usd_per_mtok.

    An optional column `source` says where the price is from. Raises OperatorFault for a table that cannot
    be read, RequestFault if it has no such row.
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
    except (OSError, KeyError, ValueError) as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot read prices from {path}: {_reason(error)}",
            hint="columns: provider, model, input_usd_per_mtok, output_usd_per_mtok, source",
        ) from error
    if not quotes:
        known = ", ".join(sorted({f"{row['provider']}/{row['model']}" for row in rows})[:20])
        raise RequestFault(
            ErrorCode.MODEL_NOT_FOUND,
            f"{path} has no price for {provider}/{model}",
            hint=f"it has: {known}",
        )
    return flat_offer(provider, model, found[-1].get("source") or path, quotes[-1])


def split_name(name: str) -> tuple[str, str]:
    """Return provider and model of PROVIDER/MODEL. Raises RequestFault if it is something else."""
    provider, slash, model = name.partition("/")
    if not (provider and slash and model):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"{name!r} names no hosted model",
            hint="write PROVIDER/MODEL, such as groq/llama-3.3-70b-versatile",
        )
    return provider, model


def offer_of(hosted: HostedSettings) -> Offer:
    """Return what `fleet.toml` names, at its own price if it gives one, else at the package's.

    Raises RequestFault if neither has a price.
    """
    if hosted.input_nusd_mtok is None or hosted.output_nusd_mtok is None:
        return priced_by_package(hosted.provider, hosted.model)
    quote = Quote(
        input_usd=Decimal(hosted.input_nusd_mtok) / NUSD,
        output_usd=Decimal(hosted.output_nusd_mtok) / NUSD,
    )
    return flat_offer(hosted.provider, hosted.model, "fleet.toml", quote)


def find_offer(name: str | None, table: str | None) -> Offer:
    """Return the named offer, or the reference; from a table if one is given and something is named."""
    provider, model = split_name(name) if name else REFERENCE
    if table and name:
        return priced_by_table(table, provider, model)
    return priced_by_package(provider, model)
