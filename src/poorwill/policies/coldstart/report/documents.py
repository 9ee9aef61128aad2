"""Starts, wakes and predictions for JSON. Converted from the values of the same names."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from poorwill.core.words import Phase, Tier
from poorwill.policies.coldstart.anatomy_tree import tree
from poorwill.policies.coldstart.prediction import Estimate, total
from poorwill.policies.coldstart.starts import FinishedWake, StartSummary


class PhaseDocument(Struct, frozen=True, kw_only=True):
    """One piece of a wake."""

    phase: Phase
    began_us: int
    ended_us: int
    bytes_read: int | None = msgspec.field(name="read_bytes")
    detail: str
    price_nusd: int | None = None


class BranchDocument(Struct, frozen=True, kw_only=True):
    """A part of a wake and the parts it consists of."""

    name: str
    took_us: int
    bytes_read: int | None = msgspec.field(name="read_bytes")
    children: tuple["BranchDocument", ...]


class WakeDocument(Struct, frozen=True, kw_only=True):
    """One wake, piece by piece and as a tree."""

    wake: str
    model: str
    replica: str
    kind: str
    from_tier: Tier
    began_us: int
    took_us: int
    budget_us: int | None
    ok: bool
    failure: str
    why: str
    asked_by: str
    held: int
    served: int
    price_nusd: int | None
    must_read_bytes: int
    spans: tuple[PhaseDocument, ...] = msgspec.field(name="phases")
    tree: BranchDocument | None = None


class WakesDocument(Struct, frozen=True, kw_only=True):
    """The wakes of one id."""

    wakes: tuple[WakeDocument, ...]


class SpreadDocument(Struct, frozen=True, kw_only=True):
    """Median, lowest and highest."""

    median_us: int
    low_us: int
    high_us: int


class StartDocument(Struct, frozen=True, kw_only=True):
    """One kind of start, over all wakes of that kind."""

    kind: str
    count: int
    took: SpreadDocument
    phases: Mapping[Phase, SpreadDocument]
    phase_prices_nusd: Mapping[Phase, int]
    price_nusd: int | None
    must_read_bytes: int
    least_us: int | None = None
    """Reading `must_read_bytes` at the bandwidth of the storage."""
    ratio_to_reading: float | None = None


class AdviceDocument(Struct, frozen=True, kw_only=True):
    """What to change, what it saves, and whether that was measured or computed."""

    do: str
    saves_us: int
    measured: bool
    evidence: str


class StorageDocument(Struct, frozen=True, kw_only=True):
    """The measured storage; `bytes_per_s` is its bandwidth."""

    path: str
    bytes_s: float = msgspec.field(name="bytes_per_s")
    direct: bool
    at_us: int


class EstimateDocument(Struct, frozen=True, kw_only=True):
    """An expected time with its interval."""

    expected_us: int
    low_us: int
    high_us: int
    why: str


class ExpectedDocument(Struct, frozen=True, kw_only=True):
    """The next wake from one tier; `measured`: from wakes, otherwise from files."""

    total: EstimateDocument
    phases: Mapping[Phase, EstimateDocument]
    measured: bool


class PredictionDocument(Struct, frozen=True, kw_only=True):
    """What `--predict` predicts."""

    tier: Tier
    engine: str
    weight_bytes: float
    total: EstimateDocument
    phases: Mapping[Phase, EstimateDocument]
    evidence: str


class ModelAnatomyDocument(Struct, frozen=True, kw_only=True):
    """Everything about one model's wakes."""

    wakes: tuple[WakeDocument, ...]
    starts: tuple[StartDocument, ...]
    expected: Mapping[Tier, ExpectedDocument]
    advice: tuple[AdviceDocument, ...]


class AnatomyDocument(Struct, frozen=True, kw_only=True):
    """All models' wakes."""

    storage: StorageDocument | None
    models: Mapping[str, ModelAnatomyDocument]


def wake_documents(wakes: Iterable[FinishedWake]) -> tuple[WakeDocument, ...]:
    """Return wakes for JSON."""
    return tuple(map(_wake_document, wakes))


def _wake_document(wake: FinishedWake) -> WakeDocument:
    found = msgspec.convert(wake, WakeDocument, from_attributes=True)
    priced = tuple(
        msgspec.structs.replace(span, price_nusd=price)
        for span, price in zip(found.spans, wake.prices_nusd, strict=True)
    )
    whole = msgspec.convert(tree(wake.spans), BranchDocument, from_attributes=True)
    return msgspec.structs.replace(found, spans=priced, tree=whole)


def start_document(start: StartSummary, bandwidth: float | None) -> StartDocument:
    """Return one kind of start."""
    least_us = start.reading_us(bandwidth) if bandwidth else None
    return msgspec.structs.replace(
        msgspec.convert(start, StartDocument, from_attributes=True),
        least_us=least_us,
        ratio_to_reading=start.took.median_us / least_us if least_us else None,
    )


def estimate_documents(
    estimates: Sequence[Estimate],
) -> tuple[EstimateDocument, Mapping[Phase, EstimateDocument]]:
    """Return the sum of estimates, and each by its phase."""
    by_phase = {estimate.phase: estimate for estimate in estimates}
    return (
        msgspec.convert(total(estimates), EstimateDocument, from_attributes=True),
        msgspec.convert(by_phase, Mapping[Phase, EstimateDocument], from_attributes=True),
    )
