"""From `hosted = { bridge = true, ... }` to the hosted APIs that the gateway may send requests to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta

from poorwill.config.key_lines import NO_LINES, KeyLines
from poorwill.config.problems import FileProblems, ModelProblems
from poorwill.core.errors import PoorwillError, RequestFault
from poorwill.core.ports.log import Log
from poorwill.core.problems import ConfigFault, Problem
from poorwill.core.settings import FleetSettings, HostedSettings, ModelSettings
from poorwill.core.words import ModelName
from poorwill.gateway.bridge.parts import BridgedApi
from poorwill.hosts.files.reach import verifying
from poorwill.ledger.costs.usage import Use
from poorwill.remote.hosted_api import HostedApi, PricesAt


def bridged_models(settings: FleetSettings) -> Iterator[tuple[ModelSettings, HostedSettings]]:
    """Yield the models whose requests may go to a hosted API, and which."""
    for model in settings.models:
        if model.hosted is not None and model.hosted.bridge:
            yield model, model.hosted


def unpriced_bridges(settings: FleetSettings, lines: KeyLines = NO_LINES) -> Sequence[Problem]:
    """Return a problem for each bridge without a price: its cost could be neither shown nor limited."""
    found = FileProblems(lines=lines)
    for model, hosted in bridged_models(settings):
        try:
            _prices(hosted)
        except PoorwillError as error:
            hint = "give input_usd_mtok and output_usd_mtok, or name it as genai-prices does"
            here = ModelProblems(name=model.name, found=found)
            here.wrong(["hosted.model"], error.message, hint)
    return found.in_order()


def hosted_apis(
    settings: FleetSettings, *, env: Mapping[str, str], log: Log
) -> Mapping[ModelName, HostedApi]:
    """Return the hosted API of every model with a bridge, and log each.

    Their keys are in the environment: whoever read the configuration looked.

    Raises ConfigFault if one has no price.
    """
    problems = unpriced_bridges(settings)
    if problems:
        raise ConfigFault(problems, source=settings.source)
    models = list(bridged_models(settings))
    secure = any(hosted.url.startswith("https:") for _, hosted in models)
    tls = verifying() if secure else None
    for model, hosted in models:
        log.info("requests may go to a hosted API", model=model.name, api=hosted.name, url=hosted.url)
    return {
        model.name: HostedApi(
            serves=model.name,
            name=hosted.name,
            provider=hosted.provider,
            model=hosted.model,
            url=hosted.url,
            key=env[hosted.key_env],
            at_once=hosted.when == "waking",
            prices=_prices(hosted),
            max_output_tokens=hosted.max_output_tokens,
            tls=tls if hosted.url.startswith("https:") else None,
        )
        for model, hosted in models
    }


def bridged(apis: Mapping[ModelName, HostedApi]) -> Mapping[ModelName, BridgedApi]:
    """Return the hosted APIs as the gateway is told of them."""
    names = [field.name for field in fields(BridgedApi)]
    return {model: BridgedApi(**{name: getattr(api, name) for name in names}) for model, api in apis.items()}


def _prices(hosted: HostedSettings) -> PricesAt:
    """Return what tokens cost there. Raises RequestFault if nobody knows."""
    from poorwill.remote.hosted_prices import (  # numpy is slow to import, and few need it
        EPOCH,
        offer_of,
    )

    offer = offer_of(hosted)
    return lambda at_us, tokens_in: offer.quote(EPOCH + timedelta(microseconds=at_us), tokens_in).prices


def hosted_price(hosted: HostedSettings, use: Use) -> int | None:
    """Return what the hosted API would have charged for a day's tokens, at that day's price.

    None if that is not known: no price, none as early as that, or none for some kind of token.
    """
    from poorwill.remote.hosted_prices import EPOCH, offer_of  # numpy is slow to import

    try:
        offer = offer_of(hosted)
    except RequestFault:
        return None
    noon = EPOCH + timedelta(days=use.day, hours=12)
    if offer.known_from is not None and noon < offer.known_from:
        return None
    quote = offer.quote(noon, use.tokens_in // max(use.requests, 1))
    cost = quote.prices.cost(use.tokens_in, use.tokens_out, use.parts)
    return None if cost.unknown_nusd else cost.nusd
