"""What a hosted API would have charged for the same tokens, from the public price list in `genai-prices`."""

from decimal import ROUND_HALF_UP, Decimal

from poorwill.core.money import NUSD

_SAMPLE = 1_000
"""Tokens of a small request: some providers charge more for long contexts, which sums cannot tell."""


def hosted_price(provider: str, model: str, tokens_in: int, tokens_out: int) -> int | None:
    """Return nano-dollars for these tokens, None where the list has no such model.

    The list ships with the package; nothing is downloaded.
    """
    from genai_prices import Usage, calc_price  # 100 ms to import

    try:
        read = calc_price(Usage(input_tokens=_SAMPLE, output_tokens=0), model, provider_id=provider)
        said = calc_price(Usage(input_tokens=0, output_tokens=_SAMPLE), model, provider_id=provider)
    except LookupError:
        return None
    dollars = read.total_price * tokens_in + said.total_price * tokens_out
    return int((Decimal(dollars) * NUSD / _SAMPLE).to_integral_value(rounding=ROUND_HALF_UP))
