"""The ledger in the FinOps FOCUS format, version 1.2: one row for each item of the bill and day.

https://focus.finops.org/focus-specification/v1-2/ (FinOps Foundation). Columns beyond the specification begin
with `x_`, as it asks. BilledCost sums to the bill to the nano-dollar; the unit prices are the ledger's rates.
"""

import csv
import sqlite3
from collections.abc import Iterator
from typing import TextIO

from poorwill.core.format import DAY_US, csv_cell, decimal
from poorwill.core.words import HOUR_US, SECOND_US
from poorwill.ledger.checksums import Tell
from poorwill.ledger.costs.items import NO_KEY_NAME, NOT_RECORDED, OVERHEAD, Item, items
from poorwill.ledger.costs.pricing import BRIDGE
from poorwill.ledger.dates import Period, month_of, timestamp
from poorwill.ledger.rates import Rate, rate_book
from poorwill.ledger.verifying import verify
from poorwill.policies.pricing import MINIMUM, ROUNDING, STORAGE

VERSION = "1.2"

COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountStatus",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_Cause",
    "x_Host",
    "x_Model",
    "x_Tier",
    "x_Microseconds",
    "x_NanoUnits",
)

ISSUER = "poorwill"


def write_focus(
    db: sqlite3.Connection, period: Period, out: TextIO, *, by_key: bool, tell: Tell = lambda _: None
) -> int:
    """Write the export as CSV and return the number of rows. With keys each is a sub-account."""
    rows = focus_rows(db, period, by_key=by_key, tell=tell)
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    count = 0
    for row in rows:
        writer.writerow(row)
        count += 1
    return count


def focus_rows(
    db: sqlite3.Connection, period: Period, *, by_key: bool, tell: Tell = lambda _: None
) -> Iterator[dict[str, str]]:
    """Return the rows, in the order of days, replicas and causes. Null is the empty string."""
    verify(db, period, by_key=by_key, tell=tell)
    rates = {rate.id: rate for rate in rate_book(db).rates}
    found = items(db, period, by_key=by_key, tell=tell)
    found.sort(key=lambda i: (i.day, i.model, i.replica, i.host, i.cause, i.tier, i.key))
    return (_row(item, period, rates.get(item.rate or 0)) for item in found)


def _row(item: Item, period: Period, rate: Rate | None) -> dict[str, str]:
    month = month_of(item.day * DAY_US)
    cost = decimal(item.nusd)
    return {
        "BilledCost": cost,
        "BillingAccountId": ISSUER,
        "BillingAccountName": ISSUER,
        "BillingAccountType": "Fleet",
        "BillingCurrency": item.currency,
        "BillingPeriodEnd": timestamp(month.to_us),
        "BillingPeriodStart": timestamp(month.from_us),
        "ChargeCategory": "Usage",
        "ChargeDescription": csv_cell(_description(item)),
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": timestamp(-(-min((item.day + 1) * DAY_US, period.to_us) // SECOND_US) * SECOND_US),
        "ChargePeriodStart": timestamp(max(item.day * DAY_US, period.from_us)),
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": ISSUER,
        "ListCost": cost,
        "PricingCurrency": item.currency,
        "PricingCurrencyEffectiveCost": cost,
        "ProviderName": ISSUER,
        "PublisherName": ISSUER,
        "ResourceId": csv_cell(item.replica),
        "ResourceName": csv_cell(item.replica),
        "ResourceType": "Replica" if item.replica else "",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "poorwill",
        "ServiceSubcategory": "Generative AI",
        "Tags": "{}",
        "x_Cause": item.cause,
        "x_Host": csv_cell(item.host),
        "x_Model": csv_cell(item.model),
        "x_Tier": item.tier,
        "x_Microseconds": str(item.us),
        "x_NanoUnits": str(item.nusd),
        **_sub_account(csv_cell(item.key)),
        **(_sku(item, rate) if rate is not None else {}),
    }


def _sku(item: Item, rate: Rate) -> dict[str, str]:
    """Price columns: what is measured, in which unit, at which price of the ledger's rates."""
    if item.cause == STORAGE:
        price, meter, unit = rate.storage_nusd_gb_month, "Snapshot storage", "GB-Months"
        quantity = item.nusd / price if price else 0.0
    else:
        price, meter, unit = rate.nusd_h(item.cause, item.tier or None), "Replica time", "Hours"
        # Rounding and the minimum charge have no time of their own: their cost says how much was added.
        added = item.cause in (ROUNDING, MINIMUM) and price
        quantity = item.nusd / price if added else item.us / HOUR_US
    unit_price = decimal(price)
    return {
        "ConsumedQuantity": f"{quantity:.12f}",
        "ConsumedUnit": unit,
        "ContractedUnitPrice": unit_price,
        "ListUnitPrice": unit_price,
        "PricingCategory": "Standard",
        "PricingCurrencyContractedUnitPrice": unit_price,
        "PricingCurrencyListUnitPrice": unit_price,
        "PricingQuantity": f"{quantity:.12f}",
        "PricingUnit": unit,
        "SkuId": f"{item.tier or 'active'}/{unit}",
        "SkuMeter": meter,
        "SkuPriceId": f"rate-{rate.id}/{item.tier or 'active'}/{unit}",
    }


def _sub_account(key: str) -> dict[str, str]:
    if key in ("", OVERHEAD, NOT_RECORDED, NO_KEY_NAME):
        return {}
    return {"SubAccountId": key, "SubAccountName": key, "SubAccountType": "API key"}


def _description(item: Item) -> str:
    if item.cause == BRIDGE:
        return f"{item.model}: paid to a hosted API while its replica woke"
    if item.cause in (ROUNDING, MINIMUM):
        return f"{item.replica}: added by the provider's {item.cause}"
    if item.cause == STORAGE:
        return f"{item.replica}: its snapshot on disk, parked {item.tier}"
    return f"{item.replica}: {item.us / SECOND_US:.3f} s {item.cause}"
