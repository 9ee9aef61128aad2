"""What `poorwill bill --reconcile --json` prints."""

from collections.abc import Mapping

from msgspec import Struct, convert, field, structs

from poorwill.bill.invoices.causes import Reason
from poorwill.bill.invoices.reconcile import Reconciliation


class PeriodUs(Struct, frozen=True, kw_only=True):
    """A period, in microseconds since 1970."""

    from_us: int
    to_us: int


class PartDocument(Struct, frozen=True, kw_only=True):
    """A part of a residual with its likely cause."""

    reason: Reason
    nusd: int
    detail: str


class MatchDocument(Struct, frozen=True, kw_only=True):
    """A resource in a period, on both sides or on one; the parts sum to the residual."""

    resource: str
    replica: str
    period: PeriodUs
    invoice_nusd: int | None
    ledger_nusd: int | None
    residual_nusd: int
    parts: tuple[PartDocument, ...]


class ReconciliationDocument(Struct, frozen=True, kw_only=True):
    """A whole invoice against the ledger; the reasons sum to the residual."""

    period: PeriodUs
    currency: str
    invoice_nusd: int
    ledger_nusd: int
    residual_nusd: int = 0
    reasons_nusd: Mapping[Reason, int] = field(default_factory=dict)
    matches: tuple[MatchDocument, ...]


def reconciliation_document(found: Reconciliation) -> ReconciliationDocument:
    """Return a reconciliation for JSON."""
    return structs.replace(
        convert(found, ReconciliationDocument, from_attributes=True),
        residual_nusd=found.invoice_nusd - found.ledger_nusd,
        reasons_nusd=found.reasons(),
    )
