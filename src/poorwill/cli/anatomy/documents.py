"""What `poorwill anatomy --json` prints."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from poorwill.coldstart.advice import Advice
from poorwill.coldstart.anatomy_tree import Branch, tree
from poorwill.coldstart.prediction import Estimate, total
from poorwill.coldstart.starts import FinishedWake, Spread, StartSummary
from poorwill.core.words import SECOND_US, Phase, Tier
from poorwill.engines.measured.storage_speed import StorageSpeed


class PhaseDocument(Struct, frozen=True, kw_only=True):
    """One piece of a wake; `start_s` counts from the wake's beginning."""

    phase: Phase
    start_s: float
    took_s: float
    read_bytes: int | None
    detail: str
    price_nusd: int | None


class BranchDocument(Struct, frozen=True, kw_only=True):
    """A part of a wake and the parts it consists of."""

    name: str
    took_s: float
    read_bytes: int | None
    children: tuple["BranchDocument", ...]


class WakeDocument(Struct, frozen=True, kw_only=True):
    """One wake, piece by piece and as a tree."""

    wake: str
    model: str
    replica: str
    kind: str
    from_tier: Tier
    began_us: int
    took_s: float
    budget_s: float | None
    ok: bool
    failure: str
    why: str
    asked_by: str
    held: int
    served: int
    price_nusd: int | None
    floor_bytes: int
    phases: tuple[PhaseDocument, ...]
    tree: BranchDocument


class WakesDocument(Struct, frozen=True, kw_only=True):
    """The wakes of one id."""

    wakes: tuple[WakeDocument, ...]


class SpreadDocument(Struct, frozen=True, kw_only=True):
    """Median, lowest and highest."""

    median_s: float
    low_s: float
    high_s: float


class StartDocument(Struct, frozen=True, kw_only=True):
    """One kind of start, over all wakes of that kind."""

    kind: str
    count: int
    took: SpreadDocument
    phases: Mapping[Phase, SpreadDocument]
    phase_prices_nusd: Mapping[Phase, int]
    price_nusd: int | None
    floor_bytes: int
    floor_s: float | None
    ratio_to_floor: float | None


class AdviceDocument(Struct, frozen=True, kw_only=True):
    """What to change, what it saves, and whether that was measured or computed."""

    do: str
    saves_s: float
    measured: bool
    evidence: str


class StorageDocument(Struct, frozen=True, kw_only=True):
    """The measured storage."""

    path: str
    bytes_per_s: float
    direct: bool
    measured_us: int


class EstimateDocument(Struct, frozen=True, kw_only=True):
    """An expected time with its interval."""

    expected_s: float
    low_s: float
    high_s: float
    because: str


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


def wake_document(wake: FinishedWake) -> WakeDocument:
    """Return one wake."""
    return WakeDocument(
        wake=wake.wake,
        model=wake.model,
        replica=wake.replica,
        kind=str(wake.kind),
        from_tier=wake.from_tier,
        began_us=wake.began_us,
        took_s=_s(wake.took_us),
        budget_s=None if wake.budget_us is None else _s(wake.budget_us),
        ok=wake.ok,
        failure=wake.failure,
        why=wake.why,
        asked_by=wake.asked_by,
        held=wake.held,
        served=wake.served,
        price_nusd=wake.price_nusd,
        floor_bytes=wake.floor_bytes,
        phases=tuple(
            PhaseDocument(
                phase=span.phase,
                start_s=_s(span.began_us - wake.began_us),
                took_s=_s(span.ended_us - span.began_us),
                read_bytes=span.bytes_read,
                detail=span.detail,
                price_nusd=price,
            )
            for span, price in zip(wake.spans, wake.prices_nusd, strict=True)
        ),
        tree=_branch(tree(wake.spans)),
    )


def start_document(start: StartSummary, bandwidth: float | None) -> StartDocument:
    """Return one kind of start."""
    floor = start.floor_us(bandwidth) if bandwidth else None
    return StartDocument(
        kind=str(start.kind),
        count=start.count,
        took=_spread(start.took),
        phases={phase: _spread(spread) for phase, spread in start.phases.items()},
        phase_prices_nusd=dict(start.phase_prices_nusd),
        price_nusd=start.price_nusd,
        floor_bytes=start.floor_bytes,
        floor_s=None if floor is None else _s(floor),
        ratio_to_floor=start.took.median_us / floor if floor else None,
    )


def advice_document(advice: Advice) -> AdviceDocument:
    """Return one piece of advice."""
    return AdviceDocument(
        do=advice.do, saves_s=_s(advice.saves_us), measured=advice.measured, evidence=advice.evidence
    )


def storage_document(speed: StorageSpeed | None) -> StorageDocument | None:
    """Return the measured storage, None if there is none."""
    if speed is None:
        return None
    return StorageDocument(
        path=speed.path, bytes_per_s=speed.bytes_s, direct=speed.direct, measured_us=speed.at_us
    )


def expected_document(estimates: Sequence[Estimate], *, measured: bool) -> ExpectedDocument:
    """Return the next wake from one tier."""
    return ExpectedDocument(total=total_document(estimates), phases=phases(estimates), measured=measured)


def total_document(estimates: Sequence[Estimate]) -> EstimateDocument:
    """Return the sum of estimates."""
    return _estimate(total(estimates))


def phases(estimates: Sequence[Estimate]) -> dict[Phase, EstimateDocument]:
    """Return estimates by phase."""
    return {estimate.phase: _estimate(estimate) for estimate in estimates}


def _estimate(estimate: Estimate) -> EstimateDocument:
    return EstimateDocument(
        expected_s=_s(estimate.expected_us),
        low_s=_s(estimate.low_us),
        high_s=_s(estimate.high_us),
        because=estimate.why,
    )


def _spread(spread: Spread) -> SpreadDocument:
    return SpreadDocument(median_s=_s(spread.median_us), low_s=_s(spread.low_us), high_s=_s(spread.high_us))


def _branch(branch: Branch) -> BranchDocument:
    return BranchDocument(
        name=branch.name,
        took_s=_s(branch.took_us),
        read_bytes=branch.bytes_read,
        children=tuple(map(_branch, branch.children)),
    )


def _s(us: int) -> float:
    return us / SECOND_US
